"""Filters of streamed answers: the node's bytes in, the client's bytes out.

A filter costs a byte scan. Every event passes; only events with one of the dialect's markers in them are parsed. A
marker cannot occur in generated text: a quote inside a JSON string is escaped, so `"usage"` is a key.

Nearly every event comes alone and changes nothing. `passes` recognises such an event by its bytes, and the HTTP chunk
that it came in is passed on; every other piece of a stream goes through `feed`.
"""

from abc import ABC, abstractmethod
from typing import Any, Final, NamedTuple

from gateway.core.dialects.answer_marks import ends_in_thinking
from gateway.core.errors import UpstreamCut
from gateway.core.http.sse import DONE, EventSplitter, event_data, split_events
from gateway.core.json_text import parse_object
from gateway.core.usage.token_usage import Usage

_PLAIN_ENDS: Final = (
    b'"finish_reason":null,"token_ids":null}]}\n\n',
    b'"finish_reason":null}]}\n\n',
    b'"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n',
)
"""The ends of nearly all events of vLLM's chat and completions streams. A lone event that ends so has no marker: usage,
an error and a fingerprint would stand behind the choices."""

LINE_FEED: Final = 10
CARRIAGE_RETURN: Final = 13
"""Numbers: `in` converts its operand to a number first, and for bytes raises and drops an error. So longer markers are
searched for with `find`."""

_EVENT_END = b"\n\n"

COLON = b":"[0]
_PING = b"event: ping"
_SILENT = (b":", _PING, b"event: response.created", b"event: response.in_progress", b"event: response.queued")
"""The beginnings of events that do not depend on the model: comments, pings, receipts."""


def says_nothing(events: bytes) -> bool:
    """Whether no event of `events` says anything of the answer. A server may send such events while its engine hangs
    or is dead."""
    if not events.startswith(_SILENT):
        return False
    for event in split_events(events):
        if not event.startswith(_SILENT) or (event[0] == COLON and event_data(event)):
            return False
    return True


ABORTED: Final = b'"finish_reason":"abort"'
"""The finish reason of an answer that vLLM aborts when it is stopped or put to sleep; the usual end follows."""


def gave_up() -> UpstreamCut:
    """The error for an aborted answer."""
    return UpstreamCut("The node aborted the answer before it was complete; retry.")


class FollowUpRequest(NamedTuple):
    """The next request of the same answer: where it is sent, and its body."""

    path: str
    body: bytes


STOP = FollowUpRequest("", b"")
"""The follow-up that sends nothing: the answer is complete, and the node's request is closed."""


class StreamFilter(ABC):
    """The filter of one streamed answer.

    `ended`: the dialect's own end was seen; a stream that stops without it was cut.
    `failed`: the node reported an error inside the stream, which the client has seen.
    `wasted`: tokens that the node made and no client gets.
    `follow_up`: the node's request is to be closed and this one sent instead. Its answer is fed to the same filter,
    whatever its type. The sender sets this back to None.
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
        """The bytes to pass on for `data`: whole events, without those that only the gateway asked for."""

    def passes(self, event: bytes) -> bool:
        """Whether `event`, a piece of the stream that is not empty, is passed on as it is; then it is accounted for.

        False changes nothing: the piece is to be fed. Filters that rewrite events keep this default.
        """
        return False

    def passes_text(self, event: bytes, end: int) -> bool:
        """The same for an event of one line, known to have text and nothing else of its own; the text ends at `end`.
        What stands behind the text is passed on without token ids."""
        return False

    @property
    def passes_texts(self) -> bool:
        """Whether `passes_text` is true of every event until something is fed, and need not be asked meanwhile."""
        return False

    def pass_event(self, event: bytes) -> bytes | None:
        """The event to pass on for `event`, the same object where nothing changes; None where it is
        to be fed (see `passes`)."""
        return event if self.passes(event) else None

    def forget_answer(self) -> bool:
        """Forget the answer but for its thinking: another one follows. False where the client has something of it."""
        return False

    def forget_tokens(self, ids: list[int]) -> bool:
        """Forget `ids`, the last that were fed: they are made again. False where this filter just passes ids on: those
        that the client has are not to be fed again."""
        return False

    @property
    def thought(self) -> int | None:
        """The tokens of the thinking that is under way, as far as this filter counts them; None where it counts none,
        or thinking is over."""
        return None

    @property
    def thinks(self) -> bool | None:
        """Whether what came last is thinking; None where that does not show. Asked once a second while a console is
        open, so nothing is done for it with each event."""
        return None

    @property
    def next_number(self) -> int:
        """The number of the event behind those that were passed on; 0 in dialects that do not number them. Asked once,
        where the gateway ends the stream with an error."""
        return 0

    def end_thinking(self) -> bool:
        """End the thinking that is under way with its next event, and have the answer go on without it. False, and
        nothing is changed, where the answer could not go on."""
        return False

    def flush(self) -> bytes:
        """The events that were held back, at the stream's end."""
        return b""


_TAIL: Final = 4096
"""Bytes that are kept of a piece of many events."""


class MarkerFilter(StreamFilter):
    """A filter that inspects events with a marker in them. A subclass that overrides `feed` overrides `passes` too."""

    __slots__ = ("_clear", "_holding", "_last", "_markers")

    def __init__(self, markers: tuple[bytes, ...]) -> None:
        super().__init__()
        self._markers = markers
        self._holding = False
        self._clear = True
        """Whether nothing is held back, neither an event nor a part of one: nothing may overtake those."""
        self._last = b""
        """The last event that came, or the end of the last piece."""

    def feed(self, data: bytes) -> bytes:
        events = self._splitter.feed(data)
        if events and not says_nothing(events):
            self._last = events[-_TAIL:]
        events = self._inspect_marked(events)
        self._clear = not (self._holding or self._splitter.rest)
        return events

    @property
    def thinks(self) -> bool | None:
        return ends_in_thinking(self._last)

    def passes(self, event: bytes) -> bool:
        if not self._clear:
            return False
        if event.endswith(_PLAIN_ENDS) and event.find(b"\n") == len(event) - 2 and CARRIAGE_RETURN not in event:
            self._last = event
            return True
        end = event.find(_EVENT_END)
        if end < 0 or end != len(event) - 2:  # a part of an event, or several
            return False
        if event[0] == COLON or event.startswith(_PING):  # the exchange does not count these as events
            return False
        for marker in self._markers:
            if event.find(marker) >= 0:
                return False
        self._last = event
        return True

    def passes_text(self, event: bytes, end: int) -> bool:
        return self._clear

    @property
    def passes_texts(self) -> bool:
        return self._clear

    def _inspect_marked(self, events: bytes) -> bytes:
        if self._holding:
            return self._inspect_all(events)
        if events.endswith(_PLAIN_ENDS) and events.count(b"\n\n") == 1 and CARRIAGE_RETURN not in events:
            return events
        for marker in self._markers:
            if events.find(marker) >= 0:
                return self._inspect_all(events)
        return events

    @abstractmethod
    def inspect(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        """Read an event that may have a marker; returns the bytes to pass on in its place.

        `data` is the event's payload, `parsed` its JSON object, empty where it is none.
        """

    def _inspect_all(self, events: bytes) -> bytes:
        return b"".join([self._inspect(event) for event in split_events(events)])

    def _inspect(self, event: bytes) -> bytes:
        data = event_data(event)
        return self.inspect(event, data, {} if data == DONE else parse_object(data)) if data else event


class ChainedFilter(StreamFilter):
    """Two filters in a row: `inner` reads the node's bytes, `outer` the bytes that `inner` passes on."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, inner: StreamFilter, outer: StreamFilter) -> None:
        super().__init__()
        self._inner = inner
        self._outer = outer

    def feed(self, data: bytes) -> bytes:
        events = self._outer.feed(self._inner.feed(data))
        self._update()
        return events

    def forget_tokens(self, ids: list[int]) -> bool:
        return self._inner.forget_tokens(ids)

    @property
    def thought(self) -> int | None:
        return self._inner.thought

    @property
    def thinks(self) -> bool | None:
        thinks = self._inner.thinks
        return self._outer.thinks if thinks is None else thinks

    @property
    def next_number(self) -> int:
        return self._outer.next_number

    def end_thinking(self) -> bool:
        return self._inner.end_thinking()

    def flush(self) -> bytes:
        events = self._outer.feed(self._inner.flush()) + self._outer.flush()
        self._update()
        return events

    def _update(self) -> None:
        """Take over the state: what the client saw is the outer filter's, what the node did the inner one's. An error
        behind the end of an answer is none of it: the outer filter has left it out."""
        self.ended = self._outer.ended
        self.failed = self._outer.failed or (self._inner.failed and not self.ended)
        self.usage = self._inner.usage or self._outer.usage
        self.follow_up, self._inner.follow_up = self._inner.follow_up, None
        self.wasted = self._inner.wasted
