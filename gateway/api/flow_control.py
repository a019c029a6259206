"""Flow control of a client connection: when it is read, and whether it accepts more.

    state           set by                                   meaning
    read_paused     a request                                it has as much of its body as it wants
    held            the connection                           bytes wait to be parsed
    write_paused    the transport                            more is written than the client has read

The transport is read while neither `read_paused` nor `held`.
"""

import asyncio
from collections.abc import Callable

HIGH_WATER_LIMIT = 64 * 1024
"""Bytes of a body that arrive before anybody wants them; beyond it the connection is not read."""


class FlowControl:
    """One connection's. `on_resume` is called when a request wants more while the connection is held."""

    __slots__ = ("_held", "_on_resume", "_stopped", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], object]) -> None:
        self._transport = transport
        self._on_resume = on_resume
        self._held = self._stopped = False
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

    def hold(self, held: bool) -> None:
        if held is not self._held:
            self._held = held
            self._apply()

    def close(self) -> None:
        """Release the connection, which this object and its transport refer to."""
        self.write_paused = False
        self._on_resume = _nothing

    def _apply(self) -> None:
        stopped = self.read_paused or self._held
        if stopped is not self._stopped:
            self._stopped = stopped
            if stopped:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()


def _nothing() -> None: ...
