"""When a client is read: not while a request has more of its body than it wants, nor while bytes of it wait here."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class ConnectionFlow(FlowControl):
    """One connection's. `read_paused` is what a request asked for; `hold` what the connection itself needs.

    `on_resume` is called when a request wants more while the connection holds bytes back.
    """

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], object]) -> None:
        super().__init__(transport)
        self._on_resume = on_resume
        self._held = self._resting = False

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
        """Let go of the connection."""
        self._on_resume = _nothing

    def _apply(self) -> None:
        resting = self.read_paused or self._held
        if resting is not self._resting:
            self._resting = resting
            if resting:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()


def _nothing() -> None: ...
