"""One timer of the event loop for all exchanges.

A timer for each exchange would cost more than its checks, and nearly none of them ever fires. So the loop has one: set
for the first exchange that is due, and after that for the next.
"""

import asyncio
import math
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

STEP = 0.05
"""The fewest seconds between two sweeps: many that are due one after the other are checked in one."""


class Expirable(Protocol):
    """Something that is checked when the loop's time is `due`."""

    due: float

    def check(self, now: float) -> None:
        """`due` has come: move it, or end and be discarded."""


T = TypeVar("T", bound=Expirable)


class TimeoutSweep(Generic[T]):
    """Checks its members. `check` comes up to `STEP` later than `due`, which may only move to later."""

    def __init__(self) -> None:
        self._watched: set[T] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf
        """When the timer fires; infinite where there is none."""

    def add(self, thing: T, loop: asyncio.AbstractEventLoop) -> None:
        self._watched.add(thing)
        if thing.due < self._at:
            self._set(thing.due, loop)

    def discard(self, thing: T) -> None:
        self._watched.discard(thing)

    def __len__(self) -> int:
        return len(self._watched)

    def __iter__(self) -> Iterator[T]:
        """A copy of the members: what is done about one may discard any."""
        return iter(tuple(self._watched))

    def _set(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = loop.call_at(at, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._at = None, math.inf
        now = loop.time()
        try:
            for thing in [thing for thing in self._watched if thing.due <= now]:
                if thing in self._watched:
                    thing.check(now)
        finally:  # whatever one of them raises, the others are checked again
            if self._watched:
                next_at = max(min(thing.due for thing in self._watched), now + STEP)
                if next_at < self._at:
                    self._set(next_at, loop)
