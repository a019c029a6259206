"""How deep the JSON in a called tool's arguments is nested.

Arguments are a text of their own, which vLLM reads with Python's parser: nested some 900 levels deep it answers 500, as
an unwell node would, and is not to blame. So the bound of a body's depth holds for them, too.
"""

import re
from itertools import accumulate
from typing import Any

from gateway.core.bodies import MAX_DEPTH, Body
from gateway.core.errors import InvalidRequest

_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def check_arguments(body: Body) -> None:
    """Raises `InvalidRequest` for a call in `messages` or `input` whose arguments are nested too deeply."""
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
    if isinstance(arguments, str) and len(arguments) > MAX_DEPTH and depth_of(arguments) > MAX_DEPTH:
        raise InvalidRequest(
            f"The field {where!r} holds JSON nested more than {MAX_DEPTH} levels deep: flatten it.",
            param=where,
            code="too_deeply_nested",
        )


def depth_of(text: str) -> int:
    """How deep a JSON text is nested, also one that is cut off or no JSON; may be too much where it is at most
    `MAX_DEPTH`: brackets in strings are told apart only for texts that seem to be deeper."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return MAX_DEPTH
    depth = _brackets(text)
    return depth if depth <= MAX_DEPTH else _brackets(_STRING.sub("", text))


def _brackets(text: str) -> int:
    steps: Any = memoryview(text.encode(errors="replace").translate(_STEPS, _OTHERS)).cast("b")
    return max(accumulate(steps), default=0)
