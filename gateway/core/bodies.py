"""Bodies of requests: bytes to a checked JSON object.

A client's body is read strictly: what the gateway and the node read differently could pass the one and fool the other.
So only UTF-8 is read, without NaN or Infinity or duplicate keys, and nesting is bounded.

orjson parses. Python's own parser, five times slower, parses where orjson's result is refused or not certain.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import orjson

from gateway.core.errors import InvalidRequest
from gateway.core.json_text import is_exact, json_kind
from gateway.core.surrogates import check_surrogates

WRITTEN_ANEW: Final = 256 * 1024
"""The most bytes of a body that is written anew to find duplicate keys; for longer ones its quotes are counted."""

MAX_DEPTH: Final = 99
"""The most levels of arrays and objects in a body. JSON schemas in use stay below 60."""

LARGE: Final = 1024 * 1024
PER_VALUE: Final = 256
"""A body is read in steps, so that the event loop runs in between, from so many bytes on: a megabyte of text takes two
milliseconds to be made ready. A value counts as so many bytes more: the 4,096th ends the same time."""


def is_long(raw: bytes, values: int) -> bool:
    """Whether a body of so many `values` is made ready in steps; 0 where they are few."""
    return len(raw) + values * PER_VALUE > LARGE


Body = dict[str, Any]


class _DuplicateKeyError(ValueError):
    pass


class _NotANumberError(ValueError):
    pass


def parse_body(raw: bytes, strings: int = 0) -> Body:
    """The JSON object of a client's body. Raises `InvalidRequest`, which says what is wrong and where.

    `strings`: how many `JsonSize` has found in `raw`; 0 where it was not asked.
    """
    body: Body | None = None
    for step in parse_steps(raw, strings):
        body = step
    assert body is not None
    return body


def parse_steps(raw: bytes, strings: int = 0) -> Iterator[Body | None]:
    """`parse_body` in steps, for large bodies: None after each, and the body after the last."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    yield None
    if type(body) is dict:
        if not strings:
            _refuse_depth(raw, body)
        if _has_no_duplicate_keys(raw, body, strings):
            yield body
            return
        yield None
    body = None  # frees its memory before `raw` is parsed again
    exact = _parse_slowly(raw)
    yield None
    _refuse_depth(raw, exact)
    check_surrogates(raw, exact)
    yield exact


def parse_trusted(raw: bytes) -> Body:
    """The JSON object of a body that the gateway wrote, or has checked before: nothing is checked again."""
    try:
        body: Body = orjson.loads(raw)
    except orjson.JSONDecodeError:  # lone surrogates
        return _parse_slowly(raw)
    return exact_body(raw, body)


def exact_body(raw: bytes, body: Body) -> Body:
    """`body`, orjson's parse of `raw`, with exact numbers: orjson rounds integers beyond 64 bits to floats."""
    return body if is_exact(body) else _parse_slowly(raw)


def _refuse_depth(raw: bytes, body: Body) -> None:
    """Raises `InvalidRequest` for a body nested too deeply. Comes before every walk by recursion, such as writing."""
    if _may_be_deep(raw) and _depth(body) > MAX_DEPTH:
        raise _too_deep()


def _may_be_deep(raw: bytes) -> bool:
    """Whether `raw` has more brackets than levels are allowed. They are searched for: bytes are skipped 30 times faster
    than counted, and once there are too many, the rest need not be read."""
    left = MAX_DEPTH
    for bracket in (b"{", b"["):
        at = raw.find(bracket)
        while at >= 0:
            left -= 1
            if left < 0:
                return True
            at = raw.find(bracket, at + 1)
    return False


def _depth(body: Body) -> int:
    """The levels of a parsed body, counted up to one more than is allowed."""
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


def _has_no_duplicate_keys(raw: bytes, body: Body, strings: int) -> bool:
    """Whether that is certain: a duplicate that the parser dropped took the string of its key with it.

    Where the strings in `raw` are not known, quotes are counted. A quote inside a string has two spellings, `\\"` and
    `\\u0022`; where the second occurs, nothing is certain then. Where they are known, this bounds its depth, too.
    """
    if strings:
        return _strings_in(body) == strings
    anew = orjson.dumps(body) if len(raw) <= WRITTEN_ANEW else b""
    if anew == raw:  # most clients write JSON as orjson does
        return True
    if b"\\" in raw and b"\\u0022" in raw:  # one byte is found faster than six
        return False
    quotes = anew.count(b'"') if anew else _quotes_in(body)
    return quotes == raw.count(b'"')


def _strings_in(body: Body) -> int:
    """The number of strings in `body`, keys included. Raises `InvalidRequest` where it is nested too deeply: a walk by
    levels tells both."""
    strings = depth = 0
    level: list[Any] = [body]
    while level:
        deeper: list[Any] = []
        containers = 0
        for value in level:
            kind = type(value)
            if kind is str:
                strings += 1
            elif kind is list:
                containers += 1
                deeper += value
            elif kind is dict:
                containers += 1
                strings += len(value)
                deeper += value.values()
        if containers and depth == MAX_DEPTH:
            raise _too_deep()
        depth += 1
        level = deeper
    return strings


def _quotes_in(body: Body) -> int:
    """The number of quotes in `body` as JSON. Counting is faster than writing many megabytes of escapes."""
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
    """The body by Python's parser, which finds duplicate keys. Raises `InvalidRequest` with the place of an error."""
    if not raw:
        raise InvalidRequest("The request has no body: send a JSON object.", code="invalid_json")
    if raw.startswith(codecs.BOM_UTF8):
        raise InvalidRequest(
            "The body begins with a byte order mark (U+FEFF), which JSON does not allow (RFC 8259, 8.1): remove it.",
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
    except json.JSONDecodeError as wrong:
        raise InvalidRequest(
            f"The body is not valid JSON: {wrong.msg} at line {wrong.lineno}, column {wrong.colno}.",
            code="invalid_json",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except _DuplicateKeyError as twice:
        raise InvalidRequest(
            f"The key {twice.args[0]!r} appears twice in one object: send each key once.",
            param=twice.args[0],
            code="duplicate_key",
        ) from None
    except _NotANumberError as no_number:
        raise InvalidRequest(f"The body is not valid JSON: {no_number}.", code="invalid_json") from None
    except ValueError:  # Python's own bound for the digits of an integer
        raise InvalidRequest("The body holds a number with too many digits.", code="invalid_json") from None
    if type(body) is not dict:
        raise InvalidRequest(f"The body must be a JSON object, not {json_kind(body)}.", code="invalid_json")
    return body


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
