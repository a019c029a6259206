"""docs/failures.md promises a test for every row: each is named, and each that is named is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "failures.md").read_text().partition("## Beside other routers")[0]
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
NAMED = re.findall(r"`(?:tests/[\w/]+\.py::)?(test_\w+)`", PAGE)


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_a_test_that_is_named_is_there(name: str) -> None:
    assert re.search(rf"def {name}\(", TESTS)


def test_every_row_names_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| what ", "|---"))]
    assert len(rows) > 30
    assert not [row for row in rows if not re.search(r"`(?:tests/\S+::)?test_\w+` \|$", row)]


def test_every_fault_test_stands_in_the_page() -> None:
    files = [*(ROOT / "tests" / "flow").glob("test_faults_*.py"), ROOT / "tests" / "flow" / "test_rolling_restart.py"]
    written = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    assert not written - set(NAMED) - {"test_metrics_tell_what_became_of_nodes_and_attempts"}
