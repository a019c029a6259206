"""Types the arguments of a tool call that a model wrote as text, by the tool's JSON schema, as vLLM does.

The rules are vLLM 0.32's (`coerce_to_schema_type`), lax ones included: `1_000` is an integer.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from gateway.core.bodies import Body

_NAMES = {
    **dict.fromkeys(("str", "text", "varchar", "char", "enum"), "string"),
    **dict.fromkeys(("int", "int32", "int64", "uint", "uint32", "uint64", "long", "short", "unsigned"), "integer"),
    **dict.fromkeys(("float", "float32", "float64", "double"), "number"),
    **dict.fromkeys(("arr", "list", "sequence"), "array"),
    "bool": "boolean",
    "dict": "object",
}
"""Other names of JSON schema's types that tools use."""


class ArgumentTypes:
    """The parameters of one function, by its schema; all are text where it lists none."""

    __slots__ = ("_properties",)

    def __init__(self, body: Body, function: str) -> None:
        """`body`: the chat request."""
        self._properties = _properties(body, function)

    def dumped(self, name: str, text: str) -> str:
        """The argument as JSON."""
        schema = self._properties.get(name)
        value = typed(text, schema_types(schema)) if isinstance(schema, dict) else text
        return json.dumps(value, ensure_ascii=False)

    def begun(self, name: str, text: str) -> str:
        """An argument whose text is cut, as JSON that is cut; empty where what follows could give it another type."""
        known = not self._properties or name in self._properties
        if known and schema_types(self._properties.get(name)) == {"string"}:
            return json.dumps(text, ensure_ascii=False)[:-1]
        return ""


def _properties(body: Body, function: str) -> Mapping[str, Any]:
    """The `properties` of the first tool of that name."""
    for tool in body.get("tools") or ():
        known = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(known, dict) and known.get("name") == function:
            parameters = known.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            return properties if isinstance(properties, dict) else {}
    return {}


def schema_types(schema: object) -> set[str]:
    """All types that a schema allows, by `type`, `enum` and their alternatives; `string` where it names none."""
    types: set[str] = set()
    if isinstance(schema, dict):
        declared = schema.get("type")
        types.update(t for t in (declared if isinstance(declared, list) else [declared]) if isinstance(t, str))
        listed = schema.get("enum")
        types.update(_type_of(value) for value in (listed if isinstance(listed, list) else ()))
        for combined in ("anyOf", "oneOf", "allOf"):
            choices = schema.get(combined)
            for choice in choices if isinstance(choices, list) else ():
                types |= schema_types(choice)
    return types or {"string"}


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def typed(text: str, types: set[str]) -> Any:
    """`text` as the first of the types that it can be; as any JSON where it can be none, else as it is."""
    known = {_NAMES.get(name, name) for name in (t.strip().lower() for t in types)}
    if "null" in known and text.lower() == "null":
        return None
    readers = [read for name, read in _READERS.items() if name in known]
    for read in readers if "string" in known else [*readers, _json]:
        try:
            return read(text)
        except _NOT_OF_TYPE:
            continue
    return text


def _number(text: str) -> int | float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return int(value) if value == int(value) else value


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}.get(text.lower().strip())
    if known is None:
        raise ValueError(text)
    return known


def _json(text: str) -> Any:
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value


_NOT_OF_TYPE = (ValueError, RecursionError)
_READERS: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "number": _number,
    "boolean": _boolean,
    "object": _json,
    "array": _json,
}
"""Reads a text as a type, in the order in which they are tried; raises an error where it is not of that type."""
