"""A TCP proxy before a node that breaks the next stream of an answer behind a given event. Everything else passes.

with cutting(node.port, cuts) as url:
    cuts.arm(5, "reset")    # the next stream, whichever node of those that share `cuts` sends it
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    """What the proxies that share it do to the next stream; `made`: that was done."""

    after: int | None = None
    way: Way = "reset"
    made: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, after: int, way: Way) -> None:
        """Cut the next stream once `after` of its events have passed, the first one counts as 1."""
        with self.lock:
            self.after, self.way = after, way
            self.made = False

    def disarm(self) -> bool:
        """Cut nothing any more; returns whether a stream was cut since `arm`."""
        with self.lock:
            self.after = None
            return self.made

    def begin(self) -> tuple[int, Way] | None:
        """A proxy has a stream to pass on: what to do with it. Only the first one since `arm` is cut."""
        with self.lock:
            after, self.after = self.after, None
            return None if after is None else (after, self.way)


class _Answers:
    """The way from the node to the gateway on one connection: finds streams, and says where one is cut."""

    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts
        self._way: Way | None = None
        self._events = 0
        """Events that are still to pass whole."""
        self._bytes = 0
        """Bytes that are still to pass behind them."""
        self._last = b""

    def pass_on(self, data: bytes) -> tuple[bytes, Way | None]:
        """What of `data` may pass, and how the connection ends behind it. Nodes write a head as one piece."""
        at = 0
        if data.startswith(b"HTTP/1."):
            self._way = None  # the answer before it had fewer events
        if data.startswith(b"HTTP/1.") and _HEAD in data.lower():
            at = data.index(b"\r\n\r\n") + 4
            if (found := self._cuts.begin()) is not None:
                self._events, self._way = found
                self._bytes = _CHUNK_END + (_INSIDE if self._way == "inside" else 0)
                self._last = b""
        if self._way is None:
            return data, None
        at = self._behind_events(data, at)
        if self._events:
            return data, None
        passing = min(self._bytes, len(data) - at)
        self._bytes -= passing
        if self._bytes:
            return data, None
        with self._cuts.lock:
            self._cuts.made = True
        return data[: at + passing], self._way

    def _behind_events(self, data: bytes, at: int) -> int:
        """Where those events of the stream end in `data` that are still to pass; its end where not all of them do."""
        text, at = self._last + data[at:], at - len(self._last)  # an event's end may lie across two pieces
        behind = 0
        while self._events and (end := text.find(b"\n\n", behind)) >= 0:
            behind = end + 2
            self._events -= 1
        self._last = text[behind:][-1:] if self._events else b""
        return len(data) if self._events else at + behind


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
