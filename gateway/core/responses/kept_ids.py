"""Ids of responses that gateways keep, and of the items in them: they say where these are kept.

    resp_   + hex( conversation: 12 bytes | turn: 8 bytes | HMAC-SHA256(key, label | both | tenant)[:12] )
    msg_    + hex( conversation: 12 bytes | turn: 8 bytes | number: 2 bytes )

A conversation is a tree of turns, each a response; a response that continues none begins one. The id of a response
opens only for the tenant that it was sealed for. An item's id is not sealed: what it names is looked for among the
tenant's own conversations.

The id of a response that a node stores is shorter (`core.dialects.response_ids`), so that the two are told apart.
"""

import hmac
from typing import Final, NamedTuple

_PREFIX: Final = "resp_"
_CONVERSATION: Final = 12
_TURN: Final = 8
_MAC: Final = 12
_NUMBER: Final = 2
_LABEL: Final = b"fleetgate kept response\0"

PLACE_BYTES: Final = _CONVERSATION + _TURN

INPUT_ITEMS: Final = 1 << 15
"""The numbers of input items begin here; those of output items begin at 0."""


class Place(NamedTuple):
    """Where a response is kept; both in hex, as in the names of keys."""

    conversation: str
    turn: str


class ItemPlace(NamedTuple):
    """Where an item is kept: the `number`-th of its response's output, or of its own input from `INPUT_ITEMS` on."""

    place: Place
    number: int


def new_place(random: bytes, conversation: str | None = None) -> Place:
    """A place for a new response, in `conversation` or in one of its own; `random` are `PLACE_BYTES` random bytes."""
    return Place(conversation or random[:_CONVERSATION].hex(), random[_CONVERSATION:].hex())


def seal_place(key: bytes, place: Place, tenant: str) -> str:
    """The id of the response of `tenant` at `place`."""
    content = bytes.fromhex(place.conversation + place.turn)
    return _PREFIX + (content + _mac(key, content, tenant)).hex()


def open_kept_id(key: bytes, response_id: str, tenant: str) -> Place | None:
    """The place of a response; None where the id is not that of a kept one, sealed for `tenant`."""
    sealed = _bytes_of(response_id.removeprefix(_PREFIX), PLACE_BYTES + _MAC)
    if sealed is None or not response_id.startswith(_PREFIX):
        return None
    content, mac = sealed[:PLACE_BYTES], sealed[PLACE_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, content, tenant)):
        return None
    return Place(content[:_CONVERSATION].hex(), content[_CONVERSATION:].hex())


def item_id(prefix: str, place: Place, number: int) -> str:
    """The id of an item; `prefix` says what kind it is of (`msg_`)."""
    return f"{prefix}{place.conversation}{place.turn}{number:04x}"


def item_place(given: str) -> ItemPlace | None:
    """The place that an item's id names; None where it is not the id of a kept item."""
    prefix, _, digits = given.rpartition("_")
    named = _bytes_of(digits, PLACE_BYTES + _NUMBER)
    if named is None or not prefix:
        return None
    place = Place(named[:_CONVERSATION].hex(), named[_CONVERSATION:PLACE_BYTES].hex())
    return ItemPlace(place, int.from_bytes(named[PLACE_BYTES:], "big"))


def _bytes_of(digits: str, length: int) -> bytes | None:
    """The bytes in `length` pairs of hexadecimal digits, in lower case as they were written."""
    if len(digits) != 2 * length or not digits.isascii() or digits != digits.lower():
        return None
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def _mac(key: bytes, content: bytes, tenant: str) -> bytes:
    return hmac.digest(key, _LABEL + content + tenant.encode(), "sha256")[:_MAC]
