"""Bounds the values of a metric's label: names beyond the bound are counted together, as `OTHER`."""

import fcntl
from collections.abc import Iterable
from pathlib import Path

from gateway.core.telemetry.folded import OTHER
from gateway.telemetry.batches import NONE


class LabelNames:
    """The names that have a label of their own: the first ones that came. A name keeps its label as long as the gateway
    runs, so that its counters go on.

    With several worker processes the names stand in a file of their directory, one a line, and all processes give a
    name the same label. It is read when a name is new to this process, and never again once it is full.
    """

    def __init__(self, bound: int, file: Path | None = None) -> None:
        """`file`: where worker processes share the names; None for one process."""
        self._bound = bound + 2
        self._file = file
        self._own = {NONE: NONE, OTHER: OTHER}

    def label(self, name: str) -> str:
        """The label of `name`."""
        found = self._own.get(name)
        if found is not None:
            return found
        if len(self._own) >= self._bound:
            return OTHER
        if self._file is None:
            return self._own.setdefault(name, name)
        self._share(name, self._file)
        return self._own.get(name, OTHER)

    def reserve(self, names: Iterable[str]) -> None:
        """Give `names` their labels before others come."""
        for name in names:
            self.label(name)

    def _share(self, name: str, file: Path) -> None:
        """Read the names of all processes, and add `name` where there is room."""
        with file.open("a+") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)  # for the few milliseconds of one small read: closing it lets go
            opened.seek(0)
            for known in opened.read().split("\n")[:-1]:
                self._own[known] = known
            if name not in self._own and len(self._own) < self._bound:
                opened.write(f"{name}\n")
                self._own[name] = name
