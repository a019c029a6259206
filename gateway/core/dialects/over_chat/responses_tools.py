"""Responses' tools and tool choice as chat's, and the names of called tools back again."""

from dataclasses import dataclass, field
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.over_chat.fields import at, expect, objects, optional, refuse, required
from gateway.core.dialects.over_chat.responses_history import CUSTOM_INPUT


@dataclass(frozen=True, slots=True)
class ToolNames:
    """What chat's function names stand for: `custom` tools take free text, `spaced` ones belong to a namespace."""

    custom: set[str] = field(default_factory=set)
    spaced: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, function: str) -> tuple[str, str | None]:
        """Name and namespace of the tool that chat knows as `function`."""
        namespace, name = self.spaced.get(function, (None, function))
        return name, namespace


def chat_tools(body: Body) -> tuple[Body, ToolNames]:
    """`tools` as chat's functions. Tools that the client's provider would run are not shown to the model."""
    names = ToolNames()
    functions: list[Body] = []
    for tool, where in objects(optional(body, "tools", list) or (), "tools"):
        kind = required(tool, "type", str, where)
        if kind == "function":
            functions.append(_function(tool, required(tool, "name", str, where), where))
        elif kind == "custom":
            functions.append(_custom(tool, where))
            names.custom.add(tool["name"])
        elif kind == "namespace":
            space = required(tool, "name", str, where)
            for inner, path in objects(required(tool, "tools", list, where), at(where, "tools")):
                if inner.get("type") == "function":
                    name = required(inner, "name", str, path)
                    functions.append(_function(inner, f"{space}__{name}", path))
                    names.spaced[f"{space}__{name}"] = (space, name)
    return ({"tools": functions} if functions else {}), names


def choose_tool(body: Body, names: ToolNames) -> Body:
    """`tool_choice`; where there are no tools there is nothing to choose."""
    choice: Any = body.get("tool_choice")
    if choice is None or (choice in ("auto", "none") and not body.get("tools")):
        return {}
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise refuse("tool_choice", "send auto, none, required or a function.")
        return {"tool_choice": choice}
    kind = expect(choice, dict, "tool_choice").get("type")
    if kind not in ("function", "custom"):
        raise refuse("tool_choice.type", "send auto, none, required or a function.")
    name = required(choice, "name", str, "tool_choice")
    return {"tool_choice": {"type": "function", "function": {"name": _flat(name, names)}}}


def _flat(name: str, names: ToolNames) -> str:
    """A function of a namespace may be called by its own name where that is the only one."""
    found = [flat for flat, (_, own) in names.spaced.items() if own == name]
    return found[0] if len(found) == 1 else name


def _function(tool: Body, name: str, where: str) -> Body:
    function = {
        "name": name,
        "description": optional(tool, "description", str, where),
        "parameters": optional(tool, "parameters", dict, where),
        "strict": optional(tool, "strict", bool, where),
        "defer_loading": optional(tool, "defer_loading", bool, where),
    }
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _custom(tool: Body, where: str) -> Body:
    form = optional(tool, "format", dict, where)
    if form is not None and form.get("type") == "grammar":
        raise refuse(at(where, "format"), "nodes hold no custom tool to a grammar. Leave it out.")
    text = {"type": "string", "description": "The freeform text payload for this tool."}
    parameters = {
        "type": "object",
        "properties": {CUSTOM_INPUT: text},
        "required": [CUSTOM_INPUT],
        "additionalProperties": False,
    }
    return _function({**tool, "parameters": parameters, "strict": None}, required(tool, "name", str, where), where)
