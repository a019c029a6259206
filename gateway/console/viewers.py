"""Those who have a console open: each gets the same events, and who does not read them is dropped."""

import asyncio
from collections.abc import Callable, Iterator

MOST = 16
"""Consoles that a process serves at once: each holds a connection of the admin listener."""

BEHIND = 8
"""Events that wait for a viewer; one that is further behind is dropped, and connects anew."""

_END = b""


GRACE = 2.0
"""Seconds after which a viewer that was dropped and has not ended by itself is cut off: it does not read."""


class Viewer:
    """One open console."""

    def __init__(self, session: str) -> None:
        self.session = session
        """The id of its session."""
        self.cut_off: Callable[[], object] | None = None
        """Ends its answer, while there is one."""
        self.is_new = True
        """Whether it has not had everything yet."""
        self.dropped = False
        self.session_ended = False
        self._events: asyncio.Queue[bytes] = asyncio.Queue(BEHIND + 1)

    def send(self, event: bytes) -> None:
        if self._events.qsize() >= BEHIND:
            self.drop()
        elif not self.dropped:
            self._events.put_nowait(event)

    def drop(self) -> None:
        """It gets no event any more."""
        if not self.dropped:
            self.dropped = True
            while not self._events.empty():
                self._events.get_nowait()
            self._events.put_nowait(_END)
            asyncio.get_running_loop().call_later(GRACE, self._end)

    def _end(self) -> None:
        if self.cut_off is not None:
            self.cut_off()

    async def next_event(self) -> bytes | None:
        """None once it is dropped."""
        return await self._events.get() or None


class Viewers:
    """Of one process. `woken` is set when one has come."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.closed = False
        self._viewers: set[Viewer] = set()

    def __len__(self) -> int:
        return len(self._viewers)

    def __iter__(self) -> Iterator[Viewer]:
        return iter(tuple(self._viewers))

    def join(self, session: str) -> Viewer | None:
        """A place for somebody with that session. None where there are too many, or the process ends."""
        if len(self._viewers) >= MOST or self.closed:
            return None
        viewer = Viewer(session)
        self._viewers.add(viewer)
        self.woken.set()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)

    def drop_session(self, session: str) -> None:
        """It was ended: its consoles get nothing any more."""
        for viewer in self:
            if viewer.session == session:
                viewer.session_ended = True
                viewer.drop()

    def close(self) -> None:
        """The process ends: nobody is served any more."""
        self.closed = True
        for viewer in self:
            viewer.drop()
