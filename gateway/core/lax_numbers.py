"""Numbers and switches in the spellings that nodes read.

vLLM reads bodies with pydantic's lax rules: "10", " 1_0 ", 10.0 and true are counts, "yes" and 1 are switches.
"""

import re
from typing import Any, Final

from gateway.core.errors import InvalidRequest
from gateway.core.json_text import json_kind

LARGEST: Final = 2**31 - 1
"""The largest count: no context window is longer, sums of some stay exact, and JSON parsers read it alike."""

_COUNT = re.compile(r"[+-]?\d+(?:_\d+)*(?:\.0+)?", re.ASCII)
_SPACE = " \t\n\r"
_DIGITS = 40
"""Characters of a count that is written as text: more are no number of tokens."""

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})


def read_count(value: Any, name: str) -> int:
    """A number of tokens, however spelled. Raises `InvalidRequest` with the field's `name` for what is none."""
    count: int | None = None
    if type(value) in (int, bool) or (type(value) is float and value.is_integer()):
        count = int(value)
    elif type(value) is str and len(value) <= _DIGITS and _COUNT.fullmatch(text := value.strip(_SPACE)):
        count = int(text.partition(".")[0])
    if count is None:
        raise _wrong(name, f"an integer, not {_shown(value)}")
    if abs(count) > LARGEST:
        raise _wrong(name, f"at most {LARGEST}")
    return count


def read_switch(value: Any, name: str) -> bool:
    """True or false, however spelled. Raises `InvalidRequest` with the field's `name` for what is neither."""
    text = value.lower() if type(value) is str else ""
    if type(value) in (bool, int, float):
        text = str(value).removesuffix(".0").lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _wrong(name, f"true or false, not {json_kind(value)}")


def _shown(value: Any) -> str:
    """A number that is none of tokens is shown, other kinds are named."""
    return str(value) if type(value) is float else json_kind(value)


def _wrong(name: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"The field {name!r} must be {expected}.", param=name, code="invalid_type")
