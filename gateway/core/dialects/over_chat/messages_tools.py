"""Translates tools and the tool choice of messages to chat."""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import at, expect, objects, optional, refuse, required, switch

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_tools(body: Body) -> Body:
    """`tools`, after the additions and removals in the conversation."""
    tools: dict[str, Body] = {}
    for tool, where in objects(optional(body, "tools", list) or (), "tools"):
        function = _function(tool, where)
        tools[function["function"]["name"]] = function
    _change(tools, body)
    return {"tools": list(tools.values())} if tools else {}


def choose_tool(body: Body, tools: bool) -> Body:
    """`tool_choice` and `parallel_tool_calls`; without a choice the model decides. `tools`: whether there are any."""
    choice = optional(body, "tool_choice", dict)
    if choice is None:
        return {}
    parallel = not switch(choice, "disable_parallel_tool_use", "tool_choice")
    kind = required(choice, "type", str, "tool_choice")
    chosen: Any = _CHOICES.get(kind)
    if kind == "tool":
        chosen = {"type": "function", "function": {"name": required(choice, "name", str, "tool_choice")}}
    elif chosen is None:
        raise refuse("tool_choice.type", "send auto, any, tool or none.")
    # Without tools chat refuses a choice; in messages a node ignores it.
    return {"tool_choice": chosen, "parallel_tool_calls": parallel} if tools else {}


def _function(tool: Body, where: str) -> Body:
    schema = tool.get("input_schema")
    if schema is None:
        raise refuse(at(where, "input_schema"), "nodes run no built-in tools: send a tool with an input_schema.")
    schema = expect(schema, dict, at(where, "input_schema"))
    function = {
        "name": required(tool, "name", str, where),
        "description": optional(tool, "description", str, where),
        "parameters": schema if "type" in schema else {**schema, "type": "object"},
        "strict": switch(tool, "strict", where),
        "defer_loading": switch(tool, "defer_loading", where),
    }
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _change(tools: dict[str, Body], body: Body) -> None:
    """Apply the `tool_addition` and `tool_removal` blocks of system messages; the last one wins."""
    for message, where in objects(required(body, "messages", list), "messages"):
        content = message.get("content")
        if message.get("role") != "system" or not isinstance(content, list):
            continue
        for block, path in objects(content, at(where, "content")):
            kind = block.get("type")
            if kind not in ("tool_addition", "tool_removal"):
                continue
            change = required(block, "tool", dict, path)
            path = at(path, "tool")
            if kind == "tool_addition" and change.get("type") == "tool_definition":
                definition = required(change, "definition", dict, path)
                name = required(definition, "name", str, at(path, "definition"))
                tools[name] = _function(definition, at(path, "definition"))
                continue
            name = required(change, "name", str, path)
            if name not in tools:
                raise refuse(at(path, "name"), f"no tool {name!r} is declared in tools.")
            if kind == "tool_removal":
                del tools[name]
            else:
                tools[name]["function"].pop("defer_loading", None)
