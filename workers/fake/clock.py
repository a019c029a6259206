"""One timer for all paced streams: a heap of due times. A timer of the event loop's own for every event costs more."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

# Some event loops round to whole milliseconds: a shorter sleep could wake too early, again and again.
_GRAIN = 0.001


class Clock:
    """Calls back at times of the running loop's clock, in seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._held = False

    def call_at(self, due: float, call: Callable[[], None]) -> None:
        """Calls once at `due` or a little later. It cannot be taken back: what is over must ignore the call."""
        heappush(self._heap, (due, next(self._numbers), call))
        if not self._held and (self._timer is None or due < self._wakes_at):
            self._sleep_until(due)

    async def sleep(self, seconds: float) -> None:
        """Waits; longer while the clock is held."""
        over: asyncio.Future[None] = self._loop.create_future()
        self.call_at(self._loop.time() + seconds, lambda: None if over.done() else over.set_result(None))
        await over

    def hold(self, held: bool) -> None:
        """Stops everything that is due, or lets it go on."""
        self._held = held
        if held and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not held and self._heap and self._timer is None:
            self._sleep_until(self._heap[0][0])

    def _sleep_until(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = due
        self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        heap, now = self._heap, self._loop.time()
        # What the calls put in for now has to wait for the next turn, so that other work gets its turn, too.
        calls = []
        while heap and heap[0][0] <= now:
            calls.append(heappop(heap)[2])
        for call in calls:
            call()
        if heap and not self._held:
            self._sleep_until(max(heap[0][0], now + _GRAIN))

    def stop(self) -> None:
        """Forgets everything that is due."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
