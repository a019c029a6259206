"""The rule by which a test file is counted for the core's coverage."""

from pathlib import Path

import pytest

from tests.core_tests import knows_only_core

ROOT = Path(__file__).parent.parent

MODULES = {
    "tests/__init__.py": "",
    "tests/support/__init__.py": "",
    "tests/support/events.py": "from gateway.core import sse\n",
    "tests/support/gateways.py": "from gateway.app import build_app\n",
    "tests/support/through.py": "from tests.support.gateways import build_app\n",
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import json\nfrom gateway.core.sse import split_events\n", True),
        ("from gateway.core import sse\n", True),
        ("import gateway.core.sse\n", True),
        ("from tests.support.events import sse\n", True),
        ("from tests.support import events\n", True),
        ("import json\n", False),
        ("from gateway.corelib import sse\n", False),
        ("from gateway.core import sse\nfrom gateway.relay import pool\n", False),
        ("from gateway.core import sse\ndef test() -> None:\n    from workers import plan\n", False),
        ("from gateway.core import sse\nfrom loadtest.relay import main\n", False),
        ("from gateway.core import sse\nfrom tests.support.gateways import build_app\n", False),
        ("from gateway.core import sse\nfrom tests.support import through\n", False),
    ],
)
def test_a_file_is_of_the_core_by_its_imports(tmp_path: Path, source: str, expected: bool) -> None:
    for name, content in {**MODULES, "tests/test_it.py": source}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert knows_only_core(tmp_path / "tests/test_it.py", tmp_path) is expected


def test_no_counted_test_starts_a_process_or_a_server() -> None:
    """They run under a tracer, which sees neither other processes nor is worth its time there."""
    counted = [file for file in (ROOT / "tests").rglob("test_*.py") if knows_only_core(file, ROOT)]
    assert len(counted) > 40
    banned = ("import subprocess", "import multiprocessing", "import socket", "asyncio.start_server")
    assert [(str(file), word) for file in counted for word in banned if word in file.read_text()] == []
