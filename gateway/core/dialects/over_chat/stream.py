"""Translates a chat stream to the events of another dialect: the part that both translations share.

Theory. A chat stream is a flat run of deltas (reasoning, content, pieces of tool calls); the other dialects open and
close blocks. At most one block is open: a delta of another kind closes it and opens its own. The end is written at
`[DONE]` and never before, so a stream that was cut never looks complete.

    state     event                    does                                         next
    new       first chunk              begin: the dialect's opening events          open
    open      delta                    close the open block if it is another's;     open
                                       open one; pass the piece on
    open      finish_reason, usage     keep them                                    open
    open      [DONE] with a finish     close the block, write the end               ended
    open      [DONE] without a finish  nothing: the answer was cut                  open
    any       error chunk              the dialect's error event                    failed
    ended,    anything                 nothing                                      same
    failed

A block cannot be opened again, and pieces of several calls may come by turns. So what comes while a call's arguments
are not whole is held, in its order, until they are, or until the end.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from gateway.core.dialects.over_chat.base import NOT_CHAT, reasoning_of
from gateway.core.dialects.over_chat.chat_call import ChatCall, WaitingText
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.http.sse import DONE, event_data, is_comment, split_events
from gateway.core.json_text import dump, load_object
from gateway.core.usage.token_usage import from_openai


class ChatStream(StreamFilter):
    """A translator of chat chunks. Subclasses write their dialect's events with `emit`."""

    __slots__ = (
        "_begun",
        "_call",
        "_calls",
        "_hide",
        "_out",
        "_thinks",
        "_waiting",
        "chat_id",
        "finish_reason",
        "stop_reason",
        "used",
    )

    def __init__(self, hide: bool) -> None:
        """`hide` leaves thinking out."""
        super().__init__()
        self._hide = hide
        self._out: list[bytes] = []
        self._begun = False
        self._thinks: bool | None = None
        self._calls: dict[int, ChatCall] = {}
        self._call: ChatCall | None = None
        """The call that was begun last."""
        self._waiting: list[ChatCall | WaitingText] = []
        self.chat_id = ""
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.used: Mapping[str, Any] = {}

    # The dialect's events

    @abstractmethod
    def begin(self, chunk: Mapping[str, Any]) -> None:
        """Handle the first chunk."""

    @abstractmethod
    def reason(self, text: str) -> None:
        """Handle a piece of thinking."""

    @abstractmethod
    def speak(self, text: str, choice: Mapping[str, Any]) -> None:
        """Handle a piece of the answer; `choice` is the chunk's, with the fields beside the text."""

    @abstractmethod
    def begin_call(self, call_id: str, name: str) -> None:
        """Handle the beginning of a tool call."""

    @abstractmethod
    def go_on_calling(self, arguments: str) -> None:
        """Handle a piece of the open call's arguments."""

    @abstractmethod
    def end(self) -> None:
        """Close the open block and write the end."""

    @abstractmethod
    def complain(self, message: str, status: int) -> None:
        """Write an error event; `status` is the HTTP status of the same error as a plain answer."""

    # The node's chunks

    @property
    def thinks(self) -> bool | None:
        return self._thinks

    def feed(self, data: bytes) -> bytes:
        for event in split_events(self._splitter.feed(data)):
            payload = event_data(event)
            if not payload:
                if is_comment(event):  # it keeps the connection awake
                    self._out.append(event)
            elif not (self.ended or self.failed):
                try:
                    self._take(payload)
                except NOT_CHAT:
                    self.fail("The node sent an event that is not a chunk of a chat completion.")
        out = b"".join(self._out)
        self._out.clear()
        return out

    def emit(self, kind: str, event: Mapping[str, Any]) -> None:
        """Write an event."""
        self._out.append(render(kind, event))

    def fail(self, message: str, status: int = 500) -> None:
        """End the stream with an error."""
        self.failed = True
        self.complain(message, status)

    def _take(self, data: bytes) -> None:
        if data == DONE:
            self._done()
            return
        chunk = load_object(data)
        if chunk is None:
            raise TypeError("not an object")
        if chunk.get("error"):
            self.fail(*_message_and_status(chunk["error"]))
            return
        if not self._begun:
            self._begun = True
            self.chat_id = str(chunk.get("id", ""))
            self._note_usage(chunk)
            self.begin(chunk)
        else:
            self._note_usage(chunk)
        choices = chunk.get("choices")
        if choices:
            self._take_choice(choices[0])

    def _note_usage(self, chunk: Mapping[str, Any]) -> None:
        used = chunk.get("usage")
        if used:
            self.used = used
            self.usage = from_openai(used) or self.usage

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta") or {}
        reasoning = reasoning_of(delta)
        if reasoning or delta.get("content") or delta.get("tool_calls"):
            self._thinks = bool(reasoning)
        if reasoning and not self._hide:
            if self._call is None:
                self.reason(reasoning)
            else:
                self._queue(WaitingText(reasoning, None))
        content = delta.get("content")
        if content:  # logprobs beside a text spell out the thinking that came with it
            beside: Mapping[str, Any] = {} if reasoning and self._hide else choice
            if self._call is None:
                self.speak(content, beside)
            else:
                self._queue(WaitingText(content, beside))
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
            if self.failed:
                return
        if choice.get("finish_reason") is not None:
            self.finish_reason = choice["finish_reason"]
            self.stop_reason = choice.get("stop_reason")

    # Tool calls, and what comes behind the first of them

    def _take_call(self, given: Mapping[str, Any]) -> None:
        index, function = given.get("index") or 0, given.get("function") or {}
        call = self._calls.get(index)
        if call is None and function.get("name"):
            call_id = given.get("id") or derived_id("call_", self.chat_id, index)
            call = self._calls[index] = ChatCall(call_id, function["name"])
            self._queue(call)
        arguments = function.get("arguments")
        if not arguments:
            return
        if call is not None and not call.begun:
            call.pieces.append(arguments)
            self._advance()
        elif call is not None and call is self._call:
            call.pieces.append(arguments)
            self.go_on_calling(arguments)
        elif not arguments.isspace():  # the block of that call is closed; leaving the piece out would change the call
            self.fail("The node sent a tool call delta out of order.")

    def _queue(self, step: ChatCall | WaitingText) -> None:
        """Pass a step on behind those that wait, or have it wait."""
        self._waiting.append(step)
        self._advance()

    def _advance(self) -> None:
        """Pass on what waits, up to a call that is not whole."""
        while self._waiting and (self._call is None or self._call.is_whole()):
            self._pass_on(self._waiting.pop(0))

    def _pass_on(self, step: ChatCall | WaitingText) -> None:
        if isinstance(step, ChatCall):
            self._call = step
            step.begun = True
            self.begin_call(step.call_id, step.name)
            for piece in step.pieces:
                self.go_on_calling(piece)
        elif step.choice is None:
            self.reason(step.text)
        else:
            self.speak(step.text, step.choice)

    def _done(self) -> None:
        if self.finish_reason is None or not self._begun:
            return
        if self.finish_reason in ("abort", "error"):
            self.fail("The node aborted the answer.")
            return
        for step in self._waiting:
            self._pass_on(step)
        self.end()
        self.ended = True


def render(kind: str, event: Mapping[str, Any]) -> bytes:
    """An event as bytes."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dump(event))


def derived_id(prefix: str, chat_id: str, number: int) -> str:
    """The id of a part of an answer: as unique as the chat's id, and the same each time."""
    return prefix + hashlib.sha256(f"{chat_id}/{prefix}{number}".encode()).hexdigest()[:24]


def _message_and_status(error: object) -> tuple[str, int]:
    """The message and the status of a node's error."""
    if not isinstance(error, dict):
        return str(error), 500
    message, code = error.get("message"), error.get("code")
    return message if isinstance(message, str) else "The node reported an error.", code if type(code) is int else 500
