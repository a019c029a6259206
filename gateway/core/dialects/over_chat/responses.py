"""`/v1/responses` over chat: the request, and the plain answer.

Chat stores nothing on the node. Where the gateway keeps responses, what a request builds on was put in its place when
it was read (`gateway.responses`), and its answer completes a `KeptTurn`. Elsewhere the answer says `store: false`, and
a request that builds on stored state is refused.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.fields import count, expect, optional, refuse
from gateway.core.dialects.over_chat.base import OverChat, pass_others
from gateway.core.dialects.over_chat.responses_events import ResponseEvents
from gateway.core.dialects.over_chat.responses_history import chat_history
from gateway.core.dialects.over_chat.responses_object import ResponseForm, items_of
from gateway.core.dialects.over_chat.responses_tools import ResponseTools, ToolNames
from gateway.core.dialects.over_chat.stream import ChatStream
from gateway.core.json_text import dump
from gateway.core.responses.kept_turn import KeptTurn

_UNDERSTOOD = frozenset(
    {
        "background",
        "enable_response_messages",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "previous_response_id",
        "prompt",
        "reasoning",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)
_UNHEEDED = frozenset(
    {
        "conversation",
        "max_tool_calls",
        "metadata",
        "previous_input_messages",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
    }
)
"""Fields that do not change what a node generates. Those that a response repeats are repeated."""

_STATE = {
    "background": "nodes run in the background only what they store. Remove it.",
    "enable_response_messages": "over chat there are no such messages. Remove it.",
    "previous_response_id": "nodes store nothing over chat, and a response that a node stores cannot go on over chat. "
    "Send the conversation so far as input items; with redis.url and response_secret the gateway keeps responses.",
    "prompt": "nodes have no prompt templates. Send instructions and input.",
}

_INCLUDES = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
_LOGPROBS = "message.output_text.logprobs"

_RUN_BY_NODES = ("code_interpreter", "container", "mcp", "web_search_preview")
"""Tools that a node with a tool server runs by itself, in responses alone."""


class ResponsesOverChat(OverChat):
    """OpenAI's responses as chat."""

    __slots__ = ("_form", "names")

    own_names: ClassVar = {
        "logprobs": "include",
        "max_completion_tokens": "max_output_tokens",
        "max_tokens": "max_output_tokens",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
    }

    def __init__(self, chat: Body, form: ResponseForm, names: ToolNames) -> None:
        super().__init__(chat)
        self._form = form
        self.names = names

    def keep(self, kept: KeptTurn | None, previous: str | None) -> KeptTurn | None:
        self._form.keep(kept, previous)
        return kept

    def stream_filter(self) -> ChatStream:
        return ResponseEvents(self.hide, self._form, self.names)

    def answer(self, chat: Mapping[str, Any]) -> Body:
        choice = chat["choices"][0]
        output = items_of(choice, chat.get("id", ""), self._form, self.names)
        response = self._form.ended(chat, choice.get("finish_reason"), output, chat.get("usage") or {})
        if self._form.kept is not None:
            self._form.kept.complete(response, dump)
        return response

    def error(self, status: int, error: Mapping[str, Any]) -> Body:
        param = error.get("param")
        return {"error": {**error, "param": self.own_names.get(param, param) if isinstance(param, str) else param}}


def responses_over_chat(body: Body) -> ResponsesOverChat:
    """The translation of a request. Raises `InvalidRequest` for a field that has no counterpart."""
    for name, remedy in _STATE.items():
        if body.get(name) is not None and body[name] is not False:
            raise refuse(name, remedy)
    chat = pass_others(body, _UNDERSTOOD | _UNHEEDED)
    if body.get("structured_outputs") is not None:
        chat["structured_outputs"] = body["structured_outputs"]
    chat["messages"], continues = chat_history(body)
    if continues:
        chat |= {"add_generation_prompt": False, "continue_final_message": True}
    limit = count(body, "max_output_tokens")
    if limit is not None:
        chat["max_tokens"] = limit
    if body.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if body.get("truncation") == "auto":
        chat["truncate_prompt_tokens"] = -1
    effort = optional(optional(body, "reasoning", dict) or {}, "effort", str, "reasoning")
    if effort is not None:
        chat["reasoning_effort"] = effort
    tools = ResponseTools(body)
    chat |= tools.chat | _format(body) | _logprobs(body)
    over = ResponsesOverChat(chat, ResponseForm(body, tools.choice), tools.names)
    over.same_prompt = tools.as_declared
    over.loses_work = bool(body.get("previous_input_messages")) or any(
        tool.get("type") in _RUN_BY_NODES for tool in body.get("tools") or ()
    )
    return over


def _format(body: Body) -> Body:
    """`text.format` as `response_format`."""
    form = optional(optional(body, "text", dict) or {}, "format", dict, "text")
    kind = (form or {}).get("type", "text")
    if form is None or kind == "text":
        return {}
    if body.get("structured_outputs") is not None:
        raise refuse("structured_outputs", "text.format sets it too. Send one of the two.")
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind != "json_schema":
        raise refuse("text.format.type", "send text, json_object or json_schema.")
    schema = {name: form[name] for name in ("name", "schema", "strict", "description") if form.get(name) is not None}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _logprobs(body: Body) -> Body:
    include = optional(body, "include", list) or []
    for index, name in enumerate(include):
        if expect(name, str, f"include.{index}") not in _INCLUDES:
            raise refuse(f"include.{index}", f"{name!r} is not known.")
    if _LOGPROBS not in include:
        return {}
    return {"logprobs": True, "top_logprobs": count(body, "top_logprobs") or 0}
