"""Readers of streams as strict as can be: state machines by the providers' rules, which refuse what is out of order.

Anthropic's (docs: streaming messages):

    state        event                   next
    start        message_start           open; its message is empty and counts the prompt
    open         content_block_start     in a block; its index is the number of blocks so far
    in a block   content_block_delta     the same; of the block's own kind and index. A thinking block ends with its
                                         signature: none behind it
    in a block   content_block_stop      open; of the same index
    open         message_delta           closing; it has the stop reason and the usage, whose counts never fall
    closing      message_stop            ended
    any          ping, a comment         the same
    any          error                   failed
    ended,       anything                refused
    failed

OpenAI's responses: response.created, response.in_progress, then items one after the other, each with its parts, and the
end with the whole response. Each event has the next sequence number and the index of the open item; what is done
repeats what its deltas had.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


class OutOfOrder(AssertionError):
    """A stream that breaks its provider's rules."""


def sse(stream: bytes) -> Iterator[tuple[str, str]]:
    """The events of a stream by the HTML standard: name and data. Comments are skipped."""
    name = ""
    data: list[str] = []
    text = stream.decode()  # strictly: no half of a character
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines.pop():
        raise OutOfOrder("the stream ends within a line")
    for line in lines:
        if not line:
            if data:
                yield name or "message", "\n".join(data)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field:
            raise OutOfOrder(f"an unknown line: {line!r}")
    if data:
        raise OutOfOrder("the stream ends within an event")


class StrictReader(ABC):
    """Reads a whole stream. `answer` is what it says, None until its end; `error` what broke it."""

    def __init__(self) -> None:
        self.answer: Json | None = None
        self.error: Json | None = None

    def read(self, stream: bytes) -> "StrictReader":
        for name, data in sse(stream):
            event = json.loads(data)
            self.demand(event["type"] == name, f"{name} has the type {event['type']}")
            self.demand(self.answer is None and self.error is None, f"{name} behind the end")
            if name == "error":
                self.error = event
            else:
                self.take(name, event)
        return self

    @abstractmethod
    def take(self, name: str, event: Json) -> None:
        """Take one event."""

    def demand(self, holds: bool, fault: str) -> None:
        if not holds:
            raise OutOfOrder(fault)


_DELTAS = {
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "text": {"text_delta": "text"},
    "tool_use": {"input_json_delta": "partial_json"},
}
_STOPS = ("end_turn", "max_tokens", "stop_sequence", "tool_use")


class MessagesReader(StrictReader):
    """Anthropic's stream."""

    def __init__(self) -> None:
        super().__init__()
        self._message: Json | None = None
        self._blocks: list[Json] = []
        self._open: Json | None = None
        self._closing = False
        self._ids: set[str] = set()

    def take(self, name: str, event: Json) -> None:
        if name == "ping":
            return
        if name == "message_start":
            self._start(event["message"])
            return
        self.demand(self._message is not None, f"{name} before message_start")
        if name.startswith("content_block"):
            self.demand(not self._closing, f"{name} behind message_delta")
            self._block(name, event)
        elif name == "message_delta":
            self._delta(event)
        elif name == "message_stop":
            self.demand(self._closing, "message_stop before message_delta")
            assert self._message is not None
            self.answer = {**self._message, "content": self._blocks}
        else:
            raise OutOfOrder(f"an unknown event {name}")

    def _start(self, message: Json) -> None:
        self.demand(self._message is None, "a second message_start")
        self.demand(message["content"] == [] and message["stop_reason"] is None, "message_start has an answer")
        self.demand(
            message["type"] == "message" and message["role"] == "assistant" and bool(message["id"]), "no message"
        )
        self.demand(message["usage"]["input_tokens"] >= 0 and message["usage"]["output_tokens"] >= 0, "no usage")
        self._message = message

    def _block(self, name: str, event: Json) -> None:
        if name == "content_block_start":
            self.demand(self._open is None, "a block within a block")
            self.demand(event["index"] == len(self._blocks), f"block {event['index']} is number {len(self._blocks)}")
            self._begin(event["content_block"])
            return
        self.demand(self._open is not None, f"{name} outside of a block")
        assert self._open is not None
        self.demand(event["index"] == len(self._blocks), f"{name} of another block")
        if name == "content_block_stop":
            self._blocks.append(self._open)
            self._open = None
            return
        self.demand(name == "content_block_delta", f"an unknown event {name}")
        delta = event["delta"]
        member = _DELTAS[self._open["type"]].get(delta["type"])
        self.demand(member is not None, f"{delta['type']} in a block of {self._open['type']}")
        self.demand(not self._open.get("signature"), "a delta behind the signature")
        self._open[member or ""] = self._open.get(member or "", "") + delta[member or ""]

    def _begin(self, block: Json) -> None:
        kind = block["type"]
        self.demand(kind in _DELTAS, f"a block of {kind}")
        empty = {"thinking": "", "text": "", "signature": "", "input": {}}
        self.demand(
            all(block.get(name, value) == value for name, value in empty.items()), f"{kind} begins with {block}"
        )
        if kind == "tool_use":
            self.demand(bool(block["id"] and block["name"]) and block["id"] not in self._ids, "a call's id or name")
            self._ids.add(block["id"])
            block = {name: value for name, value in block.items() if name != "input"} | {"partial_json": ""}
        self._open = dict(block)

    def _delta(self, event: Json) -> None:
        self.demand(self._open is None, "message_delta within a block")
        self.demand(not self._closing, "a second message_delta")
        self.demand(event["delta"]["stop_reason"] in _STOPS, f"stop reason {event['delta']['stop_reason']}")
        assert self._message is not None
        before, now = self._message["usage"], event["usage"]
        self.demand(now["output_tokens"] >= before["output_tokens"], "fewer output tokens at the end")
        self._message = {**self._message, **event["delta"], "usage": {**before, **now}}
        self._closing = True


_ENDS = {"response.completed": "completed", "response.incomplete": "incomplete"}
_TEXTS = {
    "response.reasoning_text": ("reasoning", "reasoning_text", "text"),
    "response.output_text": ("message", "output_text", "text"),
    "response.function_call_arguments": ("function_call", None, "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", None, "input"),
}
"""Events with deltas: the item and the part that they belong to, and the member that has the whole text when done."""


class ResponsesReader(StrictReader):
    """OpenAI's stream of a response."""

    def __init__(self) -> None:
        super().__init__()
        self._sequence = 0
        self._response: Json | None = None
        self._running = False
        self._items: list[Json] = []
        self._item: Json | None = None
        self._part: Json | None = None
        self._text: str | None = None
        self._done = False

    def take(self, name: str, event: Json) -> None:
        self.demand(event["sequence_number"] == self._sequence, f"{name}: number {event['sequence_number']}")
        self._sequence += 1
        if name == "response.created":
            self.demand(self._response is None and event["sequence_number"] == 0, "response.created in between")
            self._response = self._unfinished(event["response"])
            return
        self.demand(self._response is not None, f"{name} before response.created")
        if name == "response.in_progress":
            self.demand(not self._running, "a second response.in_progress")
            self.demand(
                self._unfinished(event["response"]) == self._response, "response.in_progress has another response"
            )
            self._running = True
            return
        self.demand(self._running, f"{name} before response.in_progress")
        if name in _ENDS:
            self._end(name, event["response"])
        elif name.startswith("response.output_item"):
            self._take_item(name, event)
        else:
            self._of_item(name, event)

    def _unfinished(self, response: Json) -> Json:
        self.demand(response["status"] == "in_progress" and response["output"] == [], "a response that has an answer")
        return response

    def _take_item(self, name: str, event: Json) -> None:
        item = event["item"]
        self.demand(event["output_index"] == len(self._items), f"{name} of item {event['output_index']}")
        if name == "response.output_item.added":
            self.demand(self._item is None, "an item within an item")
            self.demand(item.get("status") in ("in_progress", None), f"an item that begins as {item.get('status')}")
            texts = [item.get("arguments", ""), item.get("input", ""), *(item.get("content") or ())]
            self.demand(not any(texts), "an item that begins with an answer")
            self.demand(item["id"] not in [each["id"] for each in self._items], "an item's id")
            self._item, self._text, self._done, self._part = item, None, False, None
            return
        self.demand(name == "response.output_item.done" and self._item is not None, f"{name} without its item")
        assert self._item is not None
        self.demand(self._part is None, "an item that ends within a part")
        names = ("type", "id", "call_id", "name")
        self.demand([item.get(n) for n in names] == [self._item.get(n) for n in names], "another item is done")
        text = self._text or ""
        if item["type"] in ("reasoning", "message"):
            self.demand("".join(part["text"] for part in item["content"]) == text, "an item done with another text")
        else:
            self.demand(item.get("arguments", item.get("input")) == text, "a call done with other arguments")
            self.demand(self._done or not text, "a call whose arguments are not done")
        self._items.append(item)
        self._item = None

    def _of_item(self, name: str, event: Json) -> None:
        self.demand(self._item is not None, f"{name} outside of an item")
        assert self._item is not None
        self.demand(
            event["output_index"] == len(self._items) and event["item_id"] == self._item["id"], f"{name}: its item"
        )
        if name.startswith("response.content_part"):
            self._take_part(name, event)
            return
        base, _, step = name.rpartition(".")
        self.demand(base in _TEXTS and step in ("delta", "done"), f"an unknown event {name}")
        item, part, whole = _TEXTS[base]
        self.demand(self._item["type"] == item, f"{name} in an item of {self._item['type']}")
        if part is not None:
            self.demand(self._part is not None and self._part["type"] == part, f"{name} outside of its part")
            self.demand(event["content_index"] == 0, f"{name}: its part")
        self.demand(not self._done, f"{name} behind what is done")
        if step == "delta":
            self._text = (self._text or "") + event["delta"]
        else:
            self.demand(event[whole] == (self._text or ""), f"{name}: another text than its deltas'")
            self._done = True

    def _take_part(self, name: str, event: Json) -> None:
        self.demand(event["content_index"] == 0, f"{name}: part {event['content_index']}")
        part = event["part"]
        if name == "response.content_part.added":
            self.demand(self._part is None and self._text is None, "a part within a part")
            self.demand(part["text"] == "", "a part that begins with a text")
            self._part, self._text = part, ""
            return
        self.demand(name == "response.content_part.done" and self._part is not None, f"{name} without its part")
        self.demand(self._done, "a part that ends before its text")
        self.demand(part["text"] == self._text, "a part done with another text")
        self._part = None

    def _end(self, name: str, response: Json) -> None:
        self.demand(self._item is None, "the end within an item")
        self.demand(response["status"] == _ENDS[name], f"{name} of a response that is {response['status']}")
        assert self._response is not None
        self.demand(response["id"] == self._response["id"], "another response ends")
        self.demand(response["output"] == self._items, "the response has other items than were done")
        self.demand(response["usage"] is None or response["usage"]["total_tokens"] >= 0, "its usage")
        self.answer = response
