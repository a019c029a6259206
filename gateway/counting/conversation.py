"""What vLLM hands to a chat template, out of a chat request: its messages, tools and arguments.

The rules are those of vLLM 0.32 (`renderers/chat_utils.py`, `entrypoints/openai/chat_completion/protocol.py`); earlier
versions differ in details that few prompts show. Nothing that is given is changed.
"""

import json
from typing import Any, NamedTuple

from gateway.core.bodies import Body

_TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Kinds of content that are text, and the member that holds it."""

_TEMPLATES_OWN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize"}
)
_UNUSUAL = ("chat_template", "truncate_prompt_tokens", "mm_processor_kwargs")


class NotCountable(Exception):
    """This prompt has to be estimated; the text says why."""


class Conversation(NamedTuple):
    """`arguments` are what else a template can name."""

    messages: list[Body]
    tools: list[Body] | None
    arguments: Body


def conversation_of(chat: Body, in_parts: bool) -> Conversation:
    """The conversation of a chat request's body. `in_parts`: the template wants all content as lists of parts.

    Raises `NotCountable` for images, for what replaces or cuts the prompt, and for what no node would take.
    """
    for name in _UNUSUAL:
        if chat.get(name) is not None:
            raise NotCountable(f"it has {name}")
    if chat.get("continue_final_message"):
        raise NotCountable("it continues its last message")
    messages = [_message(message, in_parts) for message in _list(chat.get("messages"))]
    tools = None if chat.get("tools") is None else [_tool(tool) for tool in _list(chat["tools"])]
    return Conversation(messages, tools, _arguments(chat))


def _arguments(chat: Body) -> Body:
    given = _dict(chat.get("chat_template_kwargs") or {})
    if not _TEMPLATES_OWN.isdisjoint(given):
        raise NotCountable("its chat_template_kwargs replace the prompt")
    effort = chat.get("reasoning_effort")
    own: Body = {
        "documents": chat.get("documents"),
        "add_generation_prompt": chat.get("add_generation_prompt", True),
        "reasoning_effort": effort,
    }
    if effort is not None and "enable_thinking" not in given:
        own["enable_thinking"] = effort != "none"
    return given | {name: value for name, value in own.items() if value is not None}


def _message(message: Any, in_parts: bool) -> Body:
    role = _dict(message).get("role")
    content = [text for part in _parts(message.get("content")) if (text := _text(part))]
    made: Body = {"role": role}
    if in_parts and role != "tool":
        made["content"] = [{"type": "text", "text": text} for text in content]
    else:
        made["content"] = "\n".join(content)
    if role == "assistant":
        if calls := message.get("tool_calls"):
            made["tool_calls"] = [_call(call) for call in _list(calls)]
        reasoning = message.get("reasoning") or message.get("reasoning_content")
        if reasoning is not None:
            made["reasoning"] = made["reasoning_content"] = reasoning
    elif role == "tool" and "tool_call_id" in message:
        made["tool_call_id"] = message["tool_call_id"]
    elif role == "developer":
        made["tools"] = message.get("tools")
    made.update({name: message[name] for name in ("name", "task") if isinstance(message.get(name), str)})
    return made


def _parts(content: Any) -> list[Any]:
    if content is None:
        return []
    return [content] if isinstance(content, str) else _list(content)


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = _dict(part).get("type")
    member = _TEXTS.get(kind) if isinstance(kind, str) else None
    text = None if member is None else part.get(member)
    if not isinstance(text, str):
        raise NotCountable("it has content that is not text")
    return text


def _call(call: Any) -> Body:
    """Templates want arguments as an object; what is none becomes an empty one."""
    function = _dict(_dict(call).get("function"))
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):  # a text of its own, whose depth nobody has bounded
            arguments = {}
    return {**call, "function": {**function, "arguments": arguments if isinstance(arguments, dict) else {}}}


def _tool(tool: Any) -> Body:
    """The fields that vLLM knows, in its order: most templates print a tool as JSON."""
    function = _dict(_dict(tool).get("function"))
    described = {name: function.get(name) for name in ("name", "description", "parameters")}
    deferred = tool.get("defer_loading")
    extra = {"strict": function.get("strict"), "defer_loading": function.get("defer_loading", deferred)}
    described.update({name: value for name, value in extra.items() if value is not None})
    made: Body = {"type": "function", "function": described}
    return made if deferred is None else {**made, "defer_loading": deferred}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NotCountable("its format is not one that nodes accept")
    return value


def _dict(value: Any) -> Body:
    if not isinstance(value, dict):
        raise NotCountable("its format is not one that nodes accept")
    return value
