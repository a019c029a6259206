"""What an answer was seen to hold: the events of a stream, read as the client reads them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.connect.client import SpokenDialect, at


@dataclass(slots=True)
class Seen:
    """Characters of thinking and of text, the tools that were called, how the stream ended."""

    thinking: int = 0
    text: int = 0
    calls: list[str] = field(default_factory=list)
    ended: bool = False
    error: str = ""
    output_tokens: int | None = None


def read_stream(lines: Iterable[str], dialect: SpokenDialect) -> Seen:
    """What the lines of an event stream hold."""
    seen = Seen()
    reader = {"chat": _chat, "messages": _messages, "responses": _responses}[dialect]
    for event in _events(lines):
        if event is None:
            seen.ended = seen.ended or dialect == "chat"
        elif isinstance(error := event.get("error"), dict):
            seen.error = str(error.get("message") or error)
        else:
            reader(event, seen)
    return seen


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any] | None]:
    """The events that are JSON objects; None for `[DONE]`."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            yield None
            continue
        try:
            event = json.loads(data)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _chat(event: dict[str, Any], seen: Seen) -> None:
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = at(choice, "delta") or {}
        seen.thinking += len(delta.get("reasoning") or delta.get("reasoning_content") or "")
        seen.text += len(delta.get("content") or "")
        for call in delta.get("tool_calls") or ():
            if name := at(call, "function", "name"):
                seen.calls.append(str(name))
    _count(seen, at(event, "usage", "completion_tokens"))


def _messages(event: dict[str, Any], seen: Seen) -> None:
    kind, delta = event.get("type"), event.get("delta") or {}
    if kind == "content_block_start" and at(event, "content_block", "type") == "tool_use":
        seen.calls.append(str(at(event, "content_block", "name")))
    elif kind == "content_block_delta":
        seen.thinking += len(delta.get("thinking") or "")
        seen.text += len(delta.get("text") or "")
    elif kind == "message_delta":
        _count(seen, at(event, "usage", "output_tokens"))
    elif kind == "message_stop":
        seen.ended = True


def _responses(event: dict[str, Any], seen: Seen) -> None:
    kind = event.get("type")
    if kind == "response.output_item.added" and at(event, "item", "type") == "function_call":
        seen.calls.append(str(at(event, "item", "name")))
    elif kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
        seen.thinking += len(event.get("delta") or "")
    elif kind == "response.output_text.delta":
        seen.text += len(event.get("delta") or "")
    elif kind in ("response.completed", "response.incomplete"):
        seen.ended = True
        _count(seen, at(event, "response", "usage", "output_tokens"))
    elif kind in ("error", "response.failed"):
        seen.error = str(event.get("message") or at(event, "response", "error", "message") or kind)


def _count(seen: Seen, tokens: Any) -> None:
    if isinstance(tokens, int):
        seen.output_tokens = tokens
