"""Flow control of a client connection: when it is read, and whether it accepts more.

    state           set by                                   meaning
    read_paused     a request                                it has as much of its body as it wants
    held            the connection                           bytes wait to be parsed
    yielded         a request                                one turn of the loop has brought enough of its body
    write_paused    the transport                            more is written than the client has read

The transport is read while neither `read_paused`, `held` nor `yielded`.
"""

import asyncio
from collections.abc import Callable

HIGH_WATER_LIMIT = 64 * 1024
"""Bytes of a body that arrive before anybody wants them; beyond it the connection is not read."""

TURN_BYTES = 512 * 1024
"""Bytes of a body that one turn of the event loop reads, about: uvloop reads up to 8 MB, which takes 40 ms where they
are small objects."""


class FlowControl:
    """One connection's. `on_resume` is called when a request wants more while the connection is held."""

    __slots__ = (
        "_deferred",
        "_held",
        "_on_resume",
        "_stopped",
        "_transport",
        "_yielded",
        "read_paused",
        "write_paused",
    )

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], object]) -> None:
        self._transport = transport
        self._on_resume = on_resume
        self._deferred = self._held = self._stopped = self._yielded = False
        self.read_paused = self.write_paused = False

    def pause_reading(self) -> None:
        self.read_paused = True
        self._apply()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._apply()
            if self._held:
                self._on_resume()

    def yield_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read on in the next turn of the loop."""
        if not self._yielded:
            self._yielded = True
            self._apply()
            loop.call_soon(self._end_yield)

    def _end_yield(self) -> None:
        self._yielded = False
        if not self._transport.is_closing():
            self._apply()

    def defer(self) -> None:
        """Leave the transport as it is until `apply`: to stop it, and have it go on at once, costs two system calls and
        5 % of a request of 256 KB."""
        self._deferred = True

    def apply(self) -> None:
        """End `defer`."""
        self._deferred = False
        if not self._transport.is_closing():
            self._apply()

    def hold(self, held: bool) -> None:
        if held is not self._held:
            self._held = held
            self._apply()

    def close(self) -> None:
        """Release the connection, which this object and its transport refer to."""
        self.write_paused = False
        self._on_resume = _nothing

    def _apply(self) -> None:
        stopped = self.read_paused or self._held or self._yielded
        if stopped is not self._stopped and not self._deferred:
            self._stopped = stopped
            if stopped:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()


def _nothing() -> None: ...
