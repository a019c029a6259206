"""What every test has: the event loop that production runs on, property tests that no busy machine can fail, and HTTP
clients that cost a test next to nothing."""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.core_tests import knows_only_core
from tests.support.compiled import is_compiled

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

PUBLIC = (certifi.where(), os.environ.get("SSL_CERT_FILE"))
"""The files that httpx takes the public authorities from."""

make_context = ssl.create_default_context
public_authorities = cache(make_context)


def create_default_context(*args: Any, **options: Any) -> ssl.SSLContext:
    """As ssl's, but that of the public authorities is made once: each client of httpx would read them, 20 ms and more,
    and tests make one for nearly every request."""
    if not args and options.keys() == {"cafile"} and options["cafile"] in PUBLIC:
        return public_authorities(**options)
    return make_context(*args, **options)


ssl.create_default_context = create_default_context


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--core",
        choices=("only", "without"),
        help="only the tests of gateway/core alone (tests/core_tests.py), or the others",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Before a file is imported: to collect everything twice would take longer than to run the core's tests."""
    chosen = config.getoption("--core")
    if chosen is None or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    return True if knows_only_core(collection_path, config.rootpath) != (chosen == "only") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`@pytest.mark.source_only(WHY)`: a test that cannot run where the gateway is compiled (`make test-compiled`)."""
    if not is_compiled():
        return
    for item in items:
        marker = item.get_closest_marker("source_only")
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"from source only: {marker.args[0]}"))


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
