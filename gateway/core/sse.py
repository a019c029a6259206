"""Server-sent events, as far as a relay needs them: where an event ends, and what its data is.

The framing is that of the HTML standard (section 9.2.6): lines end in CRLF, LF or CR, a blank line ends an
event. Bytes are cut at event boundaries and never written anew.
"""

import json
import re
from typing import Any

import orjson

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, load balancers see traffic."""

DONE = b"[DONE]"
"""The data of OpenAI's last event, which is no JSON."""

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")


class EventTooLongError(ValueError):
    """An event exceeded the bound: what comes is not an event stream."""


class EventSplitter:
    """Cuts a byte stream at event boundaries: `feed` returns whole events only, the rest waits for its end.

    At most `limit` bytes wait; a longer unfinished event raises `EventTooLongError`.
    """

    __slots__ = ("_limit", "rest")

    def __init__(self, limit: int = 1 << 22) -> None:
        self.rest = b""
        """The bytes of an event that has not ended."""
        self._limit = limit

    def feed(self, data: bytes) -> bytes:
        """The whole events that `data` completes, as one run of bytes, possibly empty."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        if data.endswith(b"\n\n"):
            return data
        end = _last_boundary(data)
        if len(data) - end > self._limit:
            raise EventTooLongError(f"an event of more than {self._limit} bytes")
        self.rest = data[end:]
        return data[:end]


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
    return b"\n".join(lines)


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in an event's data, empty where it is none."""
    try:
        parsed = orjson.loads(data)
    except ValueError:
        try:
            parsed = json.loads(data)  # lone surrogates
        except ValueError:
            return {}
    return parsed if isinstance(parsed, dict) else {}


def _last_boundary(data: bytes) -> int:
    """The offset behind the last blank line of `data`, 0 where there is none."""
    # A trailing CR may be the first half of a CRLF that is still to come: it does not end a line yet.
    whole = data[:-1] if data.endswith(b"\r") else data
    if b"\r" not in whole:
        return whole.rfind(b"\n\n") + 2 if b"\n\n" in whole else 0
    end = 0
    for match in _BOUNDARY.finditer(whole):
        end = match.end()
    return end
