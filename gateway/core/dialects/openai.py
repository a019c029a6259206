"""The shape of errors in OpenAI's formats."""

from typing import Any

from gateway.core.dialects.error_shape import ErrorKind, ErrorShape
from gateway.core.json_text import dump

_TYPES = {
    ErrorKind.INVALID: "invalid_request_error",
    ErrorKind.NOT_FOUND: "invalid_request_error",
    ErrorKind.TOO_LARGE: "invalid_request_error",
    ErrorKind.AUTHENTICATION: "authentication_error",
    ErrorKind.PERMISSION: "permission_error",
    ErrorKind.TIMEOUT: "timeout_error",
    ErrorKind.RATE_LIMIT: "rate_limit_error",
    ErrorKind.OVERLOADED: "overloaded_error",
    ErrorKind.INTERNAL: "server_error",
}


def error_object(shape: ErrorShape) -> dict[str, Any]:
    """`{"message", "type", "param", "code"}`, and the error's own facts beside these."""
    return {
        "message": shape.message,
        "type": _TYPES[shape.fault],
        "param": shape.param,
        "code": shape.code,
        **shape.facts,
    }


def openai_error(shape: ErrorShape) -> bytes:
    """`{"error": ...}`, as a whole answer."""
    return dump({"error": error_object(shape)})


def openai_error_event(shape: ErrorShape) -> bytes:
    """An error in a chat or completions stream. No `[DONE]` follows it."""
    return b"data: " + openai_error(shape) + b"\n\n"
