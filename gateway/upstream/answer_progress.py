"""What has come of an answer, and when: what the time limits are counted from, and what its node worked."""

import asyncio
import math

from gateway.core.usage.token_usage import ObservedWork

PACED_EVENTS = 20
"""How many events show how fast the next ones come."""


class AnswerProgress:
    """Times are the event loop's.

    `sent_at`: of the request. `last`: of the last piece that shows life. `last_push`: of the last bytes for the client.
    `last_chunk`: of the last event that was passed on as its chunk, which is both; one assignment an event is enough.
    `begun`: of the first event, 0 before. `events`: of the node, hidden and held ones included. `at_work`: the node
    sent something that the client does not get, such as hidden thinking. `paused`: the client has no room.
    """

    __slots__ = (
        "_loop",
        "_paused_at",
        "_paused_for",
        "_reported",
        "at_work",
        "begun",
        "events",
        "last",
        "last_chunk",
        "last_push",
        "paused",
        "sent_at",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # What is assigned with each event comes first (see docs/architecture.md, "What is compiled").
        self.events = 0
        self.last_chunk = self.last = self.last_push = self.sent_at = loop.time()
        self.begun = 0.0
        self._loop = loop
        self.at_work = False
        self.paused = False
        self._paused_at = self._paused_for = 0.0
        self._reported = False

    @property
    def last_heard(self) -> float:
        return max(self.last, self.last_chunk)

    @property
    def usual_gap(self) -> float:
        """Seconds between two events, on average while the client had room; infinite where too few came to tell."""
        if not self.begun or self.events < PACED_EVENTS:
            return math.inf
        return max(0.0, self.last_heard - self.begun - self._paused_for) / self.events

    def pause(self) -> None:
        if not self.paused:
            self._paused_at = self._loop.time()
        self.paused = True

    def resume(self) -> None:
        """Read on: the silence of the node begins anew."""
        self.paused = False
        self.last = self._loop.time()
        self._paused_for += self.last - self._paused_at

    def add_to(self, work: ObservedWork) -> None:
        """Add what was observed to `work`, once."""
        if self._reported:
            return
        self._reported = True
        now = self._loop.time()
        last = max(self.last, self.last_chunk)
        flowed = last - self.begun if self.begun else 0.0
        work.add(self.events, now - self.sent_at, flowed, self._paused_for, now - last)
