"""Items of responses: those that a request names by their ids, and a digest of what a conversation says.

The digest of a list of items is folded item by item, so that of a conversation goes on from that of its beginning. Two
spellings of the same have one digest: what a client sends back of an answer is not byte for byte what it got.
"""

import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.json_text import dump
from gateway.core.responses.kept_ids import INPUT_ITEMS, Place, item_place

NO_ITEMS: Final = "0" * 16
"""The digest of no items."""

_ITEM: Final = re.compile(r"input\.([0-9]+)(.*)", re.DOTALL)

_TEXTS: Final = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
_SAID: Final = ("call_id", "name", "namespace", "arguments", "input")
"""What calls say, beside their type."""


class Repeated(NamedTuple):
    """What a request sends of a conversation again: the first `length` of its items, if they are all that was said up
    to the end of the turn at `place`."""

    place: Place
    length: int


class Earlier(NamedTuple):
    """What stands before a request's own input: `length` items. `text`: that input is a text."""

    length: int
    text: bool

    def own_words(self, error: InvalidRequest) -> InvalidRequest:
        """The error, naming the item by its number in the client's own input."""
        found = _ITEM.fullmatch(error.param or "")
        if found is None or not self.length:
            return error
        number = int(found[1]) - self.length
        if number < 0:
            own, words = "previous_response_id", f"'previous_response_id' (item {found[1]} of its conversation)"
        else:
            own = "input" if self.text else f"input.{number}{found[2]}"
            words = repr(own)
        error.message = error.message.replace(repr(error.param), words)
        error.param = own
        return error


def listed(given: Any) -> list[Any]:
    """The items of an `input`, which may be one text. What is no input counts as none: the translation refuses it."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return given if isinstance(given, list) else []


def is_reference(item: Any) -> bool:
    """Whether it stands for the item whose `id` it has."""
    if type(item) is not dict:
        return False
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "id" in item and "role" not in item)


def repeats(items: Sequence[Any]) -> Repeated | None:
    """The conversation that `items` may begin with: an answer's items in it have that answer's place."""
    for index in range(len(items) - 1, -1, -1):
        item = items[index]
        given = item.get("id") if type(item) is dict else None
        found = item_place(given) if type(given) is str else None
        if found is not None and found.number < INPUT_ITEMS:
            return Repeated(found.place, index + 1)
    return None


def fold(key: bytes, digest: str, items: Iterable[Any]) -> str:
    """The digest of what has `digest`, and `items` behind it."""
    for item in items:
        digest = hmac.digest(key, digest.encode() + dump(_essence(item)), "sha256")[:8].hex()
    return digest


def text_length(items: Sequence[Any], most: int) -> int:
    """The length of all texts in `items`, which have at least so many bytes as JSON; counted until it passes `most`."""
    length, waiting = 0, list(items)
    while waiting and length <= most:
        each = waiting.pop()
        kind = type(each)
        if kind is str:
            length += len(each)
        elif kind is dict:
            waiting += each.values()
        elif kind is list:
            waiting += each
    return length


def _essence(item: Any) -> list[object]:
    """What an item says, without ids, statuses and annotations."""
    if type(item) is not dict:
        return [item]
    kind = item.get("type") or "message"
    if kind == "message":
        return [kind, item.get("role"), _parts(item.get("content"))]
    if kind == "reasoning":
        return [kind, _parts(item.get("content") or item.get("summary"))]
    if kind in ("function_call", "custom_tool_call"):
        return [kind, *(item.get(name) for name in _SAID)]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [kind, item.get("call_id"), _parts(item.get("output"))]
    return [sorted((name, dump(value).decode(errors="replace")) for name, value in item.items())]


def _parts(content: Any) -> object:
    """A content, in which a text alone is the same as one part of text."""
    if type(content) is not list:
        return [content]
    return [_part(part) for part in content]


def _part(part: Any) -> object:
    if type(part) is not dict:
        return [part]
    if part.get("type") in _TEXTS:
        return part.get("text")
    return sorted((name, dump(value).decode(errors="replace")) for name, value in part.items() if value is not None)


def texts_as_parts(item: Body) -> Body:
    """A message as it is listed: its content is a list of parts."""
    content = item.get("content")
    if type(content) is not str:
        return item
    kind = "output_text" if item.get("role") == "assistant" else "input_text"
    return {**item, "content": [{"type": kind, "text": content}]}
