"""The tables of docs/fields.md."""

from pathlib import Path
from typing import NamedTuple

_PAGE = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()


class Field(NamedTuple):
    """A row of a dialect's table. `over_chat`: a note in those dialects that are not translated."""

    name: str
    effect: str
    over_chat: str


def dialect_fields(heading: str) -> dict[str, Field]:
    """The rows below `heading` by the names of their fields."""
    rows = [Field(name.strip("`"), effect, over_chat) for name, effect, over_chat in _rows(heading)]
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def refusals() -> dict[tuple[str, str], str]:
    """Who refuses what is named: by endpoint and field, its indexes written as `N`."""
    return {
        (path.strip("`"), name.strip("`")): by
        for path, name, by, _ in _rows("What the providers take, and nodes do not")
    }


def _rows(heading: str) -> list[list[str]]:
    section = _PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
