"""Dotted version numbers, compared."""

import re


def at_least(seen: str, needed: str) -> bool:
    """Whether the dotted version `seen` is `needed` or newer; suffixes like rc1 and +cu129 do not count."""
    return _numbers(seen) >= _numbers(needed)


def _numbers(version: str) -> list[int]:
    head = re.match(r"[0-9.]*", version.strip().removeprefix("v"))
    numbers = [int(part) for part in (head.group() if head else "").split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
