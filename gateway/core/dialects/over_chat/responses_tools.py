"""Translates tools and the tool choice of responses to chat, and the names of called tools back.

    tool_choice                          becomes, where there are functions            where there are none
    absent, null, auto, a hosted tool    auto                                          nothing
    none                                 none                                          nothing
    required, function, custom           the same                                      the same: the node refuses it
    allowed_tools                        its mode, and its tools alone; none of them:  nothing
                                         none

Hosted tools, which OpenAI would run, are not shown to the model and cannot be chosen: nodes ignore both. Nodes ignore
`allowed_tools` and `additional_tools` too; the translation applies them.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import at, expect, objects, optional, refuse, required, switch
from gateway.core.dialects.over_chat.responses_history import ADDITIONAL_TOOLS, CUSTOM_INPUT
from gateway.core.dialects.responses_input import free_text, has_grammar

_HOSTED = (
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "mcp",
    "programmatic_tool_calling",
    "shell",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)
"""Hosted tools that a `tool_choice` may name. A tuple, since a client's value may not be hashable."""


@dataclass(frozen=True, slots=True)
class ToolNames:
    """The tools that chat's function names stand for. `custom`: those that take free text. `spaced`: namespace and own
    name of those in a namespace."""

    custom: set[str] = field(default_factory=set)
    spaced: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, function: str) -> tuple[str, str | None]:
        """Name and namespace of the tool that is `function` in chat."""
        namespace, name = self.spaced.get(function, (None, function))
        return name, namespace

    def flat(self, name: str) -> str:
        """Chat's name for a tool; a function in a namespace is found by its own name where that is unique."""
        found = [flat for flat, (_, own) in self.spaced.items() if own == name]
        return found[0] if len(found) == 1 else name


class ResponseTools:
    """The tools of one request.

    `chat`: tools and tool choice in chat's fields. `choice`: the `tool_choice` that the response repeats.
    `as_declared`: by the dialect's own path a node would show the model the same tools.
    """

    __slots__ = ("_functions", "as_declared", "chat", "choice", "names")

    def __init__(self, body: Body) -> None:
        self.names = ToolNames()
        self._functions: list[Body] = []
        for tool, where in objects(optional(body, "tools", list) or (), "tools"):
            self._add(tool, where)
        declared = {_name(function) for function in self._functions}
        self.as_declared = True
        for tool, where in _additional(body):
            self._add(tool, where, declared)
            self.as_declared = False
        self.choice: Any = body.get("tool_choice")
        if self.choice is None:
            self.choice = "auto"
        if self.choice == "auto" and not (body.get("tools") or self._functions):
            self.choice = "none"
        chosen: Body = {} if body.get("tool_choice") is None else self._chosen()
        self.chat: Body = ({"tools": self._functions} if self._functions else {}) | chosen

    def _add(self, tool: Body, where: str, declared: Container[str] = ()) -> None:
        """Add a tool, unless its name is `declared`."""
        kind = required(tool, "type", str, where)
        if kind in ("function", "custom"):
            name = required(tool, "name", str, where)
            if name in declared:
                return
            if kind == "custom":
                self.names.custom.add(name)
            self._functions.append((_custom if kind == "custom" else _function)(tool, name, where))
        elif kind == "namespace":
            space = required(tool, "name", str, where)
            for inner, path in objects(required(tool, "tools", list, where), at(where, "tools")):
                name = required(inner, "name", str, path) if inner.get("type") == "function" else ""
                flat = f"{space}__{name}"
                if name and flat not in declared:
                    self._functions.append(_function(inner, flat, path))
                    self.names.spaced[flat] = (space, name)

    def _chosen(self) -> Body:
        choice = self.choice
        if isinstance(choice, str):
            if choice not in ("auto", "none", "required"):
                raise refuse("tool_choice", "send auto, none, required or a function.")
            return {"tool_choice": choice} if self._functions or choice == "required" else {}
        kind = expect(choice, dict, "tool_choice").get("type")
        if kind in ("function", "custom"):
            name = self.names.flat(required(choice, "name", str, "tool_choice"))
            self.choice = {**choice, "name": name}
            return {"tool_choice": {"type": "function", "function": {"name": name}}}
        if kind == "allowed_tools":
            return self._allow(choice)
        if kind not in _HOSTED:
            raise refuse("tool_choice.type", "send auto, none, required, allowed_tools or a function.")
        return {"tool_choice": "auto"} if self._functions else {}

    def _allow(self, choice: Body) -> Body:
        """Apply `allowed_tools`: keep the functions that are allowed."""
        mode = required(choice, "mode", str, "tool_choice")
        if mode not in ("auto", "required"):
            raise refuse("tool_choice.mode", "send auto or required.")
        allowed = {
            optional(tool, "name", str, where) or ""
            for tool, where in objects(required(choice, "tools", list, "tool_choice"), "tool_choice.tools")
        }
        if not self._functions:
            return {}
        own_names = Counter(own for _, own in self.names.spaced.values())
        kept = [function for function in self._functions if self._is_allowed(_name(function), allowed, own_names)]
        if not kept:
            return {"tool_choice": "none"}
        self.as_declared = self.as_declared and len(kept) == len(self._functions)
        self._functions = kept
        return {"tool_choice": mode}

    def _is_allowed(self, flat: str, allowed: set[str], own_names: Mapping[str, int]) -> bool:
        """Whether `allowed` has a function's whole name, its namespace, or its own name, if `own_names` has it once."""
        space, own = self.names.spaced.get(flat, (flat, flat))
        return flat in allowed or space in allowed or (own in allowed and own_names[own] == 1)


def _additional(body: Body) -> Iterator[tuple[Body, str]]:
    """The tools declared by items of the conversation."""
    items = body.get("input")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("type") == ADDITIONAL_TOOLS:
            where = at(f"input.{index}", "tools")
            yield from objects(required(item, "tools", list, f"input.{index}"), where)


def _function(tool: Body, name: str, where: str) -> Body:
    function = {
        "name": name,
        "description": optional(tool, "description", str, where),
        "parameters": optional(tool, "parameters", dict, where),
        "strict": switch(tool, "strict", where),
        "defer_loading": switch(tool, "defer_loading", where),
    }
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _name(function: Body) -> str:
    name: str = function["function"]["name"]
    return name


def _custom(tool: Body, name: str, where: str) -> Body:
    optional(tool, "format", dict, where)
    if has_grammar(tool):
        tool = free_text(tool, where)
    text = {"type": "string", "description": "The freeform text payload for this tool."}
    parameters = {
        "type": "object",
        "properties": {CUSTOM_INPUT: text},
        "required": [CUSTOM_INPUT],
        "additionalProperties": False,
    }
    return _function({**tool, "parameters": parameters, "strict": None}, name, where)
