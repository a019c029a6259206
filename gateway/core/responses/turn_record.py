"""The record of a turn that a gateway keeps: a response, and the input items that its request brought.

What came before it is in the records of earlier turns, so a conversation grows by what is said in it.

    {"items": [...], "output": [...]}     what was said: all that later turns need
    {"id": ..., "tools": [...], ...}      the rest of the response, on a line of its own
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.core.bodies import Body
from gateway.core.dialects.opaque_text import REASONING, encode_text
from gateway.core.json_text import dump, load_object
from gateway.core.responses.items import texts_as_parts
from gateway.core.responses.kept_ids import INPUT_ITEMS, Place, item_id, item_place

_OPAQUE = "encrypted_content"

_PREFIXES = {
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "message": "msg_",
    "reasoning": "rs_",
}


class SaidInTurn(NamedTuple):
    """`items`: of the request's own input. `output`: the response's."""

    items: list[Any]
    output: list[Body]

    def as_input(self) -> list[Any]:
        """What a later request sends to a model."""
        return [*self.items, *map(_without_opaque, self.output)]

    def item(self, number: int) -> Body | None:
        """The item of that number, see `kept_ids`; None where there is none."""
        if number >= INPUT_ITEMS:
            items, at = self.items, number - INPUT_ITEMS
        else:
            items, at = [_without_opaque(item) for item in self.output], number
        found = items[at] if at < len(items) else None
        return found if type(found) is dict else None

    def listed_items(self, place: Place) -> list[Body]:
        """The own input items with ids, as a client is told of them. `place`: the turn's."""
        return [_identified(item, place, number) for number, item in enumerate(self.items) if type(item) is dict]


def write_record(items: Sequence[Any], response: Body) -> bytes:
    """Encrypted texts, which say what stands beside them, are left out."""
    output = [_marked(item) for item in response["output"]]
    rest = {name: value for name, value in response.items() if name != "output"}
    return dump({"items": items, "output": output}) + b"\n" + dump(rest)


def said_part(content: bytes) -> bytes:
    """The part of a record that later turns need."""
    return content.partition(b"\n")[0]


def read_said(content: bytes) -> SaidInTurn | None:
    """What a record, or that part of it, says; None where it is none."""
    given = load_object(said_part(content)) or {}
    items, output = given.get("items"), given.get("output")
    if type(items) is not list or type(output) is not list:
        return None
    return SaidInTurn(items, output)


def read_response(content: bytes) -> Body | None:
    """The response of a record, as its client got it; None where it is none."""
    said, rest = read_said(content), load_object(content.partition(b"\n")[2])
    if said is None or rest is None:
        return None
    shown: Body = {}
    for name, value in rest.items():  # the output stands where it stood
        shown[name] = value
        if name == "incomplete_details":
            shown["output"] = _shown(said.output)
    return shown if "output" in shown else {**shown, "output": _shown(said.output)}


def shown_items(listed: Sequence[Body]) -> list[Body]:
    """Listed input items, as clients are told of them. What a client itself has sent is not looked into."""
    return [item if _is_own(item) else _with_opaque(item) for item in listed]


def _shown(output: Sequence[Body]) -> list[Body]:
    """An output as its client got it."""
    return [_with_opaque(item) for item in output]


def _is_own(item: Body) -> bool:
    place = item_place(item["id"])
    return place is None or place.number >= INPUT_ITEMS


def _identified(item: Body, place: Place, number: int) -> Body:
    """An item under the id that a reference finds it by: one that a client made up may stand for several."""
    kind = item.get("type") or "message"
    own = item_id(_PREFIXES.get(kind, "item_"), place, INPUT_ITEMS + number)
    return {**texts_as_parts(item), "type": kind, "id": own}


def _marked(item: Body) -> Body:
    return {**item, _OPAQUE: True} if item["type"] == "reasoning" and item.get(_OPAQUE) else item


def _with_opaque(item: Body) -> Body:
    if item.get(_OPAQUE) is not True:
        return item
    return {**item, _OPAQUE: encode_text(REASONING, "".join([part["text"] for part in item["content"]]))}


def _without_opaque(item: Body) -> Body:
    return {name: value for name, value in item.items() if name != _OPAQUE}
