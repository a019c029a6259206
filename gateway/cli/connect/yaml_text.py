"""Members set in a text of YAML, by the places that PyYAML's composer gives its nodes."""

import json
from typing import Any

import yaml

from gateway.cli.connect.trees import is_named

_Edit = tuple[int, int, str]


def edit(text: str, settings: Any) -> str:
    """`text` with `settings` merged into it (`gateway/cli/connect/merging.py`). Raises ValueError."""
    edits: list[_Edit] = []
    _merge(text, yaml.compose(text, Loader=yaml.SafeLoader), settings, edits)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _merge(text: str, node: yaml.Node | None, settings: Any, edits: list[_Edit]) -> None:
    if isinstance(node, yaml.MappingNode) and isinstance(settings, dict):
        _merge_members(text, node, settings, edits)
    elif isinstance(node, yaml.SequenceNode) and isinstance(settings, list):
        merge_list = _merge_items if is_named(settings) else _replace_items
        merge_list(text, node, settings, edits)
    elif isinstance(node, yaml.ScalarNode) and not isinstance(settings, dict | list):
        start, end = node.start_mark.index, _end(node, text)
        if yaml.safe_load(text[start:end]) != settings:
            edits.append((start, end, json.dumps(settings, ensure_ascii=False)))
    else:
        raise ValueError("a setting is of another kind")


def _merge_members(text: str, node: yaml.MappingNode, settings: dict[str, Any], edits: list[_Edit]) -> None:
    members = {key.value: value for key, value in node.value}
    new = {}
    for name, value in settings.items():
        if name in members:
            _merge(text, members[name], value, edits)
        else:
            new[name] = value
    if not new:
        return
    if node.flow_style or not node.value:
        raise ValueError("a mapping in braces")
    first, last = node.value[0][0], node.value[-1][1]
    edits.append(_below(text, _end(last, text), _block(new, first.start_mark.column)))


def _merge_items(text: str, node: yaml.SequenceNode, settings: list[Any], edits: list[_Edit]) -> None:
    """Items by their names."""
    known = {_name(item): item for item in node.value}
    for item in settings:
        if item["name"] in known:
            _merge(text, known[item["name"]], item, edits)
    new = [item for item in settings if item["name"] not in known]
    if not new:
        return
    if node.flow_style or not node.value:
        raise ValueError("a list in brackets")
    edits.append(_below(text, _end(node.value[-1], text), _block(new, node.start_mark.column)))


def _replace_items(text: str, node: yaml.SequenceNode, settings: list[Any], edits: list[_Edit]) -> None:
    """A list of texts is replaced, if it is another one and has no comments, which would be lost."""
    start, end = node.start_mark.index, _end(node, text)
    if yaml.safe_load(_dedented(text[start:end], node)) == settings:
        return
    if "#" in text[start:end]:
        raise ValueError("a list with comments")
    new = json.dumps(settings, ensure_ascii=False)
    if not node.flow_style:
        new = _block(settings, node.start_mark.column).strip()
    edits.append((start, end, new))


def _dedented(text: str, node: yaml.Node) -> str:
    """The text of a block as it reads alone: its first line stands at the column of the others."""
    return f"{' ' * node.start_mark.column}{text}"


def _name(item: yaml.Node) -> Any:
    members = item.value if isinstance(item, yaml.MappingNode) else ()
    return next((value.value for key, value in members if key.value == "name"), None)


def _block(value: Any, column: int) -> str:
    """`value` in block style, each line at `column`."""
    dumped = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"{' ' * column}{line}\n" for line in dumped.splitlines())


def _below(text: str, at: int, block: str) -> _Edit:
    """`block` behind the line in which `at` stands."""
    end = text.find("\n", at)
    return (len(text), len(text), f"\n{block}") if end < 0 else (end + 1, end + 1, block)


def _end(node: yaml.Node, text: str) -> int:
    """The end of a node's own text. The mark of a block stands behind the comments that follow it."""
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    end = int(node.end_mark.index)
    return node.start_mark.index + len(text[node.start_mark.index : end].rstrip())
