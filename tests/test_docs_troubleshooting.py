"""docs/troubleshooting.md and docs/telemetry.md quote what the gateway says: its codes, messages and log events."""

import re
from pathlib import Path

import pytest

from tests.test_docs_api import CODES

ROOT = Path(__file__).parent.parent
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text()
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


EVENTS = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TELEMETRY.partition("Events worth knowing")[2]))
"""The cells of the table; what is said of them has fields, too."""


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_an_event_that_is_explained_is_logged(event: str) -> None:
    assert f'"{event}"' in SOURCE


def test_there_are_messages_and_events() -> None:
    assert len(quoted(START)) > 8 and len(quoted(COMMANDS)) > 4 and len(EVENTS) > 20
