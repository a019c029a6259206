"""A TCP proxy before a node that breaks a stream of an answer behind a given event. Everything else passes.

with cutting(node.port, cuts) as url:
    cuts.arm(5, "reset")    # behind the fifth event, whichever node of those that share `cuts` sends it
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Way = Literal["reset", "close", "inside"]
"""With a TCP reset or an ordinary close behind the event, or with a reset in the middle of the one that follows."""

WAYS: tuple[Way, ...] = ("reset", "close", "inside")

_HEAD = b"content-type: text/event-stream"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK_END = 2
"""Bytes behind an event that belong to its HTTP chunk."""
_INSIDE = 60
"""Bytes of the next chunk that still pass where an event is cut in its middle."""


@dataclass(slots=True)
class Cuts:
    """What the proxies that share it do. `left`: events that are still to pass before a stream is cut, None: nothing is
    cut. `made`: one was cut. They count together, as one answer may be made of several streams, one after the other."""

    left: int | None = None
    way: Way = "reset"
    made: bool = False

    def arm(self, after: int, way: Way) -> None:
        """Cut once `after` more events of streams have passed."""
        self.left, self.way, self.made = after, way, False

    def disarm(self) -> bool:
        """Cut nothing any more; returns whether a stream was cut since `arm`."""
        self.left = None
        return self.made


class _Answers:
    """The way from the node to the gateway on one connection: finds streams, and says where one is cut."""

    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts
        self._streams = False
        """Whether the present answer is a stream."""
        self._bytes = 0
        """Bytes that are still to pass behind its last event; 0: that has not come."""
        self._last = b""

    def pass_on(self, data: bytes) -> tuple[bytes, Way | None]:
        """What of `data` may pass, and how the connection ends behind it. Nodes write a head as one piece."""
        at = 0
        if data.startswith(b"HTTP/1."):
            self._streams = _HEAD in data.lower()
            self._bytes, self._last = 0, b""
            at = data.index(b"\r\n\r\n") + 4
        if not self._streams or self._cuts.left is None:
            return data, None
        if not self._bytes:
            at = self._count_events(data, at)
            if self._cuts.left:
                return data, None
            self._bytes = _CHUNK_END + (_INSIDE if self._cuts.way == "inside" else 0)
        passing = min(self._bytes, len(data) - at)
        self._bytes -= passing
        if self._bytes:
            return data, None
        self._cuts.left, self._cuts.made = None, True
        return data[: at + passing], self._cuts.way

    def _count_events(self, data: bytes, at: int) -> int:
        """Count the events that end in `data`; returns where the last one that is to pass does."""
        text, at = self._last + data[at:], at - len(self._last)  # an event's end may lie across two pieces
        behind = 0
        while self._cuts.left and (end := text.find(b"\n\n", behind)) >= 0:
            behind = end + 2
            self._cuts.left -= 1
        self._last = text[behind:][-1:]
        return at + behind


@contextlib.contextmanager
def cutting(target: tuple[str, int], cuts: Cuts) -> Iterator[str]:
    """A proxy to `target`; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        accepting = threading.Thread(target=_accept, args=(listener, target, cuts), daemon=True)
        accepting.start()
        yield url
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def _accept(listener: socket.socket, target: tuple[str, int], cuts: Cuts) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_carry, args=(client, target, _Answers(cuts)), daemon=True).start()


def _carry(client: socket.socket, target: tuple[str, int], answers: _Answers) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(target) as node:
        while True:
            for ready in select.select((client, node), (), ())[0]:
                data = ready.recv(65536)
                if not data:
                    return
                if ready is client:
                    node.sendall(data)
                    continue
                passing, way = answers.pass_on(data)
                client.sendall(passing)
                if way is not None:
                    if way != "close":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    return
