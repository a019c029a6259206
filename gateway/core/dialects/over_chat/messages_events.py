"""A chat stream as Anthropic's events.

message_start, then blocks (content_block_start, deltas, content_block_stop) one after the other, then message_delta
with the stop reason and the usage, then message_stop.
"""

from collections.abc import Mapping
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.over_chat.stream import ChatStream, derived_id
from gateway.core.json_text import load_object

_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Error types by HTTP status; others are `invalid_request_error` or `api_error`."""


class MessageEvents(ChatStream):
    """Writes blocks."""

    __slots__ = ("_block", "_index")

    def __init__(self, hide: bool) -> None:
        super().__init__(hide)
        self._index = 0
        self._block: str | None = None

    def begin(self, chunk: Mapping[str, Any]) -> None:
        message: Body = {
            "id": self.chat_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": chunk.get("model"),
            "stop_reason": None,
            "stop_sequence": None,
            "usage": anthropic_usage(self.used),
        }
        self.emit("message_start", {"type": "message_start", "message": message})

    def reason(self, text: str) -> None:
        if self._block != "thinking":
            self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._delta({"type": "thinking_delta", "thinking": text})

    def speak(self, text: str, choice: Mapping[str, Any]) -> None:
        if self._block != "text":
            self._open("text", {"type": "text", "text": ""})
        self._delta({"type": "text_delta", "text": text})

    def begin_call(self, call_id: str, name: str) -> None:
        self._open("tool_use", {"type": "tool_use", "id": call_id, "name": name, "input": {}})

    def go_on_calling(self, arguments: str) -> None:
        if self._block != "tool_use":
            self.fail("The node sent a tool call delta out of order.")
            return
        self._delta({"type": "input_json_delta", "partial_json": arguments})

    def end(self) -> None:
        self._close()
        called = self._call is not None
        complete = self._call is not None and load_object(self._call.arguments or "{}") is not None
        reason, sequence = stop_of(self.finish_reason, self.stop_reason, called, complete)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        self.emit("message_delta", {"type": "message_delta", "delta": delta, "usage": anthropic_usage(self.used)})
        self.emit("message_stop", {"type": "message_stop"})

    def complain(self, message: str, status: int) -> None:
        self.emit("error", anthropic_error(message, status))

    def _open(self, kind: str, block: Body) -> None:
        self._close()
        self._block = kind
        self.emit("content_block_start", {"type": "content_block_start", "content_block": block, "index": self._index})

    def _delta(self, delta: Body) -> None:
        self.emit("content_block_delta", {"type": "content_block_delta", "delta": delta, "index": self._index})

    def _close(self) -> None:
        """Close the open block."""
        if self._block is None:
            return
        if self._block == "thinking":
            self._delta({"type": "signature_delta", "signature": signature(self.chat_id, self._index)})
        self.emit("content_block_stop", {"type": "content_block_stop", "index": self._index})
        self._index += 1
        self._block = None


def anthropic_error(message: object, status: int) -> Body:
    """An error in Anthropic's format."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def stop_of(finish: str | None, stop: int | str | None, called: bool, complete: bool) -> tuple[str | None, str | None]:
    """`stop_reason` and `stop_sequence`.

    A tool call that a stop sequence cut (`called`, not `complete`) must not run: its reason is the sequence. `stop` is
    a text for a stop sequence, a number for a token that ends the answer.
    """
    if finish == "length":
        return "max_tokens", None
    if finish not in ("stop", "tool_calls"):
        return None, None
    if complete:
        return "tool_use", None
    if isinstance(stop, str):
        return "stop_sequence", stop
    if called or finish == "tool_calls":
        return "tool_use", None
    return "end_turn", None


def anthropic_usage(usage: Mapping[str, Any]) -> Body:
    """Chat's usage in Anthropic's format, whose `input_tokens` leave out tokens read from or written to the cache."""
    details = usage.get("prompt_tokens_details") or {}
    counts: Body = {"input_tokens": 0, "output_tokens": usage.get("completion_tokens") or 0}
    cached = 0
    for name, source in (
        ("cache_read_input_tokens", "cached_tokens"),
        ("cache_creation_input_tokens", "created_cache_tokens"),
    ):
        if details.get(source) is not None:
            counts[name] = details[source]
            cached += details[source]
    counts["input_tokens"] = max(0, (usage.get("prompt_tokens") or 0) - cached)
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    if thought is not None:
        counts["output_tokens_details"] = {"thinking_tokens": thought}
    return counts


def signature(chat_id: str, block: int) -> str:
    """The signature of a thinking block. Clients have to send it back; the gateway does not check it."""
    return derived_id("", chat_id, block)
