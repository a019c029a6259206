"""Translates the input items of responses to chat messages.

A turn of the assistant is several items (reasoning, message, function calls) but one chat message. An item joins the
assistant's message before it, unless that has the item's field already. vLLM does the same, so the prompt is the same.
"""

import json
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import at, expect, objects, optional, refuse, required

CUSTOM_INPUT = "input"
"""The one argument of the function that stands for a custom tool, which takes free text."""

ADDITIONAL_TOOLS = "additional_tools"
"""The type of an item that declares tools within the conversation."""

_UNFINISHED = ("in_progress", "incomplete")


def chat_history(body: Body) -> tuple[list[Body], bool]:
    """The chat messages for `instructions` and `input`, and whether the answer continues the last of them."""
    chat: list[Body] = []
    instructions = optional(body, "instructions", str)
    if instructions:
        chat.append({"role": "system", "content": instructions})
    given = body.get("input")
    if isinstance(given, str):
        return [*chat, {"role": "user", "content": given}], False
    items = expect(given, list, "input")
    for item, where in objects(items, "input"):
        _add_item(chat, item, where)
    last = items[-1] if items else {}
    continues = last.get("type", "message") in ("message", "reasoning") and last.get("status") in _UNFINISHED
    return chat, continues


def _add_item(chat: list[Body], item: Body, where: str) -> None:
    kind = item.get("type") or ("message" if "role" in item or "id" not in item else "item_reference")
    if kind == "message":
        _add_message(chat, item, where)
    elif kind == "reasoning":
        _join(chat, "reasoning", _reasoning(item, where))
    elif kind == "function_call":
        namespace, name = optional(item, "namespace", str, where), required(item, "name", str, where)
        arguments = required(item, "arguments", str, where)
        _add_call(chat, item, f"{namespace}__{name}" if namespace else name, arguments, where)
    elif kind == "custom_tool_call":
        arguments = json.dumps({CUSTOM_INPUT: optional(item, "input", str, where) or ""}, ensure_ascii=False)
        _add_call(chat, item, required(item, "name", str, where), arguments, where)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        call_id = optional(item, "call_id", str, where) or ""
        content = _content(item.get("output"), at(where, "output"))
        chat.append({"role": "tool", "tool_call_id": call_id, "content": content})
    elif kind == "item_reference":  # those to what the gateway keeps were put in its place before
        remedy = "Send the item itself; with redis.url and response_secret the gateway keeps items."
        raise refuse(at(where, "type"), f"nodes store nothing. {remedy}")
    elif kind != ADDITIONAL_TOOLS:  # see `responses_tools`
        raise refuse(at(where, "type"), f"nodes run no built-in tools and store nothing; unknown type {kind!r}.")


def _add_message(chat: list[Body], item: Body, where: str) -> None:
    role = required(item, "role", str, where)
    content = _content(item.get("content"), at(where, "content"))
    if role == "assistant":
        texts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
        _join(chat, "content", "".join(texts))
    else:
        chat.append({"role": role, "content": content})


def _join(chat: list[Body], field: str, value: Any) -> None:
    """Put `field` into the assistant's message at the end, or into a new one."""
    last = chat[-1] if chat else {}
    if last.get("role") == "assistant" and last.get(field) is None:
        last[field] = value
    else:
        chat.append({"role": "assistant", field: value})


def _add_call(chat: list[Body], item: Body, name: str, arguments: str, where: str) -> None:
    function = {"name": name, "arguments": arguments}
    call = {"id": required(item, "call_id", str, where), "type": "function", "function": function}
    last = chat[-1] if chat else {}
    if last.get("role") == "assistant":
        last.setdefault("tool_calls", []).append(call)
    else:
        chat.append({"role": "assistant", "tool_calls": [call]})


def _reasoning(item: Body, where: str) -> str:
    """The text of a reasoning item: its `content`, else its summary."""
    for name in ("content", "summary"):
        for part, path in objects(optional(item, name, list, where) or (), at(where, name)):
            return str(required(part, "text", str, path))
    return ""


def _content(content: object, where: str) -> str | list[Body]:
    if isinstance(content, str):
        return content
    return [_part(part, path) for part, path in objects(expect(content, list, where), where)]


def _part(part: Body, where: str) -> Body:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": required(part, "text", str, where)}
    if kind == "refusal":
        return {"type": "text", "text": required(part, "refusal", str, where)}
    if kind == "input_image":
        url = optional(part, "image_url", str, where)
        if url is None:
            raise refuse(at(where, "file_id"), "nodes store no files. Send image_url.")
        return {"type": "image_url", "image_url": {"url": url, "detail": part.get("detail") or "auto"}}
    if kind in ("image_url", "input_audio", "audio_url", "video_url"):
        return part  # chat's own parts, which vLLM reads in responses too
    raise refuse(at(where, "type"), f"send input_text or input_image; {kind!r} is not known.")
