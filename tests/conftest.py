"""What every test has: the event loop that production runs on, and property tests that no busy machine can fail."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.core_tests import knows_only_core

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


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


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
