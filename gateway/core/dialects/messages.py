"""`/v1/messages`: Anthropic's format. Usage comes in the first event and again, complete, near the end."""

from typing import Any

from gateway.core.bodies import dump
from gateway.core.dialects.base import Ask, Dialect, ErrorShape, Fault, find_usage
from gateway.core.dialects.watch import EventWatch
from gateway.core.usage import Usage, from_anthropic

_TYPES = {
    Fault.INVALID: "invalid_request_error",
    Fault.NOT_FOUND: "not_found_error",
    Fault.TOO_LARGE: "request_too_large",
    Fault.AUTHENTICATION: "authentication_error",
    Fault.PERMISSION: "permission_error",
    Fault.TIMEOUT: "timeout_error",
    Fault.OVERLOADED: "overloaded_error",
    Fault.INTERNAL: "api_error",
}


def anthropic_error(shape: ErrorShape) -> bytes:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
    error = {"type": _TYPES[shape.fault], "message": shape.message}
    return dump({"type": "error", "error": error, "request_id": shape.request_id})


class MessageWatch(EventWatch):
    """`message_start`, blocks, `message_delta` with usage, `message_stop`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__((b'"usage"', b'"message_stop"', b'"error"'))

    def look(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        kind = parsed.get("type")
        if kind == "error":
            self.failed = True
        elif kind == "message_stop":
            self.ended = True
        message = parsed.get("message")
        usage = parsed.get("usage") or (message.get("usage") if isinstance(message, dict) else None)
        if isinstance(usage, dict):
            self.usage = from_anthropic(usage, self.usage)
        return event


class Messages(Dialect):
    """Anthropic's messages, as vLLM serves them."""

    name = "messages"
    path = "/v1/messages"

    def watch(self, ask: Ask) -> EventWatch:
        return MessageWatch()

    def usage(self, answer: bytes) -> Usage | None:
        found = find_usage(answer)
        return None if found is None else from_anthropic(found)

    def error(self, shape: ErrorShape) -> bytes:
        return anthropic_error(shape)

    def error_event(self, shape: ErrorShape) -> bytes:
        return b"event: error\ndata: " + anthropic_error(shape) + b"\n\n"


class CountTokens(Messages):
    """How long a message would be; the answer is one number."""

    name = "count_tokens"
    path = "/v1/messages/count_tokens"
