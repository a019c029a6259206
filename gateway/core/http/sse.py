"""Server-sent events, as far as a relay needs them: where an event ends, and what its data is.

The framing is that of the HTML standard (section 9.2.6): lines end in CRLF, LF or CR, a blank line ends an
event. Bytes are cut at event boundaries and never written anew.
"""

import re

from gateway.core.errors import AnswerTooLarge

KEEP_ALIVE = b": keep-alive\n"
"""A comment between two events: clients skip it, load balancers see traffic. A blank line behind it would be an empty
event for readers that end one at every blank line, and their JSON parser fails on that."""

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""The same as Anthropic's API says it."""

DONE = b"[DONE]"
"""The data of OpenAI's last event, which is no JSON."""

MAX_HELD = 1 << 25
"""Bytes of an answer that are held at the most until they can go on: an event that has not ended, or a plain answer
that has to be rewritten. The token ids of a prompt of a million tokens are 8 MB."""

_LONG = 1 << 12
"""Bytes beyond which an unfinished event is not looked through again with every piece of it."""

_SEAM = 3
"""Bytes of a boundary that may have come before the piece that completes it."""

_MARK = b"\xef\xbb\xbf"
"""The byte order mark that a stream may begin with."""

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")


class EventSplitter:
    """Cuts a byte stream at event boundaries: `feed` returns whole events only, the rest waits for its end.

    At most `limit` bytes wait; a longer unfinished event raises `AnswerTooLarge`. What a long event costs grows with
    its size, not with the number of its pieces.
    """

    __slots__ = ("_limit", "_long", "rest")

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.rest = b""
        """The bytes of an event that has not ended; of a long one its last bytes."""
        self._long: bytearray | None = None
        """What stands before `rest`."""
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
            raise AnswerTooLarge(f"An event of the answer has more than {self._limit} bytes: ask for less in one.")
        if len(rest) > _LONG:
            self._long, rest = bytearray(rest[:-_SEAM]), rest[-_SEAM:]
        self.rest = rest

    def _feed_long(self, long: bytearray, data: bytes) -> bytes:
        """`data` begins with what was left of `long` as its last bytes: a boundary is in there or nowhere."""
        end = _last_boundary(data)
        if not end:
            long += data[:-_SEAM]
            self.rest = data[-_SEAM:]
            if len(long) > self._limit:
                raise AnswerTooLarge(f"An event of the answer has more than {self._limit} bytes: ask for less in one.")
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
    """Whether it is there to keep a connection awake."""
    return event.startswith(b":")


def _last_boundary(data: bytes) -> int:
    """The offset behind the last blank line of `data`, 0 where there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    # A blank line that ends in CR is one, whether or not LF follows: that LF would be a blank line more before the next
    # event, which is nothing. To wait for it would hold back each event of a stream whose lines end in CR.
    end = 0
    for match in _BOUNDARY.finditer(data):
        end = match.end()
    return end
