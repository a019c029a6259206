"""The events of a responses stream: items are opened, filled and closed, each event with its number.

created, in_progress, (item.added, [part.added], delta..., [text.done, part.done], item.done)*, completed

Since 0.33 the last is `incomplete` where the answer ran into its limit.
"""

from typing import Any

from workers.fake.wire import compact, random_id

Item = dict[str, Any]


def reasoning_item(item_id: str, text: str | None, status: str | None) -> Item:
    """A reasoning item; its content is null until there is a text."""
    content = None if text is None else [{"text": text, "type": "reasoning_text"}]
    shown: Item = {"id": item_id, "summary": [], "type": "reasoning", "content": content}
    return {**shown, "encrypted_content": None, "status": status}


def message_item(item_id: str, text: str | None, status: str) -> Item:
    """A message item with at most one text part."""
    part: Item = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
    shown: Item = {"id": item_id, "content": [] if text is None else [part], "role": "assistant"}
    return {**shown, "status": status, "type": "message", "phase": None}


def call_item(item_id: str, call: Item, status: str) -> Item:
    """A function call item."""
    shown = {"arguments": call["arguments"], "call_id": call["id"], "name": call["name"], "type": "function_call"}
    return {**shown, "id": item_id, "async": None, "caller": None, "namespace": None, "status": status}


class ResponseEvents:
    """Numbers the events of one stream and knows which item is open."""

    def __init__(self) -> None:
        self._number = 0
        self._kind = ""
        self._id = ""
        self._text = ""
        self._call: Item = {}
        self.output: list[Item] = []

    def event(self, kind: str, before: Item, after: Item | None = None, last: Item | None = None) -> bytes:
        """One event; members stand in vLLM's order: before and after the number, and after the type."""
        shown = {**before, "sequence_number": self._number, **(after or {}), "type": kind, **(last or {})}
        self._number += 1
        return f"event: {kind}\ndata: {compact(shown)}\n\n".encode()

    @property
    def _index(self) -> int:
        return len(self.output)

    def text(self, kind: str, text: str) -> list[bytes]:
        """More text of a reasoning or message item, which is opened when it is not."""
        events = []
        if self._kind != kind:
            events = [*self.close(), *self._open_text(kind)]
        self._text += text
        place = {"content_index": 0, "delta": text, "item_id": self._id}
        if kind == "message":
            place["logprobs"] = []
        events.append(self.event(f"response.{_TEXT[kind]}.delta", {**place, "output_index": self._index}))
        return events

    def _open_text(self, kind: str) -> list[bytes]:
        self._kind, self._text = kind, ""
        self._id = f"{'rs' if kind == 'reasoning' else 'msg'}_{random_id()}"
        part: Item = {"text": "", "type": "reasoning_text"}
        item = reasoning_item(self._id, None, "in_progress")
        if kind == "message":
            part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
            item = message_item(self._id, None, "in_progress")
        added = {"content_index": 0, "item_id": self._id, "output_index": self._index, "part": part}
        return [self._added(item), self.event("response.content_part.added", added)]

    def _added(self, item: Item) -> bytes:
        return self.event("response.output_item.added", {"item": item, "output_index": self._index})

    def call(self, delta: Item) -> list[bytes]:
        """A tool-call delta as chat has it: a new call, or more of its arguments."""
        if "id" in delta:
            events = self.close()
            self._kind, self._id = "call", f"fc_{random_id()}"
            self._call = {"id": delta["id"], "name": delta["function"]["name"], "arguments": ""}
            return [*events, self._added(call_item(self._id, self._call, "in_progress"))]
        text = delta["function"]["arguments"]
        self._call["arguments"] += text
        place = {"delta": text, "item_id": self._id, "output_index": self._index}
        return [self.event("response.function_call_arguments.delta", place)]

    def close(self, status: str = "completed") -> list[bytes]:
        """Ends the open item, if there is one."""
        kind, self._kind = self._kind, ""
        if not kind:
            return []
        if kind == "call":
            item = call_item(self._id, self._call, status)
            place = {"arguments": self._call["arguments"], "item_id": self._id, "output_index": self._index}
            name = {"name": self._call["name"]}
            events = [self.event("response.function_call_arguments.done", place, last=name)]
        else:
            item, events = self._close_text(kind, status)
        events.append(self.event("response.output_item.done", {"item": item, "output_index": self._index}))
        self.output.append(item)
        return events

    def _close_text(self, kind: str, status: str) -> tuple[Item, list[bytes]]:
        make = reasoning_item if kind == "reasoning" else message_item
        item = make(self._id, self._text, status)
        place: Item = {"content_index": 0, "item_id": self._id}
        logprobs: Item = {"logprobs": []} if kind == "message" else {}
        done = self.event(
            f"response.{_TEXT[kind]}.done", {**place, **logprobs, "output_index": self._index}, {"text": self._text}
        )
        part = {**place, "output_index": self._index, "part": item["content"][0]}
        return item, [done, self.event("response.content_part.done", part)]


_TEXT = {"reasoning": "reasoning_text", "message": "output_text"}
