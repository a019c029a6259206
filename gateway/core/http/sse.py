"""Server-sent events: the boundaries of events, and their data.

The format is that of the HTML standard (section 9.2.6): lines end in CRLF, LF or CR, and a blank line ends an event.
Bytes are cut at boundaries and never written anew.
"""

import re

from gateway.core.errors import AnswerTooLarge

KEEP_ALIVE = b": keep-alive\n"
"""A comment between two events: clients skip it, load balancers see traffic. It has no blank line behind it, which some
clients take for an empty event that their JSON parser fails on."""

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""The keep-alive of Anthropic's API."""

DONE = b"[DONE]"
"""The data of the last event in OpenAI's streams, which is not JSON."""

MAX_HELD = 1 << 25
"""The most bytes held of an answer: of an unfinished event, or of a plain answer that has to be rewritten. The token
ids of a prompt of a million tokens are 8 MB."""

_LONG = 1 << 12
"""Bytes from which an unfinished event is not searched again with every piece of it."""

_SEAM = 3
"""The most bytes of a boundary that can lie before the piece that completes it."""

_MARK = b"\xef\xbb\xbf"
"""The byte order mark, which a stream may begin with."""

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")


class EventSplitter:
    """Cuts a byte stream at event boundaries: `feed` returns whole events, and the rest is held.

    Raises `AnswerTooLarge` for an unfinished event of more than `limit` bytes. The cost of a long event grows with its
    size, not with the number of its pieces.
    """

    __slots__ = ("_limit", "_long", "rest")

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.rest = b""
        """The bytes of an event that has not ended; of a long one its last bytes."""
        self._long: bytearray | None = None
        """The bytes before `rest`."""
        self._limit = limit

    def feed(self, data: bytes) -> bytes:
        """The whole events that `data` completes, as one run of bytes, possibly empty."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
            if self._long is not None:
                return self._feed_long(self._long, data)
        if data.endswith(b"\n\n"):
            return data
        end = _last_boundary(data)
        self._keep(data[end:])
        return data[:end]

    def _keep(self, rest: bytes) -> None:
        if len(rest) > self._limit:
            raise AnswerTooLarge(f"An event of the answer exceeds {self._limit} bytes: ask for a shorter answer.")
        if len(rest) > _LONG:
            self._long, rest = bytearray(rest[:-_SEAM]), rest[-_SEAM:]
        self.rest = rest

    def _feed_long(self, long: bytearray, data: bytes) -> bytes:
        """`data` begins with the last bytes of the event so far, so it has every boundary in it."""
        end = _last_boundary(data)
        if not end:
            long += data[:-_SEAM]
            self.rest = data[-_SEAM:]
            if len(long) > self._limit:
                raise AnswerTooLarge(f"An event of the answer exceeds {self._limit} bytes: ask for a shorter answer.")
            return b""
        self._long = None
        long += data[:end]
        self._keep(data[end:])
        return bytes(long)


def split_events(data: bytes) -> list[bytes]:
    """Cut a run of whole events into single ones, each with its blank line; joined they are `data` again."""
    events = []
    start = 0
    for match in _BOUNDARY.finditer(data):
        events.append(data[start : match.end()])
        start = match.end()
    if start < len(data):
        events.append(data[start:])
    return events


def event_data(event: bytes) -> bytes:
    """The joined `data:` lines of one event; empty for comments."""
    lines = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
    if not lines and event.startswith(_MARK):
        return event_data(event[len(_MARK) :])
    return b"\n".join(lines)


def is_comment(event: bytes) -> bool:
    """Whether an event is a comment, which keeps connections alive."""
    return event.startswith(b":")


def _last_boundary(data: bytes) -> int:
    """The offset behind the last blank line of `data`; 0 where it has none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    # A blank line that ends in CR is complete, whether or not LF follows: that LF would be one more blank line before
    # the next event, which is harmless. Waiting for it would hold back each event of a stream whose lines end in CR.
    end = 0
    for match in _BOUNDARY.finditer(data):
        end = match.end()
    return end
