"""Taking reasoning out of an answer, where the operator or the client wants it left out. Sans-IO.

The node thinks as ever and is paid for it: its usage stays. Only events that carry reasoning, and in messages and
responses those behind it, whose numbers move up, are written anew; all others pass as the bytes that came. Token ids
and logprobs that stand with reasoning go with it, since they spell it out.

vLLM's own `include_reasoning: false` would do this for nothing, but takes thinking for ended: a grammar would then
begin with the thinking instead of the answer.
"""

from abc import ABC, abstractmethod
from typing import Any

from gateway.core.dialects.base import Dialect
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import BadUpstreamResponse
from gateway.core.http.sse import DONE, event_data, split_events
from gateway.core.json_text import dump, load_json

_FIELDS = ("reasoning", "reasoning_content")
_SPELLED_OUT = ("logprobs", "token_ids")
_THINKING = ("thinking", "redacted_thinking")


class ReasoningHider(ABC):
    """What one dialect's reasoning looks like. One hider follows one answer."""

    @abstractmethod
    def event(self, event: bytes) -> bytes:
        """What becomes of one event of a stream; nothing where it was reasoning only."""

    @abstractmethod
    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What becomes of a plain answer."""


class HidingFilter(StreamFilter):
    """Another watch, whose events are shown without reasoning."""

    __slots__ = ("_hider", "_inner")

    def __init__(self, inner: StreamFilter, hider: ReasoningHider) -> None:
        super().__init__()
        self._inner = inner
        self._hider = hider

    def feed(self, data: bytes) -> bytes:
        return self._show(self._inner.feed(data))

    def flush(self) -> bytes:
        return self._show(self._inner.flush())

    def _show(self, events: bytes) -> bytes:
        inner = self._inner
        self.ended, self.failed, self.usage, self.follow_up = inner.ended, inner.failed, inner.usage, inner.follow_up
        self.wasted = inner.wasted
        inner.follow_up = None
        return b"".join([self._hider.event(event) for event in split_events(events)])


def hide_whole(hider: ReasoningHider, body: bytes) -> bytes:
    """A plain answer without its reasoning; `BadUpstreamResponse` for one in which that cannot be found."""
    answer = load_json(body)
    if not isinstance(answer, dict):
        raise _not_to_hide()
    return dump(hider.whole(answer))


class ChatHider(ReasoningHider):
    """Chat: `reasoning` (older nodes: `reasoning_content`) beside the content."""

    def event(self, event: bytes) -> bytes:
        if b'"reasoning' not in event:
            return event
        chunk = _parse(event)
        choices = [choice for choice in chunk.get("choices") or () if isinstance(choice, dict)]
        hidden = [choice for choice in choices if _take_reasoning(choice, "delta")]
        if not hidden:
            return event
        chunk["choices"] = [choice for choice in choices if choice not in hidden or _still_says(choice)]
        return _write(event, chunk) if chunk["choices"] else b""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer.get("choices") or ():
            _take_reasoning(choice, "message")
        return answer


def _take_reasoning(choice: dict[str, Any], place: str) -> bool:
    """Take the reasoning out of a choice; False where there was none."""
    message = choice.get(place)
    said = [name for name in _FIELDS if isinstance(message, dict) and message.get(name)]
    for name in said:
        assert isinstance(message, dict)
        if place == "delta":
            del message[name]
        else:
            message[name] = None
    if said:
        for name in _SPELLED_OUT:
            if name in choice:
                choice[name] = None
    return bool(said)


def _still_says(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("finish_reason")) or any(value not in (None, "", []) for value in delta.values())


class MessagesHider(ReasoningHider):
    """Messages: thinking is a block of its own; the blocks behind it move up."""

    def __init__(self) -> None:
        self._hidden: set[int] = set()

    def event(self, event: bytes) -> bytes:
        if b'"content_block' not in event:
            return event
        parsed = _parse(event)
        index = parsed.get("index")
        if type(index) is not int:
            raise _not_to_hide()
        block = parsed.get("content_block")
        if isinstance(block, dict) and block.get("type") in _THINKING:
            self._hidden.add(index)
        if index in self._hidden:
            return b""
        return _write(event, {**parsed, "index": _moved_up(index, self._hidden)}) if self._hidden else event

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        blocks = answer.get("content")
        if isinstance(blocks, list):
            answer["content"] = [block for block in blocks if block.get("type") not in _THINKING]
        return answer


class ResponsesHider(ReasoningHider):
    """Responses: reasoning is an item of its own; items and events behind it move up."""

    def __init__(self) -> None:
        self._hidden: set[int] = set()
        self._dropped = 0

    def event(self, event: bytes) -> bytes:
        parsed = _parse(event)
        index, item, response = parsed.get("output_index"), parsed.get("item"), parsed.get("response")
        if isinstance(item, dict) and item.get("type") == "reasoning" and type(index) is int:
            self._hidden.add(index)
        if index in self._hidden or str(parsed.get("type", "")).startswith("response.reasoning"):
            self._dropped += 1
            return b""
        if not self._dropped:
            return event
        if type(index) is int:
            parsed["output_index"] = _moved_up(index, self._hidden)
        if isinstance(response, dict):
            parsed["response"] = self.whole(response)
        if type(parsed.get("sequence_number")) is int:
            parsed["sequence_number"] -= self._dropped
        return _write(event, parsed) if parsed else event

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        items = answer.get("output")
        if isinstance(items, list):
            answer["output"] = [item for item in items if item.get("type") != "reasoning"]
        return answer


class NoHider(ReasoningHider):
    """Completions are raw text: where thinking ends in it is known to the prompt's author alone."""

    def event(self, event: bytes) -> bytes:
        return event

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer


def hider_of(dialect: Dialect) -> ReasoningHider:
    """A fresh hider for one answer in `dialect`."""
    hiders: dict[str, type[ReasoningHider]] = {
        "chat": ChatHider,
        "messages": MessagesHider,
        "responses": ResponsesHider,
    }
    return hiders.get(dialect.name, NoHider)()


def _moved_up(index: int, hidden: set[int]) -> int:
    return index - sum(1 for other in hidden if other < index)


def _parse(event: bytes) -> dict[str, Any]:
    """An event that may carry reasoning: one that cannot be read is not shown."""
    data = event_data(event)
    parsed = load_json(data)
    if isinstance(parsed, dict):
        return parsed
    if not data or data == DONE:
        return {}
    raise _not_to_hide()


def _not_to_hide() -> BadUpstreamResponse:
    return BadUpstreamResponse("The node sent an answer in which its reasoning, which is left out, cannot be told.")


def _write(event: bytes, parsed: dict[str, Any]) -> bytes:
    """The event again with other data, its name (`event:` line) kept."""
    lines = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    return b"\n".join([*lines, b"data: " + dump(parsed), b"", b""])
