"""docs/troubleshooting.md quotes what the gateway says: its codes and messages."""

import re
from pathlib import Path

import pytest

from tests.test_docs_api import CODES

ROOT = Path(__file__).parent.parent
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
SOURCE = "\n".join(file.read_text() for file in sorted((ROOT / "gateway").rglob("*.py")))
START = TROUBLE.partition("## The gateway does not start")[2].partition("\n## ")[0]
COMMANDS = TROUBLE.partition("## Tenants, keys and commands")[2].partition("\n## ")[0]


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_explained(code: str) -> None:
    assert f"`{code}`" in TROUBLE


def quoted(section: str) -> list[str]:
    """The messages in the first column of the section's table."""
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("message", quoted(START) + quoted(COMMANDS))
def test_a_message_that_is_quoted_is_one(message: str) -> None:
    """Piece by piece between what the gateway fills in."""
    for piece in re.split(r"\s*(?:\.\.\.|[A-Z]+:[A-Z]+|FLEETGATE_|\?)\s*", message):
        assert piece in SOURCE, piece


def test_there_are_messages() -> None:
    assert len(quoted(START)) > 8 and len(quoted(COMMANDS)) > 4
