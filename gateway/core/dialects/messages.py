"""`/v1/messages`: Anthropic's format. Usage comes in the first event and again, complete, near the end."""

import re
from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.answers import find_usage
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.carrying import carry_effort, carry_switch
from gateway.core.dialects.error_shape import ErrorKind, ErrorShape
from gateway.core.dialects.messages_fields import has_format, known_to_nodes
from gateway.core.dialects.over_chat import OverChat, messages_over_chat
from gateway.core.dialects.stream_filter import MarkerFilter, StreamFilter, gave_up
from gateway.core.json_text import dump
from gateway.core.thinking.grant import Grant
from gateway.core.usage.token_usage import Usage, from_anthropic

_TYPES = {
    ErrorKind.INVALID: "invalid_request_error",
    ErrorKind.NOT_FOUND: "not_found_error",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.AUTHENTICATION: "authentication_error",
    ErrorKind.PERMISSION: "permission_error",
    ErrorKind.TIMEOUT: "timeout_error",
    ErrorKind.RATE_LIMIT: "rate_limit_error",
    ErrorKind.OVERLOADED: "overloaded_error",
    ErrorKind.INTERNAL: "api_error",
}

_MESSAGE = re.compile(rb'"type"\s*:\s*"message"')
_STOP_REASON = re.compile(rb'"stop_reason"\s*:\s*"')

_CONFIG_SINCE = (0, 32)
"""The first version of vLLM that is known to read `output_config`; 0.22 ignores it."""

MIN_BUDGET = 1024
"""The smallest budget in tokens that vLLM takes in this dialect."""


def anthropic_error(shape: ErrorShape) -> bytes:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`; in the inner one also an error's own facts, and
    its code beside those."""
    error: dict[str, object] = {"type": _TYPES[shape.fault], "message": shape.message}
    if shape.facts:
        error |= {"code": shape.code, **shape.facts}
    return dump({"type": "error", "error": error, "request_id": shape.request_id})


class MessagesFilter(MarkerFilter):
    """Filters `message_start`, blocks, `message_delta` with usage, `message_stop`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__((b'"usage"', b'"message_stop"', b'"error"'))

    def inspect(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        kind = parsed.get("type")
        if kind == "error":
            self.failed = True
        elif kind == "message_stop":
            self.ended = True
        elif kind == "message_delta":
            delta = parsed.get("delta")
            if isinstance(delta, dict) and delta.get("stop_reason", "") is None:
                raise gave_up()
        message = parsed.get("message")
        usage = parsed.get("usage") or (message.get("usage") if isinstance(message, dict) else None)
        if isinstance(usage, dict):
            self.usage = from_anthropic(usage, self.usage)
        return event


class Messages(Dialect):
    """Anthropic's messages, as vLLM serves them."""

    name = "messages"
    path = "/v1/messages"
    templated = True
    anthropic = True
    adapts = True
    budget_since = (0, 32)  # 0.22 ignores both
    salt_since = (0, 32)
    output_fields: ClassVar[tuple[str, ...]] = ("max_tokens",)
    heeds = frozenset(
        {
            "chat_template_kwargs.enable_thinking",
            "chat_template_kwargs.low_effort",
            "thinking.type",
            "thinking.budget_tokens",
            "output_config.effort",
        }
    )

    def adapt(self, body: Body) -> Body:
        return known_to_nodes(body)

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        if (ask.intent.effort is not None and not ask.intent.low) or has_format(ask.body):
            ask.taken_since = _CONFIG_SINCE
        return ask

    def carry(self, body: Body, grant: Grant) -> dict[str, Any]:
        return {
            **carry_switch(body, grant),
            **carry_effort(body, "output_config.effort", grant),
            **_carry_thinking(body, grant),
        }

    def carries(self, grant: Grant) -> bool:
        """A budget here is at least 1,024 and below `max_tokens`."""
        budget = grant.thinking_budget
        if grant.thinking is False or budget is None:
            return True
        return budget >= MIN_BUDGET and (grant.max_tokens is None or budget < grant.max_tokens)

    def over_chat(self, body: Body) -> OverChat | None:
        return messages_over_chat(body)

    def stream_filter(self, ask: Ask) -> StreamFilter:
        return MessagesFilter()

    def gave_up(self, answer: bytes) -> bool:
        """Whether a message has no stop reason."""
        return _STOP_REASON.search(answer) is None and _MESSAGE.search(answer) is not None

    def usage(self, answer: bytes) -> Usage | None:
        found = find_usage(answer)
        return None if found is None else from_anthropic(found)

    def error(self, shape: ErrorShape) -> bytes:
        return anthropic_error(shape)

    def error_event(self, shape: ErrorShape, number: int) -> bytes:
        return b"event: error\ndata: " + anthropic_error(shape) + b"\n\n"


def _carry_thinking(body: Body, grant: Grant) -> dict[str, Any]:
    """The `thinking` object: off, a budget, or `adaptive` where a client's own is taken back.

    A budget that this dialect cannot express is rounded up; `Messages.carries` is then False.
    """
    given = body.get("thinking")
    wanted: Any = given
    if grant.thinking is False:
        wanted = given and {"type": "disabled"}
    elif grant.thinking_budget is not None:
        wanted = {"type": "enabled", "budget_tokens": max(MIN_BUDGET, grant.thinking_budget)}
        if given and "display" in given:
            wanted["display"] = given["display"]
        if grant.max_tokens is not None and wanted["budget_tokens"] >= grant.max_tokens:
            wanted = given and {"type": "adaptive"}
    elif given and given.get("type") == "disabled" and grant.thinking:
        wanted = {"type": "adaptive"}
    return {} if wanted == given else {"thinking": wanted}


class CountTokens(Messages):
    """Counts the tokens of a message; the answer is one number."""

    name = "count_tokens"
    takes_salt = False
    path = "/v1/messages/count_tokens"
    computes = False
    output_fields = ()

    def over_chat(self, body: Body) -> OverChat | None:
        return None
