"""A client that takes nothing of what it was sent is gone; closing would wait for it for ever."""

import asyncio


class UnsentWatch:
    """One connection's. `patience`: seconds in which something of what waits to be sent must go out."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self._transport = transport
        self._loop = loop
        self._patience = patience
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Begin to watch where something waits: now and then is enough, as the answer goes on."""
        if self._timer is None:
            unsent = self._transport.get_write_buffer_size()
            if unsent:
                self._unsent = unsent
                self._timer = self._loop.call_later(self._patience, self._check)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        unsent = self._transport.get_write_buffer_size()
        if unsent >= self._unsent > 0:
            self._transport.abort()
        else:
            self.look()
