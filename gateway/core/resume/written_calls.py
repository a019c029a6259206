"""Reads tool calls that a model wrote as JSON: one object with a name and arguments, or a list of them."""

import json
import re

from gateway.core.json_text import load_json, load_object
from gateway.core.resume.answer_deltas import AnswerDeltas

_NAME = re.compile(r'"name"\s*:\s*"([^"]+)"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*')
_DECODER = json.JSONDecoder()


def whole_call(text: str) -> tuple[str, str] | None:
    """The name and the arguments of a call, as they are written; None where `text` is no call.

    A brace that is missing at the end is forgiven, as vLLM does.
    """
    call = load_object(text)
    if call is None:
        named, arguments = cut_call(text)
        return (named, arguments) if named and arguments and load_json(arguments) is not None else None
    name = call.get("name")
    return (name, cut_call(text)[1] or "{}") if isinstance(name, str) and name else None


def cut_call(text: str) -> tuple[str, str]:
    """The name and the arguments of a call whose text is cut; each is empty where it has not come."""
    named, begun = _NAME.search(text), _ARGUMENTS.search(text)
    if begun is None:
        return named[1] if named else "", ""
    try:
        _, end = _DECODER.raw_decode(text, begun.end())
    except (ValueError, RecursionError):
        end = len(text)
    return named[1] if named else "", text[begun.end() : end]


class CallList:
    """Reads the list that `tool_choice: required` makes a model write: `[{"name": ..., "parameters": {...}}, ...]`.

    A call is passed on when it is complete. Of a call that is cut, the arguments so far are.
    """

    __slots__ = ("_call", "_deltas", "_depth", "_escaped", "_quoted")

    def __init__(self, deltas: AnswerDeltas) -> None:
        self._deltas = deltas
        self._call: list[str] = []
        self._depth = 0
        self._quoted = False
        self._escaped = False

    @property
    def holds(self) -> bool:
        """Whether the list is not complete."""
        return self._depth > 0

    def feed(self, text: str, last: bool) -> None:
        """Read more text."""
        start = 0
        for at, char in enumerate(text):
            if self._quoted:
                self._quoted = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._quoted = True
            elif char in "[{":
                self._depth += 1
                if self._depth == 2:
                    start = at
            elif char in "]}":
                self._depth -= 1
                if self._depth == 1:
                    self._call.append(text[start : at + 1])
                    self._take()
        if self._depth > 1:
            self._call.append(text[start:])
            if last:
                self._take_cut()

    def _take(self) -> None:
        text = "".join(self._call)
        self._call.clear()
        call = whole_call(text)
        if call is None:
            self._deltas.say(text)
            return
        self._deltas.begin(call[0])
        self._deltas.go_on(call[1])

    def _take_cut(self) -> None:
        name, arguments = cut_call("".join(self._call))
        if name and arguments:
            self._deltas.begin(name)
            self._deltas.go_on(arguments)


class NamedCall:
    """Reads the arguments of the one call that `tool_choice` names: they are all of the text."""

    __slots__ = ("_begun", "_deltas", "_name")

    def __init__(self, deltas: AnswerDeltas, name: str) -> None:
        self._deltas = deltas
        self._name = name
        self._begun = False

    @property
    def holds(self) -> bool:
        """Nothing is held back."""
        return False

    def feed(self, text: str, last: bool) -> None:
        """Read more text. The `last` one is like any other."""
        if not self._begun:
            self._begun = True
            self._deltas.begin(self._name)
        self._deltas.go_on(text)
