"""docs/replays.md promises a test for every report that was replayed: each is linked, named, and there to collect."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "replays.md").read_text()
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
ROWS = [line for line in TEXT.splitlines() if line.startswith("|") and not line.startswith(("| report ", "|---"))]


@pytest.mark.parametrize("row", ROWS)
def test_every_report_is_linked_and_names_a_test_that_is_there(row: str) -> None:
    reports, *told, test = row.strip("| ").split(" | ")
    assert re.fullmatch(r"(\[[\w -]+ \d+\]\(https://github\.com/[\w./-]+/(issues|pull)/\d+\)(, )?)+", reports)
    assert len(told) == 3 and all(told)
    named = re.fullmatch(r"`(test_\w+)`", test)
    assert named is not None
    assert re.search(rf"^(async )?def {named[1]}\(", TESTS, re.MULTILINE)


def test_there_are_reports() -> None:
    assert len(ROWS) > 25


def test_the_replays_of_the_test_module_are_all_listed() -> None:
    module = (ROOT / "tests" / "flow" / "test_public_reports.py").read_text()
    assert set(re.findall(r"^(?:async )?def (test_\w+)\(", module, re.MULTILINE)) <= set(
        re.findall(r"`(test_\w+)`", TEXT)
    )
