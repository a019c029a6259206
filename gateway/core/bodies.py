"""Request bodies: bytes to a checked JSON object, and the few edits that a plan makes, back to bytes.

A body is read strictly, because whatever the gateway and the node read differently could be used to pass one
and fool the other: UTF-8 only, no NaN or Infinity, no duplicate keys, bounded nesting.

Edits are spliced into the bytes that came wherever that is certain, so that a prompt of 200 KB is not written
out again and what the gateway does not touch reaches the node to the letter.

orjson reads; Python's own parser, five times slower, is asked where something is wrong or not certain.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

import orjson

from gateway.core.errors import InvalidRequest

MAX_DEPTH = 99
"""Levels of arrays and objects: beyond it a body is refused. JSON schemas in use stay below 60."""

LARGE = 256 * 1024
"""Bytes beyond which a body is read in steps, so that others come to their turn in between."""

Body = dict[str, Any]

_OPEN_BRACE = re.compile(rb"\s*\{\s*")
_VALUE_WINDOW = 4096
"""Bytes of a value that is replaced in place; one that is longer is written anew with the rest."""

_BEYOND = 2.0**63
"""The smallest float that orjson may have made of an integer."""

_scanner = json.JSONDecoder()


class _DuplicateKeyError(ValueError):
    pass


class _NotANumberError(ValueError):
    pass


def parse_body(raw: bytes) -> Body:
    """Read `raw` as one JSON object; `InvalidRequest` says what is wrong with it and where."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if type(body) is not dict:
        return _checked(raw, _parse_slowly(raw))
    _refuse_depth(raw, body)
    return body if _has_no_duplicate_keys(raw, body) else _parse_slowly(raw)


def parse_steps(raw: bytes) -> Iterator[Body | None]:
    """`parse_body` in steps, for bodies that take long: gives None after each, and the body after the last."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    yield None
    if type(body) is not dict:
        body = None
        body = _parse_slowly(raw)
        yield None
        yield _checked(raw, body)
        return
    _refuse_depth(raw, body)
    if not _has_no_duplicate_keys(raw, body):
        yield None
        body = _parse_slowly(raw)
    yield body


def _checked(raw: bytes, body: Body) -> Body:
    """What only Python's parser could read."""
    _refuse_depth(raw, body)
    _check_characters(raw, body)
    return body


def _refuse_depth(raw: bytes, body: Body) -> None:
    """Before anything that walks by recursion: writing `body` anew is the first such thing."""
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise _too_deep()


def parse_again(raw: bytes) -> Body:
    """Read a body that the gateway made of one that was read before: nothing in it is to be checked."""
    try:
        body: Body = orjson.loads(raw)
    except orjson.JSONDecodeError:  # lone surrogates
        return _parse_slowly(raw)
    return body if _is_exact(body) else _parse_slowly(raw)


def _has_no_duplicate_keys(raw: bytes, body: Body) -> bool:
    """Whether that is certain: written anew, a JSON text has exactly the quotes that it had.

    A duplicate that the parser dropped took the quotes of its key with it. Only a quote inside a string has two
    spellings, `\\"` and `\\u0022`: with the second in the text nothing is certain.
    """
    if b"\\" in raw and b"\\u0022" in raw:  # one byte is found faster than six
        return False
    quotes = orjson.dumps(body).count(b'"') if len(raw) <= LARGE else _quotes_in(body)
    return quotes == raw.count(b'"')


def _quotes_in(body: Body) -> int:
    """The quotes of `body` written as JSON, without writing it: many megabytes of escapes take long to write."""
    quotes = 0
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is str:
            quotes += 2 + value.count('"')
        elif kind is list:
            waiting += value
        elif kind is dict:
            for key, child in value.items():
                quotes += 2 + key.count('"')
                waiting.append(child)
    return quotes


def _parse_slowly(raw: bytes) -> Body:
    """Python's own parser: finds duplicate keys, and the words for whatever is wrong."""
    if not raw:
        raise InvalidRequest("The request has no body: send a JSON object.", code="invalid_json")
    if raw.startswith(codecs.BOM_UTF8):
        raise InvalidRequest(
            "The body begins with a byte order mark (U+FEFF), which JSON has none of (RFC 8259, 8.1): send it without.",
            code="invalid_json",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid UTF-8 (byte {error.start}): send JSON in UTF-8.", code="invalid_json"
        ) from None
    try:
        body = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            code="invalid_json",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except _DuplicateKeyError as error:
        raise InvalidRequest(
            f"The key {error.args[0]!r} appears twice in one object: send each key once.",
            param=error.args[0],
            code="duplicate_key",
        ) from None
    except _NotANumberError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except ValueError:  # Python's own bound for the digits of an integer
        raise InvalidRequest("The body holds a number with too many digits.", code="invalid_json") from None
    if type(body) is not dict:
        raise InvalidRequest(f"The body must be a JSON object, not {json_kind(body)}.", code="invalid_json")
    return body


def _check_characters(raw: bytes, body: Body) -> None:
    """Refuse half characters (`\\ud800`), which JSON can spell and UTF-8 cannot: no node can read them.

    orjson refuses them, so only what Python's parser read can hold one. The depth of `body` is bounded.
    """
    if b"\\ud" not in raw and b"\\uD" not in raw:
        return
    waiting: list[tuple[str, Any]] = [("", body)]
    while waiting:
        path, value = waiting.pop()
        if type(value) is dict:
            for key, child in value.items():
                if _is_half(key):
                    raise _half_character(path, "has a key with")
                waiting.append((f"{path}.{key}" if path else key, child))
        elif type(value) is list:
            waiting.extend((f"{path}.{index}", child) for index, child in enumerate(value))
        elif type(value) is str and _is_half(value):
            raise _half_character(path, "holds")


def _is_half(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _half_character(path: str, holds: str) -> InvalidRequest:
    where = f"The field {path!r}" if path else "The body"
    return InvalidRequest(
        f"{where} {holds} half of a surrogate pair, which is no character: text cut in the middle of one, most likely. "
        "Cut it elsewhere.",
        param=path or None,
        code="invalid_json",
    )


def json_kind(value: object) -> str:
    """The JSON name of a parsed value, with its article, for error messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def edit_body(raw: bytes, body: Body, changes: Mapping[str, Any], removals: AbstractSet[str]) -> bytes:
    """`raw` with the top-level fields of `changes` set and those of `removals` taken out.

    `body` is what `parse_body(raw)` gave (so no key is there twice). New fields are inserted behind the opening
    brace and a lone short value is replaced in place; only where that is not certain is the body written anew.
    """
    unwanted = body.keys() & removals
    if not changes and not unwanted:
        return raw
    if not unwanted:
        spliced = _splice(raw, body, changes)
        if spliced is not None:
            return spliced
    exact = body if _is_exact(body) else _parse_slowly(raw)
    return dump({**{key: value for key, value in exact.items() if key not in unwanted}, **changes})


def _is_exact(body: Body) -> bool:
    """Whether that is certain of every number in it: integers beyond 64 bits became rounded floats in orjson."""
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is float:
            if abs(value) >= _BEYOND:
                return False
        elif kind is list:
            waiting += value
        elif kind is dict:
            waiting += value.values()
    return True


def dump(value: object) -> bytes:
    """Compact UTF-8 JSON; lone surrogates, which UTF-8 cannot carry, stay the escapes that they came as."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _splice(raw: bytes, body: Body, changes: Mapping[str, Any]) -> bytes | None:
    """The edit without writing the body anew, or None where its place in the bytes is not certain."""
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
    """Replace the value of `key` where the key's name stands once in the bytes: then that place is the field.

    A key may also be spelled with \\u escapes; then the one plain spelling could be another object's field.
    """
    name = dump(key)
    if raw.count(name) != 1 or b"\\u" in raw:
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


def insert_fields(raw: bytes, added: Mapping[str, Any]) -> bytes:
    """The JSON object `raw` with `added` fields, none of which it has yet, behind its opening brace."""
    brace = _OPEN_BRACE.match(raw)
    if brace is None:
        raise AssertionError("a parsed object opens with a brace")
    rest = raw[brace.end() :]
    comma = b"" if rest.startswith(b"}") else b","
    return b"".join((raw[: brace.end()], dump(added)[1:-1], comma, rest))


def _depth(body: Body) -> int:
    """How many levels deep a parsed body is, counted up to one more than is allowed."""
    depth = 0
    level: list[Any] = [body]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
    return depth


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        f"The body is nested more than {MAX_DEPTH} levels deep: flatten it.", code="too_deeply_nested"
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> Body:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _NotANumberError(f"{name} is not a number that JSON can carry")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        _refuse_constant(text)
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite)
