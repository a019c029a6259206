"""Reads the raw text of an answer, as `/v1/completions` gives it, into the deltas that chat would have given.

    tool_choice        the text                        gives
    no tools, none     anything                        content
    absent, auto       calls in tags, text             calls, content (TaggedCalls)
    required           [{"name", "parameters"}, ...]   calls (CallList)
    required           anything else                   calls, content (TaggedCalls)
    a named function   {...}                           the one call (NamedCall)
    a named function   anything else                   calls, content (TaggedCalls)

vLLM makes a model that must call write JSON in older versions, and the tags that its tool parser reads in newer ones.
The first character tells them apart.
"""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.resume.answer_deltas import AnswerDeltas
from gateway.core.resume.tagged_calls import TaggedCalls
from gateway.core.resume.written_calls import CallList, NamedCall


def tool_choice_of(body: Body) -> tuple[str, str]:
    """The request's choice of tools as nodes read it (`none`, `auto`, `required`, `named`) and the named function."""
    choice = body.get("tool_choice")
    if not body.get("tools") or choice == "none":
        return "none", ""
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and name:
            return "named", name
    return ("required" if choice == "required" else "auto"), ""


class RawAnswer:
    """One answer's text, without its thinking."""

    __slots__ = ("_body", "_choice", "_deltas", "_held", "_name", "_reader")

    def __init__(self, body: Body, chat_id: str, spoken: bool = False) -> None:
        """`body`: the chat request. `chat_id`: what the ids of calls are made of. `spoken`: an earlier part of the
        answer had content with a word in it."""
        self._body = body
        self._choice, self._name = tool_choice_of(body)
        self._deltas = AnswerDeltas(chat_id, spoken or self._choice == "none")
        self._held = ""
        self._reader: TaggedCalls | CallList | NamedCall | None = None
        if self._choice == "auto":
            self._reader = TaggedCalls(self._deltas, body)

    @property
    def holds(self) -> bool:
        """Whether text was read that no delta shows yet. If not, and without calls, all was shown or left out."""
        return bool(self._held) or self._deltas.holds or (self._reader is not None and self._reader.holds)

    @property
    def calls(self) -> int:
        """The calls that have begun."""
        return self._deltas.calls

    def feed(self, text: str, last: bool = False) -> list[dict[str, Any]]:
        """Read more text: the `delta` objects of chat chunks, in order. `last`: no text follows."""
        if self._choice == "none":
            self._deltas.say(text)
        elif self._reader is None and not (self._held + text).strip():
            self._held += text
        else:
            self._read(self._held + text, last)
            self._held = ""
        if last:
            self._deltas.add_spaces()
        return self._deltas.take()

    def finish_reason(self, given: str) -> str:
        """The `finish_reason` of chat for that of completions."""
        called = self._deltas.calls > 0 and self._choice != "named"
        return "tool_calls" if given == "stop" and called else given

    def _read(self, text: str, last: bool) -> None:
        if self._reader is None:
            self._reader = self._reader_of(text.lstrip()[0])
        self._reader.feed(text, last)

    def _reader_of(self, first: str) -> TaggedCalls | CallList | NamedCall:
        if self._choice == "required" and first == "[":
            return CallList(self._deltas)
        if self._choice == "named" and first == "{":
            return NamedCall(self._deltas, self._name)
        return TaggedCalls(self._deltas, self._body)
