"""Following a stream at the price of a byte scan.

Every event passes; only those whose bytes contain one of the dialect's marks are looked into. A mark is chosen
so that it cannot stand in generated text: a quote inside a JSON string is escaped, so `"usage"` is a key.

Nearly all of a stream are events that come alone, each in an HTTP chunk of its own, and change nothing. A watch that
knows such a one by its bytes says so to `passes`, and the chunk goes on as it stands; all others are `feed`.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from gateway.core.errors import UpstreamCut
from gateway.core.http.sse import DONE, EventSplitter, event_data, parse_object, split_events
from gateway.core.usage.token_usage import Usage

_PLAIN_DELTAS = (
    b'"finish_reason":null,"token_ids":null}]}\n\n',
    b'"finish_reason":null}]}\n\n',
    b'"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n',
)
"""How nearly every event of vLLM's chat and completions streams ends: one that ends so and stands alone has
nothing to look for, since a usage, an error or a fingerprint would stand behind the choices."""

_PLAIN_CHUNKS = tuple(delta + b"\r\n" for delta in _PLAIN_DELTAS)
LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
"""As numbers, since `in` tries first whether what it looks for is one: bytes raise an error there, which is dropped. So
longer marks are looked for with `find`."""
_LINES = 4
"""Line feeds of an HTTP chunk that holds one event of one line: two are the chunk's."""
_EVENT_END = b"\n\n"
_AFTER_EVENT = 4
"""Bytes from an event's end to that of the HTTP chunk which holds this event alone."""


COLON = b":"[0]
_PING = b"event: ping"
_QUIET = (b":", _PING, b"event: response.created", b"event: response.in_progress", b"event: response.queued")
"""How events begin that a server sends whatever becomes of the request: comments, pings, that it was taken."""


def says_nothing(events: bytes) -> bool:
    """Whether there is nothing of an answer in `events`: a node's server may send such ones while its engine is stuck,
    or dead.
    """
    if not events.startswith(_QUIET):
        return False
    for event in split_events(events):
        if not event.startswith(_QUIET) or (event[0] == COLON and event_data(event)):
            return False
    return True


ABORTED = b'"finish_reason":"abort"'
"""How vLLM ends the answers that it gives up, when it is stopped or put to sleep; the stream's usual end follows."""


def gave_up() -> UpstreamCut:
    """For an answer that ends so: it is half of one."""
    return UpstreamCut("The node gave the answer up before it was complete: ask again.")


class FollowUpRequest(NamedTuple):
    """Another request that goes on with the same answer: where and what to send."""

    path: str
    body: bytes


STOP = FollowUpRequest("", b"")
"""The turn that asks for nothing more: the answer is complete, the node's request is to be closed."""


class StreamFilter(ABC):
    """Feed it what the node sends, pass on what it returns, ask it afterwards how the stream ended.

    `ended`: the dialect's own end was seen; a stream that stops without it was cut.
    `failed`: the node reported an error inside the stream (the client has seen it).
    `wasted`: tokens that the node made and nobody gets.
    `turn`: the node's request is to be closed, and this one sent instead; its answer goes into the same watch,
    whatever its type. Who sends it sets this back to None.
    """

    __slots__ = ("_splitter", "ended", "failed", "follow_up", "usage", "wasted")

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self.ended = False
        self.failed = False
        self.follow_up: FollowUpRequest | None = None
        self.usage: Usage | None = None
        self.wasted = 0

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on: whole events, less those that only the gateway asked for."""

    def passes(self, framed: bytes, start: int) -> bool:
        """Whether an HTTP chunk, whose data begins at `start`, goes on as it stands; then it has been noted.

        Where this is false nothing has happened: the data is to be fed. A watch that writes events anew passes none.
        """
        return False

    def flush(self) -> bytes:
        """Events that were held back, for a stream that has come to its end."""
        return b""


class MarkerFilter(StreamFilter):
    """One that looks into events with a mark in them. (Who inherits from it and has a `feed` has a `passes` too.)"""

    __slots__ = ("_clear", "_holding", "_marks")

    def __init__(self, marks: tuple[bytes, ...]) -> None:
        super().__init__()
        self._marks = marks
        self._holding = False
        self._clear = True
        """Whether nothing waits here, no held event and no half one: nothing may overtake those."""

    def feed(self, data: bytes) -> bytes:
        events = self._inspect_marked(self._splitter.feed(data))
        self._clear = not (self._holding or self._splitter.rest)
        return events

    def passes(self, framed: bytes, start: int) -> bool:
        if not self._clear:
            return False
        if framed.endswith(_PLAIN_CHUNKS) and framed.count(b"\n") == _LINES and framed.count(b"\r") == 2:
            return True
        if framed.find(_EVENT_END) != len(framed) - _AFTER_EVENT:  # the exchange counts a chunk as one event
            return False
        if framed[start] == COLON or framed.startswith(_PING, start):  # those are none
            return False
        for mark in self._marks:  # noqa: SIM110 -- a generator costs more than the search
            if framed.find(mark) >= 0:
                return False
        return True

    def _inspect_marked(self, events: bytes) -> bytes:
        if self._holding:
            return self._inspect_all(events)
        if events.endswith(_PLAIN_DELTAS) and events.count(b"\n\n") == 1 and _CARRIAGE_RETURN not in events:
            return events
        for mark in self._marks:
            if events.find(mark) >= 0:
                return self._inspect_all(events)
        return events

    @abstractmethod
    def inspect(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        """Note what an event in marked bytes says; returns the bytes to pass on in its place.

        `data` is the event's payload, `parsed` what it is as JSON: empty where it is not an object.
        """

    def _inspect_all(self, events: bytes) -> bytes:
        return b"".join([self._inspect(event) for event in split_events(events)])

    def _inspect(self, event: bytes) -> bytes:
        data = event_data(event)
        return self.inspect(event, data, {} if data == DONE else parse_object(data)) if data else event


class ChainedFilter(StreamFilter):
    """Two followers in a row: `inner` reads what the node sends, `outer` what `inner` passes on."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, inner: StreamFilter, outer: StreamFilter) -> None:
        super().__init__()
        self._inner = inner
        self._outer = outer

    def feed(self, data: bytes) -> bytes:
        told = self._outer.feed(self._inner.feed(data))
        self._note()
        return told

    def flush(self) -> bytes:
        told = self._outer.feed(self._inner.flush()) + self._outer.flush()
        self._note()
        return told

    def _note(self) -> None:
        """What the client saw is the outer's, what the node did the inner's."""
        self.ended = self._outer.ended
        self.failed = self._inner.failed or self._outer.failed
        self.usage = self._inner.usage or self._outer.usage
        self.follow_up, self._inner.follow_up = self._inner.follow_up, None
        self.wasted = self._inner.wasted
