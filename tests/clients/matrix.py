"""What the clients' scripts reported, as a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

HEADER = ("client", "version", "plain", "streaming", "tools", "wrong key", "reasoning arrives as", "result")
PARTS = ("plain", "streaming", "tools", "wrong_key")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client's script reported; `missing` says why it was not run, `log` where its output is."""

    client: str
    facts: Sequence[dict[str, Any]] = ()
    missing: str = ""
    log: str = ""
    status: int = 0
    parts: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", {fact["part"]: fact for fact in self.facts})

    @property
    def ok(self) -> bool:
        """Every part was reported, and none failed."""
        done = [self.parts.get(part, {}).get("result") in ("ok", "absent") for part in PARTS]
        return not self.missing and self.status == 0 and all(done)

    @property
    def result(self) -> str:
        """passed, failed, or not run."""
        return "not run" if self.missing else "passed" if self.ok else "failed"

    def row(self) -> tuple[str, ...]:
        """The cells, in the order of HEADER."""
        if self.missing:
            return (self.client, *["-"] * (len(HEADER) - 2), self.result)
        about = self.parts.get("client", {})
        cells = [_cell(self.parts.get(part)) for part in PARTS]
        return (self.client, about.get("version", "-"), *cells, about.get("reasoning", "-"), self.result)

    def notes(self) -> list[str]:
        """What a cell has no room for: failures and where to read on, what a client cannot do, why it was not run."""
        if self.missing:
            return [f"{self.client}: not run, {self.missing}"]
        lines = []
        for part in PARTS:
            fact = self.parts.get(part, {"result": "failed", "why": f"the script ended with {self.status} before it"})
            if fact["result"] == "failed":
                lines.append(f"{self.client}: {part}: {fact['why']} ({self.log})")
            elif fact["result"] == "absent":
                lines.append(f"{self.client}: {part}: {fact['why']}")
        return lines


def read_facts(text: str) -> list[dict[str, Any]]:
    """One fact per line of JSON."""
    return [json.loads(line) for line in text.splitlines()]


def render(outcomes: Iterable[Outcome]) -> str:
    """A Markdown table, aligned for the terminal, with notes below."""
    done = list(outcomes)
    notes = [f"- {note}" for outcome in done for note in outcome.notes()]
    return "\n".join([table(HEADER, [outcome.row() for outcome in done]), "", *notes]).rstrip()


def table(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table, aligned for the terminal."""
    rows = [header, *cells]
    widths = [max(len(row[at]) for row in rows) for at in range(len(header))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cell(fact: dict[str, Any] | None) -> str:
    return {"ok": "yes", "absent": "has none", "failed": "FAILED"}[fact["result"]] if fact else "FAILED"
