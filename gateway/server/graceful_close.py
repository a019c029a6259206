"""Leaving a port without losing who is just connecting to it.

The kernel completes a client's handshake before the server has accepted it; whoever stands in that queue when the
listening socket is closed is reset, mostly after having sent its request. So a filter first turns new handshakes
away (the client's kernel knocks again a second later, and then finds a sibling's socket or none), what is queued is
accepted, and then the server goes on to close. Where the kernel knows no such filter, the server closes at once.

Before that, a SIGTERM may be announced for a while: load balancers see it and go elsewhere, and whoever has not seen
it yet is served as ever.
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

LEAVE_SECONDS = 0.3
"""How long handshakes that have begun may take to be accepted."""

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which the socket module does not name
_DROP_SYN = b"".join(
    struct.pack("HBBI", *step)
    for step in (
        (0x30, 0, 0, 13),  # the byte of the TCP header that holds the flags
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # take it
    )
)


def close_gracefully(loop: asyncio.AbstractEventLoop, announce: Callable[[], float]) -> None:
    """Have SIGTERM and SIGINT wait until nobody stands between kernel and server; a second signal does not wait.

    Called where the server's own handlers are in place. `announce()` is called at SIGTERM and says for how many seconds
    everything goes on as before; whoever presses Ctrl-C has no load balancer in front.
    """
    for number, first in ((signal.SIGTERM, announce), (signal.SIGINT, lambda: 0.0)):
        served = signal.getsignal(number)
        if callable(served):
            signal.signal(number, _SignalHandler(loop, first, served))


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
        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(self._announce(), self._leave, number))

    def _leave(self, number: int) -> None:
        turned = [turn_away(sock) for sock in _listening()]
        self._loop.call_later(LEAVE_SECONDS if turned and all(turned) else 0.0, self._served, number, None)


def turn_away(listener: socket.socket) -> bool:
    """Begin no new connections on `listener`; whether the kernel does that."""
    code = ctypes.create_string_buffer(_DROP_SYN)
    program = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def _listening() -> Iterator[socket.socket]:
    """This process's listening sockets: the server that owns them does not hand them out."""
    folder = Path("/proc/self/fd")
    for place in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError), _copy_of(int(place.name)) as sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield sock


def _copy_of(descriptor: int) -> socket.socket:
    """Raises OSError where it is no socket, or is closed by now."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
