"""Members set in a text of JSON, also with the comments and trailing commas that editors' settings files have (JSONC).

The text is read into nodes that know where they stand. Edits are made from the end to the beginning, so that places
before them stay true.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.connect.trees import merge

_BLANK = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_REMARK = re.compile(r"[ \t]*(//[^\r\n]*|/\*[^\n]*?\*/)(?=[ \t]*\r?\n)")
"""A comment behind a member, on its line."""

_decode = json.JSONDecoder().raw_decode
_INDENT = "  "
_DEEPEST = 200


@dataclass(slots=True)
class JsonNode:
    """A value, and where it stands: `text[start:end]`. `comma`: the place of a comma behind it, else -1."""

    start: int
    end: int = -1
    value: Any = None
    members: dict[str, "JsonNode"] = field(default_factory=dict)
    comma: int = -1


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def read(text: str) -> Any:
    """The value of a text of JSON or JSONC. Raises ValueError."""
    return parse(text).value


def edit(text: str, settings: Any) -> str:
    """`text` with the members of `settings` in its object. Raises ValueError where it is none."""
    edits: list[_Edit] = []
    _merge(text, parse(text), settings, edits)
    for each in sorted(edits, key=lambda one: one.start, reverse=True):
        text = text[: each.start] + each.text + text[each.end :]
    return text


def parse(text: str) -> JsonNode:
    """The nodes of a text. Raises ValueError."""
    node, at = _value(text, _after_blank(text, 1 if text.startswith("\ufeff") else 0), 0)
    if _after_blank(text, at) != len(text):
        raise ValueError(f"more text behind the value, at character {at}")
    return node


def _merge(text: str, node: JsonNode, settings: Any, edits: list[_Edit]) -> None:
    both = isinstance(node.value, dict) and isinstance(settings, dict)
    if not both or _is_crowded(text, node, settings):
        merged = merge(node.value, settings)
        if merged != node.value or type(merged) is not type(node.value):
            edits.append(_Edit(node.start, node.end, _dump(merged, _line_indent(text, node.start))))
        return
    new = {}
    for name, value in settings.items():
        if name in node.members:
            _merge(text, node.members[name], value, edits)
        else:
            new[name] = value
    if new:
        edits += _addition(text, node, new)


def _is_crowded(text: str, node: JsonNode, settings: dict[str, Any]) -> bool:
    """Whether the object stands on one line that gets too long: then it is written anew, if it has no comments."""
    inner = text[node.start : node.end]
    is_plain = "\n" not in inner and "//" not in inner and "/*" not in inner
    return is_plain and bool(node.members) and len(settings.keys() - node.members) > 1


def _addition(text: str, node: JsonNode, new: dict[str, Any]) -> list[_Edit]:
    """New members at the end of an object, spread over lines as the members before them are."""
    last = next(reversed(node.members.values()), None)
    first_line = text[node.start + 1 : last.start if last else node.end - 1]
    outer = _line_indent(text, node.start)
    if last is not None and "\n" not in first_line:
        members = "".join(f", {json.dumps(name)}: {_dump(new[name], outer)}" for name in new)
        return [_Edit(last.end, last.end, members)]
    indent = _line_indent(text, last.start) if last else outer + _INDENT
    lines = ",".join(f"\n{indent}{json.dumps(name)}: {_dump(value, indent)}" for name, value in new.items())
    if last is None:
        tail = "" if "\n" in first_line else f"\n{outer}"
        return [_Edit(node.start + 1, node.start + 1, lines + tail)]
    end = last.end if last.comma < 0 else last.comma + 1
    below = end + len(remark[0]) if (remark := _REMARK.match(text, end)) else end
    if last.comma >= 0:
        return [_Edit(below, below, lines + ",")]
    comma = _Edit(end, end, ",")
    return [_Edit(end, end, "," + lines)] if below == end else [comma, _Edit(below, below, lines)]


def _dump(value: Any, indent: str) -> str:
    return json.dumps(value, indent=len(_INDENT), ensure_ascii=False).replace("\n", f"\n{indent}")


def _line_indent(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, depth: int) -> tuple[JsonNode, int]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    node = JsonNode(at)
    opening = text[at : at + 1]
    if opening == "{":
        node.value, node.end = _object(text, at + 1, node.members, depth)
    elif opening == "[":
        node.value, node.end = _array(text, at + 1, depth)
    else:
        node.value, node.end = _decode(text, at)
    return node, node.end


def _object(text: str, at: int, members: dict[str, JsonNode], depth: int) -> tuple[dict[str, Any], int]:
    at = _after_blank(text, at)
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise ValueError(f"no name of a member at character {at}")
        name, at = _decode(text, at)
        at = _after_blank(text, at)
        if name in members:
            raise ValueError(f"the member {name!r} is there twice")
        if text[at : at + 1] != ":":
            raise ValueError(f"no colon at character {at}")
        node, at = _value(text, _after_blank(text, at + 1), depth + 1)
        members[name] = node
        node.comma, at = _comma(text, at, "}")
    return {name: node.value for name, node in members.items()}, at + 1


def _array(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    at = _after_blank(text, at)
    while text[at : at + 1] != "]":
        node, at = _value(text, at, depth + 1)
        items.append(node.value)
        _, at = _comma(text, at, "]")
    return items, at + 1


def _comma(text: str, at: int, closing: str) -> tuple[int, int]:
    """The place of the comma at `at`, if there is one, and where to read on."""
    at = _after_blank(text, at)
    if text[at : at + 1] == ",":
        return at, _after_blank(text, at + 1)
    if text[at : at + 1] != closing:
        raise ValueError(f"no comma at character {at}")
    return -1, at
