"""Graceful close: closes a listening port without resetting clients that are just connecting to it.

The kernel completes a client's handshake before the server accepts the connection. Connections that wait in the accept
queue when the listening socket is closed are reset, mostly after the client has sent its request. So a filter first
drops new handshakes (the client's kernel retries after a second, and then finds a sibling's socket or none), queued
connections are accepted, and then the server closes. Where the kernel has no such filter, the server closes at once.

Before that, a SIGTERM may be announced for a while: load balancers notice and stop sending, and clients that have not
noticed are served as before.
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

ACCEPT_SECONDS = 0.3
"""Seconds for which connections in the accept queue may still be accepted."""

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which the socket module does not name
_DROP_SYN = b"".join(
    struct.pack("HBBI", *step)
    for step in (
        (0x30, 0, 0, 13),  # the byte of the TCP header that holds the flags
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # pass it
    )
)


def close_gracefully(loop: asyncio.AbstractEventLoop, announce: Callable[[], float]) -> None:
    """Have SIGTERM and SIGINT wait until the accept queue is empty; a second signal does not wait.

    Called after the server has set its own handlers. `announce()` is called at SIGTERM and returns for how many seconds
    requests are still served as before. SIGINT is not announced: it comes from a terminal.
    """
    for number, announcing in ((signal.SIGTERM, announce), (signal.SIGINT, lambda: 0.0)):
        served = signal.getsignal(number)
        if callable(served):
            signal.signal(number, _SignalHandler(loop, announcing, served))


class _SignalHandler:
    """A signal's handler in front of the server's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, announce: Callable[[], float], served: Any) -> None:
        self._loop = loop
        self._announce = announce
        self._served = served
        self._begun = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._begun:
            self._served(number, frame)
            return
        self._begun = True
        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(self._announce(), self._close, number))

    def _close(self, number: int) -> None:
        dropped = [drop_handshakes(sock) for sock in _listening()]
        self._loop.call_later(ACCEPT_SECONDS if dropped and all(dropped) else 0.0, self._served, number, None)


def drop_handshakes(listener: socket.socket) -> bool:
    """Have the kernel drop new handshakes on `listener`; whether it can."""
    code = ctypes.create_string_buffer(_DROP_SYN)
    program = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def _listening() -> Iterator[socket.socket]:
    """This process's listening sockets. The server keeps them private."""
    folder = Path("/proc/self/fd")
    for entry in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError), _copy_of(int(entry.name)) as sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield sock


def _copy_of(descriptor: int) -> socket.socket:
    """Raises OSError where it is no socket, or closed meanwhile."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
