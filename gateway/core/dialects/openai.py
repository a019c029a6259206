"""What OpenAI's formats share: the shape of an error."""

from gateway.core.bodies import dump
from gateway.core.dialects.base import ErrorShape, Fault

_TYPES = {
    Fault.INVALID: "invalid_request_error",
    Fault.NOT_FOUND: "invalid_request_error",
    Fault.TOO_LARGE: "invalid_request_error",
    Fault.AUTHENTICATION: "authentication_error",
    Fault.PERMISSION: "permission_error",
    Fault.TIMEOUT: "timeout_error",
    Fault.RATE_LIMIT: "rate_limit_error",
    Fault.OVERLOADED: "overloaded_error",
    Fault.INTERNAL: "server_error",
}


def openai_error(shape: ErrorShape) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return dump(
        {
            "error": {
                "message": shape.message,
                "type": _TYPES[shape.fault],
                "param": shape.param,
                "code": shape.code,
            }
        }
    )


def openai_error_event(shape: ErrorShape) -> bytes:
    """An error inside a chat or completions stream. No `[DONE]` follows: the stream did not end well."""
    return b"data: " + openai_error(shape) + b"\n\n"
