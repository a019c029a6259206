"""Makes of a responses request what nodes understand of it, in whatever dialect they are asked.

    in the request                                        becomes
    a reasoning item with `encrypted_content` of ours     the same with its `content`
    a reasoning item with any other                       the same without it; nothing, if it has no other text
    a compaction item of ours                             a message of the user with the summary
    a compaction item of another vendor                   refused: what it stands for would be lost
    a call of a tool that OpenAI ran, the list of tools   nothing
    of its MCP server
    a custom tool with a grammar                          one for free text, whose description has the grammar

It is done when a request is read, so that its length is counted, and its answer is planned, by what nodes get.
"""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import at, optional, required
from gateway.core.dialects.opaque_text import COMPACTION, REASONING, decode_text
from gateway.core.errors import InvalidRequest

SUMMARY_LEAD = "The conversation before this message was compacted. This is a summary of it:\n\n"
"""Stands before the summary in the message that a compaction item becomes."""

_UNKNOWN = frozenset(
    {
        "code_interpreter_call",
        "compaction",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "reasoning",
        "web_search_call",
    }
)
"""Types of items of which something is unknown to nodes: calls of OpenAI's own tools, and those in the table."""


def asks_for_compaction(body: Body) -> bool:
    """Whether the last item of the input is a `compaction_trigger`: a summary is asked for, and no answer."""
    items: Any = body.get("input")
    last = items[-1] if type(items) is list and items else None
    return type(last) is dict and last.get("type") == "compaction_trigger"


def known_to_nodes(body: Body) -> Body:
    """The top-level fields to set in `body`. Raises `InvalidRequest`."""
    changes: Body = {}
    items: Any = body.get("input")
    if type(items) is list and any(_is_unknown(item) for item in items):
        made = (_item(item, f"input.{index}") for index, item in enumerate(items))
        changes["input"] = [item for item in made if item is not None]
    tools: Any = body.get("tools")
    if type(tools) is list and any(map(has_grammar, tools)):
        changes["tools"] = [
            free_text(tool, f"tools.{index}") if has_grammar(tool) else tool for index, tool in enumerate(tools)
        ]
    return changes


def _is_unknown(item: Any) -> bool:
    if type(item) is not dict:
        return False
    kind = item.get("type")
    if type(kind) is not str or kind not in _UNKNOWN:
        return False
    return kind != "reasoning" or bool(item.get("encrypted_content"))


def _item(item: Any, where: str) -> Any:
    """The item that nodes get for one of a client's; None where they get nothing."""
    if not _is_unknown(item):
        return item
    if item["type"] == "reasoning":
        return _reasoning(item, where)
    if item["type"] == "compaction":
        return _summary(item, where)
    return None


def _reasoning(item: Body, where: str) -> Body | None:
    kept = {name: value for name, value in item.items() if name != "encrypted_content"}
    text = decode_text(REASONING, required(item, "encrypted_content", str, where))
    if text is not None and not item.get("content"):
        kept["content"] = [{"type": "reasoning_text", "text": text}]
    return kept if kept.get("content") or kept.get("summary") else None


def _summary(item: Body, where: str) -> Body:
    text = decode_text(COMPACTION, required(item, "encrypted_content", str, where))
    if text is None:
        path = at(where, "encrypted_content")
        raise InvalidRequest(
            f"The field {path!r} was not made by this gateway, which cannot read it: "
            "send the conversation itself, or compact it here.",
            param=path,
            code="unknown_compaction",
        )
    return {"type": "message", "role": "user", "content": SUMMARY_LEAD + text}


def has_grammar(tool: Any) -> bool:
    """Whether `tool` is a custom tool whose input is to follow a grammar."""
    form = tool.get("format") if type(tool) is dict and tool.get("type") == "custom" else None
    return type(form) is dict and form.get("type") == "grammar"


def free_text(tool: Body, where: str) -> Body:
    """That tool for free text. Nodes can hold no tool's input to a grammar: the model is told of it."""
    form, path = tool["format"], at(where, "format")
    definition, syntax = optional(form, "definition", str, path), optional(form, "syntax", str, path)
    told = f"The input follows this grammar ({syntax or 'lark'}):\n{definition}" if definition else ""
    said = [text for text in (optional(tool, "description", str, where), told) if text]
    return {**tool, "format": {"type": "text"}, "description": "\n\n".join(said)}
