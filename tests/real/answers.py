"""Brings two answers of one engine into a form in which they are equal where they mean the same.

What differs between any two answers, ids and times, becomes a placeholder; everything else stays, the order of fields
and the digits of numbers included. An id's placeholder counts its first appearance, so that an event which refers to
an item has to refer to the same one in both answers.
"""

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

_ID_FIELDS = frozenset(("id", "item_id", "call_id", "response_id", "request_id", "signature"))
_TIME_FIELDS = frozenset(("created", "created_at", "completed_at"))
# What stands before the random part, the longest first.
_ID = re.compile(r"(chatcmpl-tool-|chatcmpl-|cmpl-|resp_|rs_|msg_|fc_|call_|modelperm-|)(.{16,})")


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its name (None where it has no `event:` line) and its data, parsed or `[DONE]`."""

    name: str | None
    data: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: `content` is the parsed JSON, or the list of events of a stream."""

    status: int
    content_type: str
    content: Any


def difference(direct: Answer, through: Answer) -> str:
    """Empty where they are equal, else for people: what differs, beginning with the first event that does."""
    if (direct.status, direct.content_type) != (through.status, through.content_type):
        return f"direct {direct.status} {direct.content_type}, through {through.status} {through.content_type}"
    left, right = _lines(direct.content), _lines(through.content)
    return "\n".join(difflib.unified_diff(left, right, "direct", "through", n=1, lineterm=""))


def without(answer: Answer, field: str) -> Answer:
    """The stream without a field of its events' outermost level."""
    events = [
        Event(event.name, [pair for pair in event.data if pair[0] != field] if event.data != "[DONE]" else event.data)
        for event in answer.content
    ]
    return Answer(answer.status, answer.content_type, events)


_CACHED = ("prompt_tokens_details", "cache_read_input_tokens", "cache_creation_input_tokens")


def without_cached(answer: Answer) -> Answer:
    """The answer without what its node had in its cache, which tells nothing of the answer. Prompts of which something
    was in it count that apart in messages: there are none here."""
    events = [Event(event.name, _uncached(event.data)) for event in answer.content]
    return Answer(answer.status, answer.content_type, events)


def _uncached(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    kept = [item for item in value if not (isinstance(item, (list, tuple)) and item and item[0] in _CACHED)]
    return type(value)(map(_uncached, kept))


def _lines(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else [content]
    return [json.dumps([part.name, part.data] if isinstance(part, Event) else part) for part in parts]


class _Placeholders:
    """Numbers ids by their first appearance in one answer."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def normal(self, value: Any, field: str | None = None) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            return [(name, self.normal(inner, name)) for name, inner in value]
        if isinstance(value, list):
            return [self.normal(inner) for inner in value]
        if field in _TIME_FIELDS and isinstance(value, int):
            return "<time>"
        if field in _ID_FIELDS and isinstance(value, str) and (match := _ID.fullmatch(value)):
            number = self._numbers.setdefault(value, len(self._numbers) + 1)
            return f"{match[1]}<{number}>"
        return value


def read_answer(response: httpx.Response) -> Answer:
    """Normalise a response whose body has been read."""
    kind = response.headers.get("content-type", "")
    placeholders = _Placeholders()
    if kind.startswith("text/event-stream"):
        events = [Event(event.name, placeholders.normal(event.data)) for event in split_events(response.text)]
        return Answer(response.status_code, kind, events)
    return Answer(response.status_code, kind, placeholders.normal(_parse(response.text)))


def split_events(text: str) -> list[Event]:
    """The events of a stream. Comments are dropped: they are no events by the standard, and keep-alives differ."""
    assert text.endswith("\n\n"), f"the stream ends inside an event: {text[-200:]!r}"
    events = []
    for block in text.split("\n\n")[:-1]:
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) <= {"event", "data"}, fields
        data = fields["data"]
        events.append(Event(fields.get("event"), data if data == "[DONE]" else _parse(data)))
    return events


def _parse(text: str) -> Any:
    # Objects become lists of pairs, numbers with a point stay text: order and digits are compared, too.
    return json.loads(text, object_pairs_hook=lambda pairs: pairs or {}, parse_float=str) if text else ""
