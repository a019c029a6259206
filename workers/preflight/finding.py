"""One finding of preflight, and the comparison of version numbers that several of them need."""

import re
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


def at_least(seen: str, needed: str) -> bool:
    """Whether the dotted version `seen` is `needed` or newer; suffixes like rc1 and +cu129 do not count."""
    return _numbers(seen) >= _numbers(needed)


def _numbers(version: str) -> list[int]:
    head = re.match(r"[0-9.]*", version.strip().removeprefix("v"))
    return [int(part) for part in (head.group() if head else "").split(".") if part]
