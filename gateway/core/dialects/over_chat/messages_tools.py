"""Messages' tools and tool choice as chat's."""

from gateway.core.bodies import Body
from gateway.core.dialects.over_chat.fields import at, expect, objects, optional, refuse, required

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_tools(body: Body) -> Body:
    """`tools`, after the additions and removals that stand in the conversation."""
    tools = {
        required(tool, "name", str, where): _function(tool, where)
        for tool, where in objects(optional(body, "tools", list) or (), "tools")
    }
    _change(tools, body)
    return {"tools": list(tools.values())} if tools else {}


def choose_tool(body: Body) -> Body:
    """`tool_choice` and `parallel_tool_calls`; without a choice the model decides."""
    choice = optional(body, "tool_choice", dict)
    if choice is None:
        return {}
    parallel = not optional(choice, "disable_parallel_tool_use", bool, "tool_choice")
    kind = required(choice, "type", str, "tool_choice")
    if kind == "tool":
        function = {"name": required(choice, "name", str, "tool_choice")}
        return {"tool_choice": {"type": "function", "function": function}, "parallel_tool_calls": parallel}
    if kind not in _CHOICES:
        raise refuse("tool_choice.type", "send auto, any, tool or none.")
    if not body.get("tools") and kind != "any":
        return {}  # chat refuses a choice where there is nothing to choose from
    return {"tool_choice": _CHOICES[kind], "parallel_tool_calls": parallel}


def _function(tool: Body, where: str) -> Body:
    schema = tool.get("input_schema")
    if schema is None:
        raise refuse(at(where, "input_schema"), "a node runs no tools of its own: send a tool with an input_schema.")
    schema = expect(schema, dict, at(where, "input_schema"))
    function = {
        "name": tool["name"],
        "description": optional(tool, "description", str, where),
        "parameters": schema if "type" in schema else {**schema, "type": "object"},
        "strict": optional(tool, "strict", bool, where),
        "defer_loading": optional(tool, "defer_loading", bool, where),
    }
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _change(tools: dict[str, Body], body: Body) -> None:
    """Apply `tool_addition` and `tool_removal` blocks, which system messages may hold; the last word counts."""
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
