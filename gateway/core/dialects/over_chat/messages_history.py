"""Messages' turns as chat's: system text in front, blocks into parts, calls and results of tools into messages.

Each message becomes what vLLM makes of it itself, so that the model is shown the same prompt.
"""

import json
from collections.abc import Mapping
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.over_chat.fields import at, expect, objects, optional, refuse, required

_ATTRIBUTION = "x-anthropic-billing-header"
"""How a block begins that Claude Code puts into the system text for its own accounting: a hash of each request, which
would keep every prompt out of the node's prefix cache. vLLM leaves it out, too."""


def chat_history(body: Body) -> list[Body]:
    """The chat messages for `system` and `messages`."""
    chat: list[Body] = []
    system = _system_text(body.get("system"), "system")
    if system:
        chat.append({"role": "system", "content": system})
    for message, where in objects(required(body, "messages", list), "messages"):
        role = required(message, "role", str, where)
        if role == "system":
            text = _system_text(message.get("content"), at(where, "content"))
            if text:
                chat.append({"role": "system", "content": text})
        elif role in ("user", "assistant"):
            _add_turn(chat, role, message.get("content"), at(where, "content"))
        else:
            raise refuse(at(where, "role"), "send user, assistant or system.")
    return chat


def _system_text(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return "" if where != "system" and content.startswith(_ATTRIBUTION) else content
    texts = []
    for block, path in objects(expect(content, list, where), where):
        kind = block.get("type")
        if kind == "text":
            text = optional(block, "text", str, path) or ""
            if not text.startswith(_ATTRIBUTION):
                texts.append(text)
        elif kind not in ("tool_addition", "tool_removal"):
            raise refuse(at(path, "type"), "system text is made of text blocks.")
    return "".join(texts)


def _add_turn(chat: list[Body], role: str, content: object, where: str) -> None:
    """Append one user or assistant message; results of tools go before it, in messages of their own."""
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
                parts.append(_image(block, path))
            elif kind == "thinking":
                reasoning.append(required(block, "thinking", str, path))
            elif kind == "tool_use":
                calls.append(_call(block, path))
            elif kind == "tool_result" and role == "user":
                _add_result(chat, block, path)
            elif kind not in ("redacted_thinking", "tool_reference"):
                raise refuse(at(path, "type"), "send text, image, thinking, tool_use or (from the user) tool_result.")
        if reasoning:
            message["reasoning"] = "".join(reasoning)
        if calls:
            message["tool_calls"] = calls
        if parts:
            message["content"] = parts[0]["text"] if [part["type"] for part in parts] == ["text"] else parts
    if role == "assistant" or "content" in message:
        chat.append(message)


def _call(block: Body, where: str) -> Body:
    arguments = json.dumps(optional(block, "input", dict, where) or {})
    function = {"name": required(block, "name", str, where), "arguments": arguments}
    return {"id": required(block, "id", str, where), "type": "function", "function": function}


def _add_result(chat: list[Body], block: Body, where: str) -> None:
    """A tool's result: its text as the tool's message, its images as a user's message behind it."""
    call_id = required(block, "tool_use_id", str, where)
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
                images.append(_image(part, path))
            elif kind == "tool_reference":
                references.append({"type": "tool_reference", "name": part.get("tool_name") or part.get("name")})
            else:
                raise refuse(at(path, "type"), "a result is made of text and images.")
    chat.append({"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)})
    if images:
        chat.append({"role": "user", "content": images})
    if references:
        chat.append({"role": "tool", "tool_call_id": call_id, "content": references})


def _image(block: Mapping[str, Any], where: str) -> Body:
    source = required(block, "source", dict, where)
    where = at(where, "source")
    kind = source.get("type", "base64")
    if kind == "url":
        url = required(source, "url", str, where)
    elif kind == "base64":
        url = f"data:{source.get('media_type', 'image/jpeg')};base64,{required(source, 'data', str, where)}"
    else:
        raise refuse(at(where, "type"), "send base64 or url.")
    return {"type": "image_url", "image_url": {"url": url}}
