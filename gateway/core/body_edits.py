"""Edits of request bodies, spliced into their bytes.

A prompt of 200 KB is not written anew for a new field, and the gateway leaves every other byte as the client sent it.
Where the place of an edit in the bytes is not certain, the body is written anew.
"""

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from gateway.core.bodies import Body, exact_body
from gateway.core.json_text import UNICODE_ESCAPE, dump, is_exact
from gateway.core.reading.outline import Outline, edit_by_places

_OPEN_BRACE = re.compile(rb"\s*\{\s*")

_VALUE_WINDOW = 4096
"""Bytes of a value that is replaced in place; a longer one has the body written anew."""

_scanner = json.JSONDecoder()


def edit_body(raw: bytes, body: Body, changes: Mapping[str, Any], removals: AbstractSet[str]) -> bytes:
    """`raw` with the top-level fields of `changes` set and those of `removals` taken out.

    `body` is the parsed `raw`, in which no key occurs twice. New fields are inserted behind the opening brace, and a
    single short value is replaced in place. Of an outline the places are known.
    """
    if type(body) is Outline:
        return edit_by_places(raw, body, changes, removals)
    if not changes and removals.isdisjoint(body):
        return raw
    changes = _with_exact_numbers(raw, body, changes)
    unwanted = body.keys() & removals
    if not unwanted:
        spliced = _splice(raw, body, changes)
        if spliced is not None:
            return spliced
    exact = exact_body(raw, body)
    return dump({**{key: value for key, value in exact.items() if key not in unwanted}, **changes})


def _with_exact_numbers(raw: bytes, body: Body, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """`changes`, whose objects may have members of the client's own, with its integers as they came: in `body` those
    beyond 64 bits are floats."""
    rounded = [key for key, value in changes.items() if type(value) is dict and not is_exact(value)]
    if not rounded:
        return changes
    exact, mended = exact_body(raw, body), dict(changes)
    for key in rounded:
        given, kept = body.get(key), exact.get(key)
        if type(given) is dict and type(kept) is dict:
            same = {name for name, value in changes[key].items() if name in given and given[name] == value}
            mended[key] = {name: kept[name] if name in same else value for name, value in changes[key].items()}
    return mended


def insert_fields(raw: bytes, added: Mapping[str, Any]) -> bytes:
    """The JSON object `raw` with the fields `added`, none of which it has, inserted behind its opening brace."""
    brace = _OPEN_BRACE.match(raw)
    if brace is None:
        raise AssertionError("a parsed object opens with a brace")
    rest = raw[brace.end() :]
    comma = b"" if rest.startswith(b"}") else b","
    return b"".join((raw[: brace.end()], dump(added)[1:-1], comma, rest))


def _splice(raw: bytes, body: Body, changes: Mapping[str, Any]) -> bytes | None:
    """The edited bytes; None where the place of an edit is not certain."""
    added = {}
    for key, value in changes.items():
        if key not in body:
            added[key] = value
            continue
        replaced = _replace_value(raw, key, body[key], value)
        if replaced is None:
            return None
        raw = replaced
    return insert_fields(raw, added) if added else raw


def _replace_value(raw: bytes, key: str, old: Any, new: Any) -> bytes | None:
    """`raw` with another value of `key`; None unless the key's name occurs once, so that the place is the field's.

    A key can also be spelled with \\u escapes; then the one plain spelling could be another object's field.
    """
    name = dump(key)
    if raw.count(name) != 1 or UNICODE_ESCAPE.search(raw):
        return None
    place = re.compile(re.escape(name) + rb"\s*:\s*").search(raw)
    if place is None:
        return None
    start = place.end()
    window = raw[start : start + _VALUE_WINDOW]
    try:
        _, length = _scanner.raw_decode(window.decode("latin-1"))  # a character for each byte
        same = length < len(window) and json.loads(window[:length]) == old
    except ValueError:
        return None
    return b"".join((raw[:start], dump(new), raw[start + length :])) if same else None
