"""Translates a conversation in messages to chat: system text, the blocks of turns, tool calls and their results.

Each message becomes what vLLM makes of it, so that the model sees the same prompt. What vLLM leaves out (a thought that
is a signature alone, an image in the system text) is left out here too.
"""

import json
from collections.abc import Mapping
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import at, expect, objects, optional, refuse, required
from gateway.core.routing.known_clients import ATTRIBUTION

_SILENT = ("redacted_thinking", "tool_reference")
"""Blocks that the model does not see."""

_BLOCKS = (*_SILENT, "image", "text", "thinking", "tool_addition", "tool_removal", "tool_result", "tool_use")
"""All blocks that nodes know. A tuple, since a client's value may not be hashable."""


def chat_history(body: Body) -> list[Body]:
    """The chat messages for `system` and `messages`."""
    chat: list[Body] = []
    given = body.get("system")
    system = given if isinstance(given, str) else "" if given is None else _joined(given, "system")
    if system:
        chat.append({"role": "system", "content": system})
    for message, where in objects(required(body, "messages", list), "messages"):
        role, path = required(message, "role", str, where), at(where, "content")
        content = message.get("content")
        if role == "system":
            text = "".join(_texts([content])) if isinstance(content, str) else _joined(content, path)
            if text:
                chat.append({"role": "system", "content": text})
        elif role in ("user", "assistant"):
            _add_turn(chat, role, content, path)
        else:
            raise refuse(at(where, "role"), "send user, assistant or system.")
    return chat


def _joined(content: object, where: str) -> str:
    """The text of a list of system blocks."""
    texts = []
    for block, path in objects(expect(content, list, where), where):
        if block.get("type") == "text":
            texts.append(optional(block, "text", str, path) or "")
        elif block.get("type") not in _BLOCKS:
            raise refuse(at(path, "type"), "system text is made of text blocks.")
    return "".join(_texts(texts))


def _texts(texts: list[str]) -> list[str]:
    return [text for text in texts if not text.startswith(ATTRIBUTION)]


def _add_turn(chat: list[Body], role: str, content: object, where: str) -> None:
    """Append one user or assistant message, behind the messages of the tool results in it."""
    message: Body = {"role": role}
    if isinstance(content, str):
        message["content"] = content
    else:
        parts: list[Body] = []
        reasoning: list[str] = []
        calls: list[Body] = []
        for block, path in objects(expect(content, list, where), where):
            kind = block.get("type")
            if kind == "text":
                if optional(block, "text", str, path):
                    parts.append({"type": "text", "text": block["text"]})
            elif kind == "image":
                source = optional(block, "source", dict, path)
                if source:
                    parts.append(_image(source, at(path, "source")))
            elif kind == "thinking":
                thought = optional(block, "thinking", str, path)
                if thought is not None:
                    reasoning.append(thought)
            elif kind == "tool_use":
                calls.append(_call(block, len(calls), path))
            elif kind == "tool_result" and role == "user":
                _add_result(chat, block, path)
            elif kind == "tool_result":
                parts.append({"type": "text", "text": f"Tool result: {block.get('content') or ''}"})
            elif kind not in _SILENT:
                raise refuse(at(path, "type"), "send text, image, thinking, tool_use or (from the user) tool_result.")
        if reasoning:
            message["reasoning"] = "".join(reasoning)
        if calls:
            message["tool_calls"] = calls
        if parts:
            message["content"] = parts[0]["text"] if [part["type"] for part in parts] == ["text"] else parts
    if role == "assistant" or "content" in message:
        chat.append(message)


def _call(block: Body, number: int, where: str) -> Body:
    """A tool call, the `number`th of its turn."""
    arguments = json.dumps(optional(block, "input", dict, where) or {})
    function = {"name": optional(block, "name", str, where) or "", "arguments": arguments}
    return {"id": optional(block, "id", str, where) or f"call_{number}", "type": "function", "function": function}


def _add_result(chat: list[Body], block: Body, where: str) -> None:
    """Append a tool result: its text as the tool's message, its images as a user's message behind it."""
    call_id = optional(block, "tool_use_id", str, where) or ""
    content = block.get("content")
    texts, images, references = [], [], []
    if content is None or isinstance(content, str):
        texts.append(content or "")
    else:
        for part, path in objects(expect(content, list, at(where, "content")), at(where, "content")):
            kind = part.get("type")
            if kind == "text":
                texts.append(optional(part, "text", str, path) or "")
            elif kind == "image":
                images.append(_image(optional(part, "source", dict, path) or {}, at(path, "source")))
            elif kind == "tool_reference" and (name := part.get("tool_name") or part.get("name")):
                references.append({"type": "tool_reference", "name": name})
    chat.append({"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)})
    if images:
        chat.append({"role": "user", "content": images})
    if references:
        chat.append({"role": "tool", "tool_call_id": call_id, "content": references})


def _image(source: Mapping[str, Any], where: str) -> Body:
    """An image by its URL or its bytes, with vLLM's defaults."""
    if source.get("type") == "url":
        url = optional(source, "url", str, where) or ""
    else:
        url = f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"
    return {"type": "image_url", "image_url": {"url": url}}
