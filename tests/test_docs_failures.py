"""docs/failures.md promises a test for every row: each is named, and each that is named is there to be collected.

And every fault test ends with `nothing_held`: it looks for what a request may have kept, whatever way it took.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "failures.md").read_text().partition("## Beside other routers")[0]
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
NAMED = re.findall(r"`(?:tests/[\w/]+\.py::)?(test_\w+)`", PAGE)


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_a_test_that_is_named_is_there(name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", TESTS, re.MULTILINE)


def test_every_row_names_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| what ", "|---"))]
    assert len(rows) > 30
    assert not [row for row in rows if not re.search(r"`(?:tests/\S+::)?test_\w+` \|$", row)]


FLOW = ROOT / "tests" / "flow"
FAULTS = sorted(FLOW.glob("test_faults_*.py"))
NO_FAULT = {"test_metrics_tell_what_became_of_nodes_and_attempts"}


def test_every_fault_test_stands_in_the_page() -> None:
    written = {name for file in (*FAULTS, FLOW / "test_rolling_restart.py") for name, _ in _tests(file)}
    assert not written - set(NAMED) - NO_FAULT


def test_every_fault_test_looks_for_what_is_still_held() -> None:
    silent = {name for file in FAULTS for name, body in _tests(file) if "await nothing_held(gateway" not in body}
    assert not silent - NO_FAULT


def _tests(file: Path) -> list[tuple[str, str]]:
    """The names of a file's tests and what stands in them."""
    _, *parts = re.split(r"^(?:async )?def (?=test_)", file.read_text(), flags=re.MULTILINE)
    return [(part.partition("(")[0], part) for part in parts]
