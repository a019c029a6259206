"""Bounds the nesting of the JSON in the arguments of called tools.

Arguments are a JSON text inside the body, which vLLM reads with Python's parser. At some 900 levels it answers 500, as
a failing node would, though the request is at fault.
"""

import re
from itertools import accumulate
from typing import Any

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest

MAX_ARGUMENTS = 500
"""The most levels of arrays and objects."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def check_arguments(body: Body) -> None:
    """Raises `InvalidRequest` where a call in `messages` or `input` has arguments that are nested too deeply."""
    messages: Any = body.get("messages")
    if type(messages) is list:
        for index, message in enumerate(messages):
            if type(message) is dict and type(message.get("tool_calls")) is list:
                _check_calls(message["tool_calls"], f"messages.{index}.tool_calls")
    items: Any = body.get("input")
    if type(items) is list:
        for index, item in enumerate(items):
            if type(item) is dict and "arguments" in item:
                _check(item["arguments"], f"input.{index}.arguments")


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
    """The levels of a JSON text, which may be cut off or invalid. Up to `MAX_ARGUMENTS` the figure can be too high:
    brackets in strings are left out only where it would be higher."""
    if text.count("[") + text.count("{") <= MAX_ARGUMENTS:
        return MAX_ARGUMENTS
    depth = _brackets(text)
    return depth if depth <= MAX_ARGUMENTS else _brackets(_STRING.sub("", text))


def _brackets(text: str) -> int:
    steps: Any = memoryview(text.encode(errors="replace").translate(_STEPS, _OTHERS)).cast("b")
    return max(accumulate(steps), default=0)
