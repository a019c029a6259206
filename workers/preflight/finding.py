"""One finding of preflight."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, what is needed, and how to fix it (empty where nothing has to be fixed)."""

    check: str
    level: Level
    seen: str
    needed: str = ""
    fix: str = ""


def judged(check: str, good: bool, seen: str, needed: str, fix: str, bad: Level = "fail") -> Finding:
    """A finding that is ok if `good`, else `bad` with its fix."""
    return Finding(check, "ok", seen, needed) if good else Finding(check, bad, seen, needed, fix)
