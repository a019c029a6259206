"""Aborts a connection whose peer has stopped reading; closing it would wait for ever.

The size of the write buffer is no sign of progress: while a client reads, new bytes replace those that were sent. So
the kernel is asked how many bytes the client has acknowledged; where it does not know, a smaller buffer is progress.

Under TLS a transport counts bytes that are still to be encrypted; those that wait in the transport below are added.
"""

import asyncio
import socket
import struct

CHECKS = 8
"""Checks for progress within the patience."""

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_ACKNOWLEDGED = struct.Struct("=Q")
_AT = 120
"""Where `tcpi_bytes_acked` stands in Linux' `struct tcp_info`."""


class WriteStallTimer:
    """One connection's. `patience`: seconds in which something of what waits to be sent must go out."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        below: asyncio.Transport | None = None,
    ) -> None:
        """`below`: the transport of the encrypted bytes, where `transport` is one of TLS."""
        self._transport = transport
        self._below = below
        self._loop = loop
        self._patience = patience
        self._unsent = 0
        self._acknowledged = 0
        self._went_at = 0.0
        """When something was last seen to have gone out, in loop time."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """Bytes that wait to be sent."""
        below = 0 if self._below is None else self._below.get_write_buffer_size()
        return self._transport.get_write_buffer_size() + below

    def check(self) -> None:
        """Start the timer if bytes wait. Called now and then while an answer goes on."""
        if self._timer is None and (unsent := self.size):
            self._note(unsent, acknowledged_by(self._transport))
            self._wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, unsent: int, acknowledged: int) -> None:
        self._unsent = unsent
        self._acknowledged = acknowledged
        self._went_at = self._loop.time()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._patience / CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        unsent = self.size
        if not unsent:
            return
        acknowledged = acknowledged_by(self._transport)
        if acknowledged != self._acknowledged or unsent < self._unsent:
            self._note(unsent, acknowledged)
        elif self._loop.time() - self._went_at >= self._patience:
            self._transport.abort()
            return
        self._wait()


def acknowledged_by(transport: asyncio.Transport) -> int:
    """Bytes that the peer's kernel has acknowledged so far; always the same figure where that is not known."""
    sock = transport.get_extra_info("socket")
    if _TCP_INFO is None or sock is None:
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _AT + _ACKNOWLEDGED.size)
    except OSError:  # closed, or no TCP
        return 0
    return int(_ACKNOWLEDGED.unpack_from(info, _AT)[0]) if len(info) >= _AT + _ACKNOWLEDGED.size else 0
