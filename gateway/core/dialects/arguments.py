"""How deep the JSON in a called tool's arguments is nested.

Arguments are a text of their own, which vLLM reads with Python's parser: nested some 900 levels deep it answers 500, as
an unwell node would, and is not to blame. So they have a bound, as bodies have.
"""

import re
from itertools import accumulate
from typing import Any

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest

MAX_ARGUMENTS = 500
"""Levels of arrays and objects. High, so that most bodies need not be walked: they hold fewer brackets in all."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def check_arguments(raw: bytes, body: Body) -> None:
    """Raises `InvalidRequest` for a call in `messages` or `input` of `body`, which is `raw`, whose arguments are nested
    too deeply."""
    escaped = b"\\u00" in raw  # a bracket may be spelled so
    if raw.count(b"[") + raw.count(b"{") <= MAX_ARGUMENTS and not escaped:
        return
    turns: Any = body.get("messages")
    if type(turns) is list:
        for index, turn in enumerate(turns):
            if type(turn) is dict and type(turn.get("tool_calls")) is list:
                _check_calls(turn["tool_calls"], f"messages.{index}.tool_calls")
    turns = body.get("input")
    if type(turns) is list:
        for index, turn in enumerate(turns):
            if type(turn) is dict and "arguments" in turn:
                _check(turn["arguments"], f"input.{index}.arguments")


def _check_calls(calls: list[Any], where: str) -> None:
    for index, call in enumerate(calls):
        function = call.get("function") if type(call) is dict else None
        if type(function) is dict:
            _check(function.get("arguments"), f"{where}.{index}.function.arguments")


def _check(arguments: object, where: str) -> None:
    if isinstance(arguments, str) and len(arguments) > MAX_ARGUMENTS and depth_of(arguments) > MAX_ARGUMENTS:
        raise InvalidRequest(
            f"The field {where!r} holds JSON nested more than {MAX_ARGUMENTS} levels deep: flatten it.",
            param=where,
            code="too_deeply_nested",
        )


def depth_of(text: str) -> int:
    """How deep a JSON text is nested, also one that is cut off or no JSON; may be too much where it is at most
    `MAX_ARGUMENTS`: brackets in strings are told apart only for texts that seem to be deeper."""
    if text.count("[") + text.count("{") <= MAX_ARGUMENTS:
        return MAX_ARGUMENTS
    depth = _brackets(text)
    return depth if depth <= MAX_ARGUMENTS else _brackets(_STRING.sub("", text))


def _brackets(text: str) -> int:
    steps: Any = memoryview(text.encode(errors="replace").translate(_STEPS, _OTHERS)).cast("b")
    return max(accumulate(steps), default=0)
