"""The chat template: ChatML, with `<think>\\n` open at the end, or `<think></think>` when thinking is off.

    <|im_start|>system\\n...<|im_end|>\\n<|im_start|>user\\n...<|im_end|>\\n<|im_start|>assistant\\n<think>\\n

Tools stand in the system turn, one JSON object a line between `<tools>` and `</tools>`. A past assistant turn
loses its thinking. Low effort (`low_effort`, or `reasoning_effort` minimal or low) adds a line to the last user turn.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

LOW_EFFORT = "\n\n{reasoning effort: low}"
_TOOLS_HEAD = "# Tools\n\nYou have access to the following functions:\n\n<tools>\n"
_TOOLS_TAIL = "\n</tools>"


def render_chat(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
) -> str:
    """The prompt text of a conversation, as the model sees it."""
    given = kwargs or {}
    turns = [_turn(m) for m in messages]
    if tools:
        turns = _with_tools(turns, tools)
    if low_effort(given) and turns and turns[-1][0] == "user":
        turns[-1] = ("user", turns[-1][1] + LOW_EFFORT)
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    if continue_final:
        return text.removesuffix("<|im_end|>\n")
    return text + generation_prompt(given) if add_generation_prompt else text


def generation_prompt(kwargs: Mapping[str, Any]) -> str:
    """What opens the assistant's turn."""
    closed = kwargs.get("enable_thinking") is False
    return "<|im_start|>assistant\n" + ("<think></think>" if closed else "<think>\n")


def low_effort(kwargs: Mapping[str, Any]) -> bool:
    """Whether the template's arguments ask for short thinking."""
    return bool(kwargs.get("low_effort")) or kwargs.get("reasoning_effort") in ("minimal", "low")


def _turn(message: Mapping[str, Any]) -> tuple[str, str]:
    role = str(message.get("role", "user"))
    text = content_text(message.get("content"))
    if role == "assistant":
        return role, text + "".join(_call_text(c) for c in message.get("tool_calls") or ())
    if role == "tool":
        return "user", f"<tool_response>\n{text}\n</tool_response>"
    return ("system" if role == "developer" else role), text


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list joined by newlines."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(p.get("text", "")) if isinstance(p, dict) else str(p) for p in parts)


def _with_tools(turns: list[tuple[str, str]], tools: Sequence[Any]) -> list[tuple[str, str]]:
    lines = "\n".join(json.dumps(t, ensure_ascii=False) for t in tools)
    block = _TOOLS_HEAD + lines + _TOOLS_TAIL
    if turns and turns[0][0] == "system":
        return [("system", f"{turns[0][1]}\n\n{block}"), *turns[1:]]
    return [("system", block), *turns]


def _call_text(call: Mapping[str, Any]) -> str:
    function = call.get("function") or {}
    arguments = function.get("arguments") or "{}"
    parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    return call_script(str(function.get("name", "")), parsed)


def call_script(name: str, arguments: Mapping[str, Any]) -> str:
    """One tool call in the form that vLLM's `qwen3_coder` parser reads."""
    body = "".join(f"<parameter={k}>\n{_plain(v)}\n</parameter>\n" for k, v in arguments.items())
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
