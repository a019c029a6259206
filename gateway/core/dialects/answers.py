"""Facts in whole answers of nodes: their usage, and what their errors say."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.core.json_text import parse_object

_USAGE: Final = b'"usage":{'
_USAGE_FIELD = re.compile(rb'"usage"\s*:\s*(?=\{)')
_USAGE_WINDOW: Final = 4096
_decoder = json.JSONDecoder()

LONGEST_MESSAGE = 2000
"""The most characters of a node's error message that a client is shown: in some, vLLM repeats the request."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def find_usage(answer: bytes) -> Mapping[str, Any] | None:
    """The last `usage` object in a JSON text; the text is not parsed.

    A quote inside a JSON string is escaped, so `"usage":` in the bytes is a key.
    """
    end = len(answer)
    while (at := answer.rfind(b'"usage"', 0, end)) >= 0:
        if answer.startswith(_USAGE, at):  # as vLLM writes it: no pattern is needed
            return _object_at(answer, at + len(_USAGE) - 1)
        match = _USAGE_FIELD.match(answer, at)
        if match is not None:
            return _object_at(answer, match.end())
        end = at  # a string, such as a token's text
    return None


def _object_at(answer: bytes, at: int) -> Mapping[str, Any] | None:
    """The object that begins at `at`.

    orjson needs its end, which is found by counting braces. Braces in a string can make the count end too early; then
    Python's parser, five times slower, finds the end by itself.
    """
    window = answer[at : at + _USAGE_WINDOW]
    end = window.find(b"}") + 1
    while end and window.count(b"{", 0, end) > window.count(b"}", 0, end):
        end = window.find(b"}", end) + 1
    try:
        usage = orjson.loads(window[:end])
    except orjson.JSONDecodeError:
        try:
            usage, _ = _decoder.raw_decode(window.decode(errors="replace"))
        except (ValueError, RecursionError):
            return None
    return usage if isinstance(usage, dict) else None


def find_error_status(answer: bytes) -> int:
    """The HTTP status of a node's error event: its code; where it has none, 500 for an internal error, else 400."""
    error = parse_object(answer).get("error")
    if not isinstance(error, dict):
        return 500
    code, kind = error.get("code"), str(error.get("type", ""))[:64]
    if type(code) is int and 100 <= code <= 599:
        return code
    return 500 if "internal" in kind.lower() or kind == "api_error" else 400


def find_error_message(answer: bytes) -> str | None:
    """The message of a node's error answer in any format, on one line and cut to `LONGEST_MESSAGE`."""
    error = parse_object(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return _UNPRINTABLE.sub(" ", message[:LONGEST_MESSAGE]) if isinstance(message, str) else None
