"""Hides the reasoning of an answer, where the operator or the client wants it left out.

The node thinks all the same, and its usage stays. Events with reasoning are written anew, and in messages and responses
those behind them, whose numbers move up; all others pass as they came. Token ids and logprobs beside reasoning are
hidden with it, since they spell it out.

vLLM's own `include_reasoning: false` would cost nothing, but takes thinking for ended: a grammar then begins with the
thinking instead of the answer.
"""

import re
from abc import ABC, abstractmethod
from typing import Any

from gateway.core.dialects.base import Dialect
from gateway.core.dialects.responses import NUMBER, number_behind
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import BadUpstreamResponse
from gateway.core.http.sse import DONE, event_data, split_events
from gateway.core.json_text import dump, load_json

_FIELDS = ("reasoning", "reasoning_content")
_SPELLED_OUT = ("logprobs", "token_ids")
_THINKING = ("thinking", "redacted_thinking")
_HAS_IDS = re.compile(rb'"token_ids"\s*:\s*\[')


class ReasoningHider(ABC):
    """Hides the reasoning of one answer in one dialect."""

    @abstractmethod
    def event(self, event: bytes) -> bytes:
        """The client's event for one of a stream; empty where all of it was reasoning."""

    @abstractmethod
    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The client's answer for a plain one."""

    def number_behind(self, events: bytes) -> int:
        """The number of the next event behind `events`, where they have numbers."""
        return 0


class HidingFilter(StreamFilter):
    """Hides the reasoning in the events that `inner` passes on."""

    __slots__ = ("_hider", "_inner", "_passed")

    def __init__(self, inner: StreamFilter, hider: ReasoningHider) -> None:
        super().__init__()
        self._inner = inner
        self._hider = hider
        self._passed = b""
        """The last events that were passed on and have numbers."""

    def feed(self, data: bytes) -> bytes:
        return self._hide(self._inner.feed(data))

    @property
    def thinks(self) -> bool | None:
        return self._inner.thinks

    @property
    def next_number(self) -> int:
        return self._hider.number_behind(self._passed)

    def flush(self) -> bytes:
        return self._hide(self._inner.flush())

    def _hide(self, events: bytes) -> bytes:
        inner = self._inner
        self.ended, self.failed, self.usage, self.follow_up = inner.ended, inner.failed, inner.usage, inner.follow_up
        self.wasted = inner.wasted
        inner.follow_up = None
        passed = b"".join([self._hider.event(event) for event in split_events(events)])
        if passed.find(NUMBER) >= 0:
            self._passed = passed
        return passed


def hide_whole(hider: ReasoningHider, body: bytes) -> bytes:
    """A plain answer without its reasoning. Raises `BadUpstreamResponse` for an answer that cannot be read."""
    answer = load_json(body)
    if not isinstance(answer, dict):
        raise _unreadable()
    return dump(hider.whole(answer))


class ChatHider(ReasoningHider):
    """Chat: `reasoning` (older nodes: `reasoning_content`) beside the content.

    Ids without text, as of half a character, are taken for those of reasoning until the answer has begun.
    """

    def __init__(self) -> None:
        self._answering: set[Any] = set()
        """The choices, by index, of which text or a tool call has come."""

    def event(self, event: bytes) -> bytes:
        if b'"reasoning' not in event and not _HAS_IDS.search(event):
            return event
        chunk = _parse(event)
        choices = [choice for choice in chunk.get("choices") or () if isinstance(choice, dict)]
        hidden = [choice for choice in choices if _take_reasoning(choice, "delta") | self._take_ids(choice)]
        if not hidden:
            return event
        chunk["choices"] = [choice for choice in choices if choice not in hidden or _has_more(choice)]
        return _write(event, chunk) if chunk["choices"] else b""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer.get("choices") or ():
            _take_reasoning(choice, "message")
        return answer

    def _take_ids(self, choice: dict[str, Any]) -> bool:
        """Take the ids without text out of a choice that has not begun its answer; False where there were none."""
        delta, index = choice.get("delta"), choice.get("index")
        if isinstance(delta, dict) and (delta.get("content") or delta.get("tool_calls")):
            self._answering.add(index if type(index) is int else None)
        if not choice.get("token_ids") or (index if type(index) is int else None) in self._answering:
            return False
        for name in _SPELLED_OUT:
            if name in choice:
                choice[name] = None
        return True


def _take_reasoning(choice: dict[str, Any], place: str) -> bool:
    """Take the reasoning out of a choice; False where there was none."""
    message = choice.get(place)
    fields = [name for name in _FIELDS if isinstance(message, dict) and message.get(name)]
    for name in fields:
        assert isinstance(message, dict)
        if place == "delta":
            del message[name]
        else:
            message[name] = None
    if fields:
        for name in _SPELLED_OUT:
            if name in choice:
                choice[name] = None
    return bool(fields)


def _has_more(choice: dict[str, Any]) -> bool:
    """Whether a choice says something besides its reasoning."""
    delta = choice.get("delta") or {}
    return bool(choice.get("finish_reason")) or any(value not in (None, "", []) for value in delta.values())


class MessagesHider(ReasoningHider):
    """Messages: thinking has blocks of its own; the blocks behind them move up."""

    def __init__(self) -> None:
        self._hidden: set[int] = set()

    def event(self, event: bytes) -> bytes:
        if b'"content_block' not in event:
            return event
        parsed = _parse(event)
        index = parsed.get("index")
        if type(index) is not int:
            raise _unreadable()
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
    """Responses: reasoning has items of its own; the items and events behind them move up. Of a stored stream, which
    begins anew, only the events behind the number `behind` are passed on."""

    def __init__(self, behind: int = -1) -> None:
        self._hidden: set[int] = set()
        self._dropped = 0
        self._behind = behind

    def event(self, event: bytes) -> bytes:
        parsed = _parse(event)
        index, item, response = parsed.get("output_index"), parsed.get("item"), parsed.get("response")
        if isinstance(item, dict) and item.get("type") == "reasoning" and type(index) is int:
            self._hidden.add(index)
        if index in self._hidden or str(parsed.get("type", "")).startswith("response.reasoning"):
            self._dropped += 1
            return b""
        number = parsed.get("sequence_number")
        if type(number) is int and number - self._dropped <= self._behind:
            return b""
        if not self._dropped:
            return event
        if type(index) is int:
            parsed["output_index"] = _moved_up(index, self._hidden)
        if isinstance(response, dict):
            parsed["response"] = self.whole(response)
        if type(number) is int:
            parsed["sequence_number"] = number - self._dropped
        return _write(event, parsed) if parsed else event

    def number_behind(self, events: bytes) -> int:
        return max(number_behind(events), self._behind + 1)

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        items = answer.get("output")
        if isinstance(items, list):
            answer["output"] = [item for item in items if item.get("type") != "reasoning"]
        return answer


class NoHider(ReasoningHider):
    """Completions and all others: raw text, in which only the prompt's author knows where thinking ends."""

    def event(self, event: bytes) -> bytes:
        return event

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer


_HIDERS: dict[str, type[ReasoningHider]] = {
    "chat": ChatHider,
    "messages": MessagesHider,
}
"""By the dialect's name."""


def hider_of(dialect: Dialect, behind: int = -1) -> ReasoningHider:
    """A new hider for one answer in `dialect`; `behind` as in `ResponsesHider`."""
    if dialect.name == "responses":
        return ResponsesHider(behind)
    return _HIDERS.get(dialect.name, NoHider)()


def _moved_up(index: int, hidden: set[int]) -> int:
    return index - sum(1 for other in hidden if other < index)


def _parse(event: bytes) -> dict[str, Any]:
    """The data of an event that may carry reasoning. Raises `BadUpstreamResponse` where it cannot be read."""
    data = event_data(event)
    parsed = load_json(data)
    if isinstance(parsed, dict):
        return parsed
    if not data or data == DONE:
        return {}
    raise _unreadable()


def _unreadable() -> BadUpstreamResponse:
    return BadUpstreamResponse("The reasoning in the node's answer must be hidden and cannot be identified.")


def _write(event: bytes, parsed: dict[str, Any]) -> bytes:
    """The event with other data; its `event:` line stays."""
    lines = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    return b"\n".join([*lines, b"data: " + dump(parsed), b"", b""])
