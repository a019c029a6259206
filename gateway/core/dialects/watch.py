"""Following a stream at the price of a byte scan.

Every event passes; only those whose bytes contain one of the dialect's marks are looked into. A mark is chosen
so that it cannot stand in generated text: a quote inside a JSON string is escaped, so `"usage"` is a key.
"""

import json
from typing import Any, NamedTuple

from gateway.core.sse import EventSplitter, event_data, split_events
from gateway.core.usage import Usage

_PLAIN_DELTAS = (
    b'"finish_reason":null}]}\n\n',
    b'"finish_reason":null,"token_ids":null}]}\n\n',
    b'"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n',
)
"""How nearly every event of vLLM's chat and completions streams ends: one that ends so and stands alone has
nothing to look for, since a usage, an error or a fingerprint would stand behind the choices."""


class Turn(NamedTuple):
    """Another request that goes on with the same answer: where and what to send."""

    path: str
    body: bytes


STOP = Turn("", b"")
"""The turn that asks for nothing more: the answer is complete, the node's request is to be closed."""


class EventWatch:
    """Feed it what the node sends, pass on what it returns, ask it afterwards how the stream ended.

    `ended`: the dialect's own end was seen; a stream that stops without it was cut.
    `failed`: the node reported an error inside the stream (the client has seen it).
    `wasted`: tokens that the node made and nobody gets.
    `turn`: the node's request is to be closed, and this one sent instead; its answer goes into the same watch,
    whatever its type. Who sends it sets this back to None.
    """

    __slots__ = ("_holding", "_marks", "_splitter", "ended", "failed", "turn", "usage", "wasted")

    def __init__(self, marks: tuple[bytes, ...]) -> None:
        self._marks = marks
        self._splitter = EventSplitter()
        self._holding = False
        self.ended = False
        self.failed = False
        self.turn: Turn | None = None
        self.usage: Usage | None = None
        self.wasted = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on: whole events, less those that only the gateway asked for."""
        events = self._splitter.feed(data)
        if self._holding:  # nothing may overtake what is held
            return self._inspect_all(events)
        if events.endswith(_PLAIN_DELTAS) and events.count(b"\n\n") == 1 and b"\r" not in events:
            return events
        for mark in self._marks:
            if mark in events:
                return self._inspect_all(events)
        return events

    def release(self) -> bytes:
        """Events that were held back, for a stream that has come to its end."""
        return b""

    def look(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        """Note what an event in marked bytes says; returns the bytes to pass on in its place.

        `data` is the event's payload, `parsed` what it is as JSON: empty where it is not an object. (A watch that
        follows every event has a `feed` of its own, and needs none of this.)
        """
        return event

    def _inspect_all(self, events: bytes) -> bytes:
        return b"".join([self._inspect(event) for event in split_events(events)])

    def _inspect(self, event: bytes) -> bytes:
        data = event_data(event)
        return self.look(event, data, _object(data)) if data else event


class ChainedWatch(EventWatch):
    """Two followers in a row: `inner` reads what the node sends, `outer` what `inner` passes on."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, inner: EventWatch, outer: EventWatch) -> None:
        super().__init__(())
        self._inner = inner
        self._outer = outer

    def feed(self, data: bytes) -> bytes:
        told = self._outer.feed(self._inner.feed(data))
        self._note()
        return told

    def release(self) -> bytes:
        told = self._outer.feed(self._inner.release()) + self._outer.release()
        self._note()
        return told

    def look(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        raise AssertionError("both look for themselves")

    def _note(self) -> None:
        """What the client saw is the outer's, what the node did the inner's."""
        self.ended = self._outer.ended
        self.failed = self._inner.failed or self._outer.failed
        self.usage = self._inner.usage or self._outer.usage
        self.turn, self._inner.turn = self._inner.turn, None
        self.wasted = self._inner.wasted


def _object(data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
