"""Faults by a timetable: `10 kill 1 for 5, 20 stall 2 for 5, 30 drain 3 for 10, 45 redis-away for 5, 50 reload`."""

import re
from dataclasses import dataclass

NODE_ACTIONS = ("kill", "stall", "drain")
ACTIONS = (*NODE_ACTIONS, "redis-away", "redis-hang", "reload")
FOREIGN = ("drain", "reload")
"""What can be done to a gateway that somebody else started."""

_ENTRY = re.compile(
    r"(?P<at>\d+(\.\d+)?)s?\s+(?P<action>[a-z-]+)(\s+(?P<node>\S+))??(\s+for\s+(?P<lasts>\d+(\.\d+)?)s?)?"
)


class TimetableError(ValueError):
    """An entry that cannot be read, or cannot be done here."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`action` at second `at`, undone after `lasts` seconds. `node` counts from 1, or is a foreign node's name."""

    at: float
    action: str
    node: str = ""
    lasts: float = 5.0

    def __str__(self) -> str:
        """As it is written in a timetable."""
        node = f" {self.node}" if self.node else ""
        return f"{self.at:g} {self.action}{node}" + (f" for {self.lasts:g}" if self.action != "reload" else "")


def read_timetable(text: str, nodes: int | None) -> tuple[Fault, ...]:
    """All entries by their time, from a line or a file's text; `nodes` that were started here, None for a foreign
    gateway. Raises TimetableError.
    """
    entries = [part.split("#")[0].strip() for line in text.splitlines() for part in line.split(",")]
    return tuple(sorted((_read(entry, nodes) for entry in entries if entry), key=lambda fault: fault.at))


def _read(entry: str, nodes: int | None) -> Fault:
    found = _ENTRY.fullmatch(entry)
    if found is None or found["action"] not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise TimetableError(f"FAULTS: {entry!r} is not `SECOND ACTION [NODE] [for SECONDS]` with one of {known}")
    action, node = found["action"], found["node"] or ""
    if (action in NODE_ACTIONS) != bool(node):
        raise TimetableError(f"FAULTS: {entry!r}: {action} takes {'a node' if action in NODE_ACTIONS else 'no node'}")
    if nodes is None and action not in FOREIGN:
        raise TimetableError(f"FAULTS: {entry!r}: with URL only drain and reload, not {action}")
    if nodes is not None and node and not (node.isdecimal() and 1 <= int(node) <= nodes):
        raise TimetableError(f"FAULTS: {entry!r}: nodes are 1 to {nodes}")
    return Fault(float(found["at"]), action, node, float(found["lasts"] or 5.0))
