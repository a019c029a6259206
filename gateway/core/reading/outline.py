"""Outlines of bodies with many values: what the gateway keeps of one that another process has read.

Millions of values cost seconds to parse, to look at and to free, in which no stream goes on. So a body with more than
`REWRITABLE` values is read in another process (`gateway.reading`), which hands back an outline: its top-level fields,
with long prompts cut short, and the places of the fields in its bytes. The gateway plans by the outline and edits the
bytes by the places. It never writes a cut field, and does not send such a body where it would have to be rewritten.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from gateway.core.errors import BodyTooLarge
from gateway.core.json_text import dump

REWRITABLE = 50_000
"""Values of a body that this process may parse and write anew, in steps of some 20 ms."""

Place = tuple[int, int, int]
"""Offsets in a body's bytes: of a field's key, of its value, and behind that."""


class Outline(dict[str, Any]):
    """The top-level fields of a body, prompts cut. Not compiled: mypyc's classes cannot inherit from dict.

    `places`: those of its fields. `ids` and `size`: tokens by number and bytes of text of its prompt (see `sizes`).
    `prompts` and `rounds`: how many prompts it has, and rounds of generating (see `counts`). `opening`: what its
    conversation opens with (see `conversations`).
    """

    __slots__ = ("ids", "opening", "places", "prompts", "rounds", "size")

    def __init__(
        self,
        fields: Mapping[str, Any],
        places: Mapping[str, Place],
        ids: int = 0,
        size: int = 0,
        prompts: int = 1,
        rounds: int = 1,
        opening: Sequence[bytes] = (),
    ):
        super().__init__(fields)
        self.places = places
        self.ids = ids
        self.size = size
        self.prompts = prompts
        self.rounds = rounds
        self.opening = opening


def edit_by_places(raw: bytes, outline: Outline, changes: Mapping[str, Any], removals: AbstractSet[str]) -> bytes:
    """`raw` with the top-level fields of `changes` set and those of `removals` taken out; the others as they are."""
    if not changes and outline.keys().isdisjoint(removals):
        return raw
    added = {name: value for name, value in changes.items() if name not in outline}
    pieces = [dump(added)[1:-1]] if added else []
    for name, (key, value, end) in outline.places.items():
        if name in changes:
            pieces.append(raw[key:value] + dump(changes[name]))
        elif name not in removals:
            pieces.append(raw[key:end])
    return b"{" + b",".join(pieces) + b"}"


def too_many_to_rewrite() -> BodyTooLarge:
    """The refusal of a body that would have to be rewritten for its node."""
    return BodyTooLarge(
        f"The body holds more than {REWRITABLE} values (elements of arrays and members of objects), and its fields "
        "have to be rewritten for the node: send fewer, longer ones.",
        code="too_many_values",
    )
