"""One clock for all streams of a process.

A timer per stream would cost the node more than the event it sends. Here time is cut into ticks, and a wheel
of slots, one per tick, holds the streams that are due. A late tick is made up for: every slot that is overdue
is served, in order, so that the rate holds even where the machine does not.
"""

import asyncio
from collections.abc import Callable

Step = Callable[[], bool]
"""Sends one event; false when there is nothing more to send."""


class Wheel:
    """The slots, without a clock: `turn` is told how far time has come (in ticks)."""

    def __init__(self, size: int) -> None:
        """A wheel of `size` slots: no period may be longer."""
        self._slots: list[list[tuple[Step, int]]] = [[] for _ in range(size)]
        self._now = 0
        self.streams = 0

    def add(self, step: Step, period: int) -> None:
        """Call `step` every `period` ticks from now on, until it says false."""
        self.streams += 1
        self._put(step, min(max(period, 1), len(self._slots) - 1))

    def turn(self, now: int) -> None:
        """Serve every slot up to and including tick `now`; an empty wheel has nothing to catch up with."""
        if not self.streams:
            self._now = now
        while self._now < now:
            self._now += 1
            slot = self._now % len(self._slots)
            due, self._slots[slot] = self._slots[slot], []
            for step, period in due:
                if step():
                    self._put(step, period)
                else:
                    self.streams -= 1

    def _put(self, step: Step, period: int) -> None:
        self._slots[(self._now + period) % len(self._slots)].append((step, period))


class Ticker:
    """A wheel driven by the event loop's clock; it rests while nothing is streaming."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_seconds: float = 0.002, size: int = 4096) -> None:
        """Ticks of `tick_seconds`; the slowest rate is one event in `size` ticks."""
        self._loop = loop
        self._tick = tick_seconds
        self._wheel = Wheel(size)
        self._running = False

    def add(self, step: Step, rate: float) -> None:
        """Call `step` `rate` times a second until it says false."""
        if not self._running:
            self._running = True
            self._run()
        self._wheel.add(step, round(1.0 / (rate * self._tick)))

    @property
    def streams(self) -> int:
        """How many are stepped."""
        return self._wheel.streams

    def _run(self) -> None:
        now = int(self._loop.time() / self._tick)
        self._wheel.turn(now)
        self._loop.call_at((now + 1) * self._tick, self._run_on)

    def _run_on(self) -> None:
        if self._wheel.streams:
            self._run()
        else:
            self._running = False
