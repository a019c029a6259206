"""Makes the outline of a body: the whole of what a process does that reads bodies of many values for others.

The body is read as strictly as any other, in its dialect. What it returns is made of plain values, for `marshal`.
"""

import json
import re
from typing import Any, NamedTuple

from gateway.core.bodies import parse_body
from gateway.core.dialects.base import Dialect
from gateway.core.dialects.counts import prompts_of, rounds_of
from gateway.core.errors import BodyTooLarge, InvalidRequest
from gateway.core.http.json_size import JsonSize
from gateway.core.reading.outline import Outline, Place
from gateway.core.routing.conversations import opening_of
from gateway.core.thinking.sizes import PROMPTS, measure_prompt

CUT = PROMPTS | {"logit_bias", "allowed_token_ids"}
"""The fields that may be cut: no plan writes them."""

KEPT = 32
"""Elements of an array, and members of an object, that are kept of a cut one; its last element is kept too."""

LONGEST = 4096
"""Characters of a text in a cut field that are kept."""

MOST_KEPT = 4000
"""Values that are kept of all cut fields together: as many of each, so that none is empty that was not."""

MOST_BESIDE = 10_000
"""Values of the fields that are not cut."""

_SPACE = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()


class Outlined(NamedTuple):
    """`raw`: the body as its dialect has it sent on, None where that is as it came. The rest is an `Outline`'s."""

    raw: bytes | None
    fields: dict[str, Any]
    places: dict[str, Place]
    ids: int
    size: int
    prompts: int
    rounds: int
    opening: list[bytes]

    def outline(self) -> Outline:
        return Outline(*self[1:])


class Refusal(NamedTuple):
    """An `InvalidRequest` as plain values."""

    too_large: bool
    message: str
    param: str | None
    code: str | None

    def error(self) -> InvalidRequest:
        return (BodyTooLarge if self.too_large else InvalidRequest)(self.message, self.param, self.code)


def outline_body(dialect: Dialect, raw: bytes) -> Outlined | Refusal:
    """What a client's body says, or how it is refused."""
    try:
        scanned = JsonSize()
        scanned.feed(raw)
        ask = dialect.read(raw, parse_body(raw, scanned.strings))
        fields = _shortened(ask.body)
    except InvalidRequest as error:
        return Refusal(isinstance(error, BodyTooLarge), error.message, error.param, error.code)
    ids, size = measure_prompt(ask.body)
    sent = None if ask.raw is raw else ask.raw
    prompts, rounds = prompts_of(ask.body), rounds_of(ask.body)
    return Outlined(sent, fields, places_of(ask.raw), ids, size, prompts, rounds, list(opening_of(ask.body)))


def places_of(raw: bytes) -> dict[str, Place]:
    """The places of the top-level fields in `raw`, a JSON object without duplicate keys."""
    text = raw.decode("latin-1")  # a character for each byte
    places: dict[str, Place] = {}
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        key = _skip(text, at + 1) if text[at] == "," else at
        _, behind = _decoder.raw_decode(text, key)
        value = _skip(text, _skip(text, behind) + 1)
        _, end = _decoder.raw_decode(text, value)
        places[json.loads(raw[key:behind])] = (key, value, end)
        at = _skip(text, end)
    return places


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _shortened(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of `body`, those of `CUT` cut. Raises `BodyTooLarge` where too many values are in the others."""
    room = MOST_KEPT // max(1, len(CUT.intersection(body)))
    beside = [value for name, value in body.items() if name not in CUT]
    seen = 0
    while beside:
        value = beside.pop()
        seen += 1
        if type(value) is list:
            beside += value
        elif type(value) is dict:
            beside += value.values()
        if seen > MOST_BESIDE:
            raise BodyTooLarge(
                f"The body holds more than {MOST_BESIDE} values (elements of arrays and members of objects) beside its "
                "prompt: send fewer.",
                code="too_many_values",
            )
    return {name: _cut(value, [room]) if name in CUT else value for name, value in body.items()}


def _cut(value: Any, room: list[int]) -> Any:
    """`value` without most of its members; `room`: how many values may still be kept."""
    room[0] -= 1
    if type(value) is str:
        return value[:LONGEST]
    if type(value) is list:
        kept = value if len(value) <= KEPT + 1 else [*value[:KEPT], value[-1]]
        return [_cut(each, room) for each in kept if room[0] > 0]
    if type(value) is dict:
        return {name[:LONGEST]: _cut(value[name], room) for name in list(value)[:KEPT] if room[0] > 0}
    return value
