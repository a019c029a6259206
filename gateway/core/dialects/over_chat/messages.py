"""`/v1/messages` over chat: the request, and the plain answer."""

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.fields import optional, refuse, required, required_count
from gateway.core.dialects.over_chat.base import OverChat, pass_others, reasoning_of
from gateway.core.dialects.over_chat.messages_events import (
    MessageEvents,
    anthropic_error,
    anthropic_usage,
    signature,
    stop_of,
)
from gateway.core.dialects.over_chat.messages_history import chat_history
from gateway.core.dialects.over_chat.messages_tools import chat_tools, choose_tool
from gateway.core.errors import UpstreamError
from gateway.core.json_text import load_exact_object

_UNDERSTOOD = frozenset(
    {
        "max_tokens",
        "messages",
        "output_config",
        "stop_sequences",
        "stream",
        "stream_options",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
_UNHEEDED = frozenset(
    {
        "container",
        "context_management",
        "include_reasoning",
        "inference_geo",
        "mcp_servers",
        "metadata",
        "service_tier",
        "stop",
    }
)
"""Fields that nodes ignore in messages, and one that the gateway applies itself (see `OverChat.hide`)."""

_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class MessagesOverChat(OverChat):
    """Anthropic's messages as chat."""

    __slots__ = ()

    own_names: ClassVar = {
        "max_completion_tokens": "max_tokens",
        "reasoning_effort": "output_config.effort",
        "response_format": "output_config.format",
        "stop": "stop_sequences",
        "thinking_token_budget": "thinking.budget_tokens",
    }

    def stream_filter(self) -> MessageEvents:
        return MessageEvents(self.hide)

    def answer(self, chat: Mapping[str, Any]) -> Body:
        choice = chat["choices"][0]
        message = choice["message"]
        calls = [_tool_use(call) for call in message.get("tool_calls") or ()]
        whole = bool(calls) and all(call["input"] is not None for call in calls)
        reason, sequence = stop_of(choice.get("finish_reason"), choice.get("stop_reason"), bool(calls), whole)
        if reason == "tool_use" and not whole:
            raise UpstreamError("The node called a tool with arguments that are not JSON; retry.")
        blocks = [*_texts(message, chat.get("id", "")), *({**call, "input": call["input"] or {}} for call in calls)]
        return {
            "id": chat.get("id"),
            "type": "message",
            "role": "assistant",
            "content": blocks or [{"type": "text", "text": ""}],
            "model": chat.get("model"),
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": anthropic_usage(chat.get("usage") or {}),
        }

    def error(self, status: int, error: Mapping[str, Any]) -> Body:
        return anthropic_error(error.get("message"), status)


def messages_over_chat(body: Body) -> MessagesOverChat:
    """The translation of a request. Raises `InvalidRequest` for a field that has no counterpart."""
    chat = pass_others(body, _UNDERSTOOD | _UNHEEDED)
    chat["messages"] = chat_history(body)
    chat["max_tokens"] = required_count(body, "max_tokens")
    if body.get("stop_sequences") is not None:
        chat["stop"] = required(body, "stop_sequences", list)
    if body.get("stream"):
        # With usage in every chunk the first one has the prompt's length, which message_start needs.
        chat |= {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    tools = chat_tools(body)
    chat |= tools | choose_tool(body, bool(tools)) | _thinking(body) | _output(body)
    return MessagesOverChat(chat)


def _thinking(body: Body) -> Body:
    """Effort and thinking; `disabled` wins over an effort."""
    fields: Body = {}
    effort = optional(optional(body, "output_config", dict) or {}, "effort", str, "output_config")
    if effort is not None:
        if effort not in _EFFORTS:
            raise refuse("output_config.effort", f"send one of {', '.join(_EFFORTS)}.")
        fields["reasoning_effort"] = effort
    thinking = optional(body, "thinking", dict)
    if thinking is None:
        return fields
    kind = required(thinking, "type", str, "thinking")
    if kind == "enabled":
        fields["thinking_token_budget"] = required_count(thinking, "budget_tokens", "thinking")
    elif kind == "disabled":
        fields["reasoning_effort"] = "none"
    elif kind != "adaptive":
        raise refuse("thinking.type", "send enabled, disabled or adaptive.")
    return fields


def _output(body: Body) -> Body:
    """`output_config.format`: an answer held to a JSON schema."""
    form = optional(optional(body, "output_config", dict) or {}, "format", dict, "output_config")
    if form is None:
        return {}
    where = "output_config.format"
    if form.get("type", "json_schema") != "json_schema":
        raise refuse(f"{where}.type", "send json_schema.")
    schema = optional(form, "schema", dict, where)
    if not schema:
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "json_schema", "schema": schema}}}


def _texts(message: Mapping[str, Any], chat_id: str) -> list[Body]:
    blocks = []
    reasoning = reasoning_of(message)
    if reasoning:
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": signature(chat_id, 0)})
    if message.get("content"):
        blocks.append({"type": "text", "text": message["content"]})
    return blocks


def _tool_use(call: Mapping[str, Any]) -> Body:
    """A tool call; its `input` is None where the arguments were cut."""
    function = call["function"]
    return {
        "type": "tool_use",
        "id": call.get("id"),
        "name": function.get("name"),
        "input": load_exact_object(function.get("arguments") or "{}"),
    }
