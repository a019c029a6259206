"""A chat stream as responses' events.

response.created and response.in_progress, then items one after the other (response.output_item.added, their parts
and deltas, response.output_item.done), then response.completed with the whole response, or response.incomplete where
the answer ran into its limit. vLLM does the same since 0.33; earlier versions end every answer with response.completed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.over_chat.responses_object import (
    ResponseForm,
    call_item,
    error_event,
    error_words,
    finish_call,
    message_item,
    response_logprobs,
    status_of,
    text_part,
    without_bytes,
)
from gateway.core.dialects.over_chat.responses_tools import ToolNames
from gateway.core.dialects.over_chat.stream import ChatStream, render


class NumberedEvents(ChatStream):
    """Events with their numbers; the first two have the response as it begins. `_first` is chat's first chunk."""

    __slots__ = ("_first", "_form", "_sequence")

    def __init__(self, hide: bool, form: ResponseForm) -> None:
        super().__init__(hide)
        self._form = form
        self._first: Mapping[str, Any] = {}
        self._sequence = 0

    @property
    def next_number(self) -> int:
        return self._sequence

    def begin(self, chunk: Mapping[str, Any]) -> None:
        self._first = chunk
        response = self._form.in_progress(chunk)
        self._event("response.created", {"response": response})
        self._event("response.in_progress", {"response": response})

    def _event(self, kind: str, fields: Body) -> None:
        self.emit(kind, {"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1


class ResponseEvents(NumberedEvents):
    """Writes items. `_item` is the open one as it was added, `_pieces` its text so far."""

    __slots__ = ("_item", "_logprobs", "_names", "_output", "_pieces")

    def __init__(self, hide: bool, form: ResponseForm, names: ToolNames) -> None:
        super().__init__(hide, form)
        self._names = names
        self._output: list[Body] = []
        self._item: Body = {}
        self._pieces: list[str] = []
        self._logprobs: list[Body] = []

    def reason(self, text: str) -> None:
        if self._item.get("type") != "reasoning":
            item_id = self._next_id("rs_")
            item = {"type": "reasoning", "id": item_id, "summary": [], "content": [], "status": "in_progress"}
            self._open(item, {"type": "reasoning_text", "text": ""})
        self._pieces.append(text)
        self._of_part("response.reasoning_text.delta", {"delta": text})

    def speak(self, text: str, choice: Mapping[str, Any]) -> None:
        if self._item.get("type") != "message":
            item = message_item(self._next_id("msg_"), "", [], "in_progress")
            self._open({**item, "content": []}, text_part("", []))
        self._pieces.append(text)
        logprobs = response_logprobs(choice)
        self._logprobs += logprobs
        self._of_part("response.output_text.delta", {"delta": text, "logprobs": without_bytes(logprobs)})

    def begin_call(self, call_id: str, name: str) -> None:
        self._open(call_item(self._form, self.chat_id, self._next, call_id, name, self._names), None)

    def go_on_calling(self, arguments: str) -> None:
        kind = self._item.get("type")
        if kind not in ("function_call", "custom_tool_call"):
            self.fail("The node sent a tool call delta out of order.")
            return
        self._pieces.append(arguments)
        if kind == "function_call":  # the input of a custom tool is read when it is whole
            self._of_item("response.function_call_arguments.delta", {"delta": arguments})

    def end(self) -> None:
        status = status_of(self.finish_reason)
        self._close(status)
        response = self._form.ended(self._first, self.finish_reason, self._output, self.used)
        kept = self._form.kept
        if kept is None:
            self._event(f"response.{status}", {"response": response})
        else:
            kept.complete(response, partial(_last_event, f"response.{status}", self._sequence))

    def complain(self, message: str, status: int) -> None:
        self._event("error", error_event(*error_words(status), message))

    # Items

    @property
    def _next(self) -> int:
        """The index of the next item to open, behind the open one."""
        return len(self._output) + bool(self._item)

    def _next_id(self, prefix: str) -> str:
        return self._form.item_id(prefix, self.chat_id, self._next)

    def _open(self, item: Body, part: Body | None) -> None:
        self._close()
        self._item = item
        self._pieces = []
        self._logprobs = []
        self._event("response.output_item.added", {"output_index": len(self._output), "item": item})
        if part is not None:
            self._of_part("response.content_part.added", {"part": part})

    def _close(self, status: str = "completed") -> None:
        if not self._item:
            return
        item = self._finish("".join(self._pieces), status)
        self._event("response.output_item.done", {"output_index": len(self._output), "item": item})
        self._output.append(item)
        self._item = {}

    def _finish(self, text: str, status: str) -> Body:
        """Write the last events of the open item, whose whole text is `text`; returns the complete item."""
        kind = self._item["type"]
        if kind == "reasoning":
            self._of_part("response.reasoning_text.done", {"text": text})
            self._of_part("response.content_part.done", {"part": {"type": "reasoning_text", "text": text}})
            return self._form.reasoning(self._item["id"], text, status)
        if kind == "message":
            self._of_part("response.output_text.done", {"text": text, "logprobs": []})
            self._of_part("response.content_part.done", {"part": text_part(text, self._logprobs)})
            return message_item(self._item["id"], text, self._logprobs, status)
        item = finish_call(self._item, text, status)
        if kind == "function_call":
            done = {"arguments": text, "name": item["name"]}
            self._of_item("response.function_call_arguments.done", done)
        else:
            self._of_item("response.custom_tool_call_input.delta", {"delta": item["input"]})
            self._of_item("response.custom_tool_call_input.done", {"input": item["input"]})
        return item

    # Events

    def _of_part(self, kind: str, fields: Body) -> None:
        self._of_item(kind, {"content_index": 0, **fields})

    def _of_item(self, kind: str, fields: Body) -> None:
        self._event(kind, {"item_id": self._item["id"], "output_index": len(self._output), **fields})


def _last_event(kind: str, number: int, response: Body) -> bytes:
    return render(kind, {"type": kind, "sequence_number": number, "response": response})
