"""Errors as the public formats know them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class ErrorKind(Enum):
    """The kinds of errors that OpenAI's and Anthropic's formats both name."""

    INVALID = "invalid"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """An error that a client is told, independent of its dialect. `facts`: fields for programs, beside its code,
    that only this error has."""

    message: str
    fault: ErrorKind
    status: int
    code: str | None
    param: str | None
    request_id: str
    facts: Mapping[str, object] = field(default_factory=dict)
