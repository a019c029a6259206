"""vLLM's error answers, word for word where a client may look.

Three shapes: `{"error": {message, type, param, code}}` (OpenAI's, with an int code), `{"type": "error", "error": {type,
message}}` (messages, for what its own code refuses; a malformed body comes in the first shape there too), and
`{"detail": ...}` of the router.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

_MOST_ERRORS = 10
_MOST_INPUT = 200
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Anthropic's error types by status, told since vLLM 0.33; others are `api_error` or `invalid_request_error`."""

_PHRASES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 503: "ServiceUnavailableError"}


class Refusal(Exception):
    """A request that is answered with an error. `kind` is vLLM's name for the type."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, kind: str | None = None, malformed: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.kind = kind or _PHRASES.get(status, "InternalServerError")
        self.malformed = malformed


def invalid(message: str, param: str | None = None, value: Any = None) -> Refusal:
    """A 400 of vLLM's own checks; parameter and value are told in the message, as vLLM does."""
    extras = [f"parameter={param}"] if param is not None else []
    extras += [f"value={value}"] if value is not None else []
    return Refusal(400, f"{message} ({', '.join(extras)})" if extras else message, param=param)


def unknown_model(model: str, served: Sequence[str]) -> Refusal:
    """404 for a model that the node does not serve."""
    aliases = ", ".join(served)
    text = f"The model `{model}` does not exist. Valid aliases: {aliases}."
    return Refusal(404, text, param="model")


def malformed(entries: Sequence[Mapping[str, Any] | str], param: str | None = None) -> Refusal:
    """A body that does not fit its model: pydantic's errors, one a line."""
    lines = [e if isinstance(e, str) else _entry(e) for e in entries[:_MOST_ERRORS]]
    label = "error" if len(entries) == 1 else "errors"
    more = [f"  ...and {len(entries) - _MOST_ERRORS} more {label}"] if len(entries) > _MOST_ERRORS else []
    text = "\n".join([f"{len(entries)} validation {label}:", *(f"  {line}" for line in lines), *more])
    if param is None and not isinstance(entries[0], str):
        param = _place(entries[0]["loc"])
    return Refusal(400, text, param=param, kind="Bad Request", malformed=True)


def from_pydantic(error: ValidationError) -> Refusal:
    """The same from what pydantic raised."""
    entries = error.errors(include_url=False)
    return malformed([{**e, "loc": ("body", *e["loc"])} for e in entries])


def bad_json(error: json.JSONDecodeError) -> Refusal:
    """400 for a body that is not JSON."""
    entry = {
        "type": "json_invalid",
        "loc": ("body", error.pos),
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": error.msg},
    }
    return malformed([entry])


def _place(loc: Sequence[Any]) -> str:
    shown = [str(p) for p in loc if not any(c in "[](){}" for c in str(p))]
    return ".".join(p for p in shown if p not in ("str", "int", "float", "bool", "list", "dict", "nullable"))


def _entry(entry: Mapping[str, Any]) -> str:
    shown = {k: v for k, v in entry.items() if k != "ctx"}
    shown["loc"] = _place(entry["loc"])
    shown["input"] = _brief(entry.get("input"))
    if "ctx" in entry:
        shown["ctx"] = entry["ctx"]
    return str(shown)


def _brief(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= _MOST_INPUT else text[:_MOST_INPUT] + "...[truncated]"


def openai_error(refusal: Refusal) -> dict[str, Any]:
    """The body of an error in OpenAI's shape."""
    body = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.status}
    return {"error": body}


def anthropic_error(refusal: Refusal, *, translated: bool = False) -> dict[str, Any]:
    """The body of an error in Anthropic's shape; `translated`: with Anthropic's names for the types, not vLLM's."""
    other = "api_error" if refusal.status >= 500 else "invalid_request_error"
    kind = _ANTHROPIC.get(refusal.status, other) if translated else refusal.kind
    return {"type": "error", "error": {"type": kind, "message": refusal.message}}


def stream_error(message: str) -> bytes:
    """The event with which a stream breaks; vLLM writes it with spaces."""
    return b"data: " + json.dumps(openai_error(Refusal(500, message))).encode() + b"\n\n"
