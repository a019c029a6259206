"""When the node stops: who said so, until when running requests may finish, and what the server gets after that.

order            before it        what follows
---------------  ---------------  -----------------------------------------------------------------------
first signal     nothing          requests may finish for `drain` seconds, the server has `stop` to end
second signal    a signal         no further waiting for requests
first signal     a notice         nothing new: clouds send SIGTERM together with their notice
notice of N s    nothing          requests may finish for at most 80% of N, the server has 20%, `stop` at most
notice of N s    any order        the same, where it ends sooner than what holds
"""

import asyncio
import time
from collections.abc import Callable

from workers.launch.notice import Notice
from workers.launch.plan import Patience

STOP_SHARE = 0.2
"""Of a notice's time, kept for the server to end after its requests: 6 s of 30."""
SHORTEST_STOP_SECONDS = 1.0


class Shutdown:
    """The orders to stop as they come in. Times are of `time.monotonic`."""

    def __init__(self, patience: Patience, say: Callable[[str], None]) -> None:
        """Nothing is ordered yet."""
        self._say = say
        self._signals = 0
        self._drain_seconds = patience.drain
        self._ends = 0.0
        self.stop_seconds = patience.stop
        """Seconds between SIGTERM and SIGKILL."""
        self.ordered = asyncio.Event()
        """The node is to stop."""
        self.sooner = asyncio.Event()
        """The end of draining came closer, or waiting has no sense any more. The drain clears it."""

    @property
    def drain_left(self) -> float:
        """Seconds for running requests from now on."""
        return max(0.0, self._ends - time.monotonic())

    def take_signal(self, name: str) -> None:
        """A person or a service manager wants the node to stop."""
        self._signals += 1
        if self._signals > 1:
            self._say(f"{name}: stopping now")
            self._end_by(0.0)
        elif self.ordered.is_set():
            self._say(f"{name}: the node drains already; once more stops it now")
        else:
            self._order(name, self._drain_seconds)

    def take_notice(self, notice: Notice) -> None:
        """The machine is taken away: what is left of its time is shared between requests and the server's end."""
        seconds = self._drain_seconds
        if notice.seconds is not None:
            share = max(SHORTEST_STOP_SECONDS, STOP_SHARE * notice.seconds)
            self.stop_seconds = min(self.stop_seconds, share)
            seconds = min(seconds, max(0.0, notice.seconds - self.stop_seconds))
        if not self.ordered.is_set():
            self._order(f"notice: {notice.reason}", seconds)
        elif seconds < self.drain_left:
            self._say(f"notice: {notice.reason}: {seconds:.0f} s are left for running requests")
            self._end_by(seconds)

    def _order(self, reason: str, seconds: float) -> None:
        self._say(f"{reason}: no new work, then stop within {seconds:.0f} s")
        self._ends = time.monotonic() + seconds
        self.ordered.set()

    def _end_by(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self.sooner.set()
