"""Events of thinking in a chat stream, recognised by their bytes.

In one stream such events differ in their text alone. So the bytes before and behind the text are learned from the
first, and the text of the others is sliced.
"""

from typing import NamedTuple

from gateway.core.http.sse import event_data
from gateway.core.json_text import dump, parse_object

OPENINGS = (b'"reasoning":"', b'"reasoning_content":"')
"""The beginnings of the text. The name alone does not do: `"reasoning":null` is no text, `"reasoning_tokens":` a
count."""

_CLOSING = b'"},"logprobs":null,"finish_reason":null'


class EventShape(NamedTuple):
    """How events of thinking look around their text: their end, and the offsets of the opening, of the text, and of
    the text's end, which is counted from the event's end and so negative."""

    ending: bytes
    opening: bytes
    opens_at: int
    begins_at: int
    ends_at: int


NO_SHAPE = EventShape(b"", b"", 0, 0, 0)
"""For a stream whose events of thinking are not known yet, or over."""


class EventFrame(NamedTuple):
    """The bytes of an event of thinking before and behind its text, and their shape."""

    before: bytes
    after: bytes
    shape: EventShape


def _shape(ending: bytes, opening: bytes, opens_at: int) -> EventShape:
    return EventShape(ending, opening, opens_at, opens_at + len(opening), -len(ending))


def count_thinking(events: bytes) -> int:
    """How many of a run of events have thinking in them."""
    return events.count(OPENINGS[0]) or events.count(OPENINGS[1])


def frame_of(event: bytes) -> EventFrame | None:
    """The frame of an event of thinking; None for any other event."""
    found = None
    for opening in OPENINGS:
        at, end = event.find(opening), event.rfind(_CLOSING)
        if 0 < at < end:
            after = event[end:]
            found = EventFrame(event[: at + len(opening)], after, _shape(after, opening, at))
    return found


def thinking_text(event: bytes) -> bytes:
    """The thinking in any event, as JSON has it between the quotes. An event that is no chunk has none."""
    text = b""
    choices = parse_object(event_data(event)).get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict):
            thought = delta.get("reasoning") or delta.get("reasoning_content")
            text += dump(thought)[1:-1] if isinstance(thought, str) else b""
    return text
