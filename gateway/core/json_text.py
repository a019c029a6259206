"""JSON text: written compactly, and read from nodes, which may send anything.

Bodies of clients are read by stricter rules, see `bodies`.
"""

import json
import re
from typing import Any

import orjson

UNICODE_ESCAPE = re.compile(rb"\\u")
"""To be searched for: where no such escape is, `re` finds that out three times faster than `in` does, for two bytes."""


_BEYOND = 2.0**63
"""The smallest float that orjson may have made of an integer."""


def dump(value: object) -> bytes:
    """`value` as compact UTF-8 JSON. Lone surrogates, which UTF-8 cannot carry, are written as escapes."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def load_json(data: bytes | str) -> Any:
    """The value of `data`; None where it is not JSON."""
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return json.loads(data)  # lone surrogates
    except (ValueError, RecursionError):  # not JSON, or nested beyond what Python can follow
        return None


def load_object(data: bytes | str) -> dict[str, Any] | None:
    """The JSON object in `data`; None where it holds no object."""
    value = load_json(data)
    return value if isinstance(value, dict) else None


def load_exact_object(data: bytes | str) -> dict[str, Any] | None:
    """The same, with integers beyond 64 bits, of which orjson makes floats."""
    value = load_object(data)
    return value if value is None or is_exact(value) else json.loads(data)


def is_exact(parsed: object) -> bool:
    """Whether no number in what orjson parsed can be a rounded integer."""
    waiting: list[Any] = [parsed]
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


def parse_object(data: bytes | str) -> dict[str, Any]:
    """The JSON object in `data`; empty where it holds no object."""
    value = load_json(data)
    return value if isinstance(value, dict) else {}


def json_kind(value: object) -> str:
    """The JSON type of a parsed value, with its article, for error messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
