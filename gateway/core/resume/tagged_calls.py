"""Reads tool calls in tags out of a model's text: vLLM's formats `qwen3_coder` and `hermes`.

    <tool_call>\\n<function=NAME>\\n<parameter=KEY>\\nVALUE\\n</parameter>\\n</function>\\n</tool_call>
    <tool_call>\\n{"name": NAME, "arguments": {...}}\\n</tool_call>

    state      text                  gives                                   next
    content    <tool_call>           -                                       opened
    content    <function=            -                                       name
    content    </think>              nothing: a second end of thinking       content
    content    anything else         content                                 content
    opened     <function=            -                                       name
    opened     {                     -                                       json
    opened     </tool_call>          nothing: an empty call                  content
    opened     anything else         the tag and it as content: no call      content
    name       NAME>                 the call                                arguments
    name       >                     the tags as content: no call            content
    arguments  parameters            their JSON (TaggedArguments)            arguments
    arguments  </function>           the closing brace                       closed
    closed     </tool_call>          -                                       content
    closed     <tool_call>           -                                       opened
    closed     <function=            -                                       name
    closed     anything else         content                                 content
    json       a call, </tool_call>  the call                                content
    json       other, </tool_call>   the tags and it as content: no call     content

Whitespace between tags is left out, and so is that before the first call where its arguments are in tags. The last text
ends a call as in vLLM: the arguments so far are given, and a tag that says nothing yet is left out. A node reads a tag
only where it is one token; text alone does not tell. vLLM leaves out text that is neither a call nor outside of one;
here it is content, so that nothing is lost.
"""

import re

from gateway.core.bodies import Body
from gateway.core.resume.answer_deltas import AnswerDeltas
from gateway.core.resume.argument_types import ArgumentTypes
from gateway.core.resume.tagged_arguments import FUNCTION_END, TaggedArguments, settled
from gateway.core.resume.written_calls import cut_call, whole_call

_OPEN, _CLOSE, _FUNCTION, _THINK_END = "<tool_call>", "</tool_call>", "<function=", "</think>"
_MARKS = (_OPEN, _FUNCTION, _THINK_END)
_ANY_MARK = re.compile("|".join(_MARKS))


class TaggedCalls:
    """The state of one answer's text. Gives content and calls to `deltas`."""

    __slots__ = ("_arguments", "_body", "_deltas", "_opening", "_searched", "_state", "_text")

    def __init__(self, deltas: AnswerDeltas, body: Body) -> None:
        """`body`: the chat request, for the schemas of its tools."""
        self._deltas = deltas
        self._body = body
        self._state = "content"
        self._text = ""
        self._opening = ""  # the tags of a call that could still be content
        self._searched = 0
        self._arguments = TaggedArguments(ArgumentTypes({}, ""))

    @property
    def holds(self) -> bool:
        """Whether text was read of which it is not known yet what it is, or a call that is not complete."""
        return bool(self._text) or self._state not in ("content", "closed")

    def feed(self, text: str, last: bool) -> None:
        """Read more text."""
        self._text += text
        while self._step(last):
            pass

    def _step(self, last: bool) -> bool:
        """Take a state's turn; False where more text is needed."""
        match self._state:
            case "content":
                return self._read_content(last)
            case "opened":
                return self._read_opened(last)
            case "name":
                return self._read_name(last)
            case "arguments":
                return self._read_arguments(last)
            case "closed":
                return self._read_closed(last)
        return self._read_json(last)

    def _read_content(self, last: bool) -> bool:
        found = _ANY_MARK.search(self._text)
        if found is None:
            end = len(self._text) if last else settled(self._text, *_MARKS)
            self._deltas.say(self._text[:end])
            self._text = self._text[end:]
            return False
        self._deltas.say(self._text[: found.start()])
        self._text = self._text[found.end() :]
        if found[0] != _THINK_END:
            self._opening = found[0]
            self._state = "opened" if found[0] == _OPEN else "name"
        return True

    def _read_opened(self, last: bool) -> bool:
        text = self._text.lstrip()
        if text.startswith(_FUNCTION):
            self._enter("name", text, _FUNCTION)
        elif text.startswith("{"):
            self._enter("json", text, "")
            self._searched = 0
        elif text.startswith(_CLOSE):
            self._enter("content", text, _CLOSE)
        elif _could_begin(text, _FUNCTION, _CLOSE):
            if last:
                self._deltas.leave_out()
            return False
        else:
            self._enter("content", text, "")
            self._deltas.say(self._opening)
        return True

    def _enter(self, state: str, text: str, tag: str) -> None:
        """Go to `state` behind `tag`, with which `text` begins; `text` is all that is left behind whitespace."""
        self._opening += self._text[: len(self._text) - len(text)] + tag
        self._text = text[len(tag) :]
        self._state = state

    def _read_name(self, last: bool) -> bool:
        name, end, rest = self._text.partition(">")
        if not end:
            if last:
                self._cut_name(name.strip())
            return False
        self._text = rest
        empty = (name + end).endswith(FUNCTION_END)
        called = (name + end).removesuffix(FUNCTION_END).strip() if empty else name.strip()
        if not called:
            self._state = "content"
            self._deltas.say(self._opening + name + end)
            return True
        self._deltas.begin(called)
        self._arguments = TaggedArguments(ArgumentTypes(self._body, called))
        if empty:
            self._deltas.go_on("{}")
        self._state = "closed" if empty else "arguments"
        return True

    def _cut_name(self, name: str) -> None:
        self._deltas.leave_out()
        if name:
            self._deltas.begin(name)
            self._deltas.go_on("{}")

    def _read_arguments(self, last: bool) -> bool:
        pieces, rest = self._arguments.feed(self._text, last)
        self._deltas.go_on(pieces)
        self._text = rest or ""
        if rest is None:
            return False
        self._state = "closed"
        return True

    def _read_closed(self, last: bool) -> bool:
        self._opening = ""
        text = self._text.lstrip()
        if text.startswith(_FUNCTION):
            self._enter("name", text, _FUNCTION)
        elif text.startswith(_OPEN):
            self._enter("opened", text, _OPEN)
        elif text.startswith(_CLOSE):
            self._enter("content", text, _CLOSE)
        elif _could_begin(text, _FUNCTION, _OPEN, _CLOSE):
            return False
        else:
            self._enter("content", text, "")
        return True

    def _read_json(self, last: bool) -> bool:
        end = self._text.find(_CLOSE, self._searched)
        if end < 0:
            self._searched = max(0, len(self._text) - len(_CLOSE) + 1)
            if last:
                self._take_cut()
            return False
        text, self._text = self._text[:end], self._text[end + len(_CLOSE) :]
        self._state = "content"
        self._take(text, _CLOSE)
        return True

    def _take(self, text: str, tag: str) -> None:
        call = whole_call(text)
        if call is None:
            self._deltas.say(self._opening + text + tag)
            return
        self._begin(call[0])
        self._deltas.go_on(call[1])
        self._deltas.end_line()

    def _begin(self, name: str) -> None:
        """Begin a call in JSON, before which vLLM leaves no whitespace out."""
        self._deltas.add_spaces()
        self._deltas.begin(name)

    def _take_cut(self) -> None:
        text = self._text[: settled(self._text, _CLOSE)]
        if whole_call(text) is not None:
            self._take(text, "")
            return
        name, arguments = cut_call(text)
        if name:
            self._begin(name)
            self._deltas.go_on(arguments.rstrip())


def _could_begin(text: str, *tags: str) -> bool:
    return any(tag.startswith(text) for tag in tags)
