"""docs/security.md promises a test for every threat: each is named, and each that is named is there to be collected."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THREATS = (ROOT / "docs" / "security.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
ROWS = [line for line in THREATS.splitlines() if line.startswith("|") and not line.startswith(("| threat ", "|---"))]


@pytest.mark.parametrize("row", ROWS)
def test_every_threat_names_a_test_that_is_there(row: str) -> None:
    named = re.search(r"\| `(test_\w+)` \|$", row)
    assert named is not None
    assert re.search(rf"^(async )?def {named[1]}\(", TESTS, re.MULTILINE)


def test_there_are_threats() -> None:
    assert len(ROWS) > 30
