"""The grammar that a node holds an answer to, by `tool_choice`, as a field of `/v1/completions`.

In chat a node derives it from the request's tools; in completions it has to be sent.

    tool_choice   JSON (any version)                     a parser's tags (0.32, `--tool-call-parser`)
    none          no grammar                             no grammar
    auto          no grammar                             where a tool is strict, or calls may not be parallel: text, and
                                                         calls in tags
    required      a list of {"name", "parameters"}       calls in tags
    a function    the function's arguments               one call in tags

Which of the two a node uses depends on its version, its parser and its environment. Both give the same calls, see
`RawAnswer`. Arguments are held to the schema in JSON, and to that of strict tools alone in tags.
"""

import json
from typing import Any

from gateway.core.bodies import Body
from gateway.core.resume.raw_answer import tool_choice_of

_XML, _JSON = "qwen_xml", "json"
_STYLES = {"qwen3_coder": _XML, "qwen3_xml": _XML, "hermes": _JSON, "qwen3_json": _JSON}
"""The form of the arguments by `--tool-call-parser`."""

_ANY_ARGUMENTS = {"type": "object", "properties": {}}


def grammar_of(body: Body, parser: str = "") -> dict[str, Any] | None:
    """The `structured_outputs` field; None where the tools give no grammar.

    `body`: the chat request. `parser`: the node's tool parser; without it, and with others than `qwen3_coder` and
    `hermes`, the grammar is JSON's. A grammar of the client's own (`response_format`, `structured_outputs`) is no
    matter of this: it holds where this is None, and nodes leave it out where this is not.
    """
    choice, name = tool_choice_of(body)
    functions = _functions(body)
    if choice == "named":
        functions = [function for function in functions if function["name"] == name][:1]
    if choice == "none" or not functions:
        return None
    if parser in _STYLES:
        return _tagged(body, choice, functions, _STYLES[parser])
    if choice == "required":
        return {"json": _list_schema(functions, body.get("parallel_tool_calls") is False)}
    return {"json": functions[0].get("parameters") or _ANY_ARGUMENTS} if choice == "named" else None


def _functions(body: Body) -> list[dict[str, Any]]:
    functions = [tool.get("function") for tool in body.get("tools") or () if isinstance(tool, dict)]
    return [known for known in functions if isinstance(known, dict) and isinstance(known.get("name"), str)]


def _list_schema(functions: list[dict[str, Any]], single: bool) -> dict[str, Any]:
    """The schema of a list of calls. The functions' definitions are shared, so that their references hold."""
    definitions: dict[str, Any] = {}
    calls = []
    for function in functions:
        given = function.get("parameters")
        parameters = dict(given) if isinstance(given, dict) and given else dict(_ANY_ARGUMENTS)
        shared = parameters.pop("$defs", None)
        definitions |= shared if isinstance(shared, dict) else {}
        named = {"type": "string", "enum": [function["name"]]}
        calls.append({"properties": {"name": named, "parameters": parameters}, "required": ["name", "parameters"]})
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "object", "anyOf": calls}}
    if single:
        schema["maxItems"] = 1
    if definitions:
        schema["$defs"] = definitions
    return schema


def _tagged(body: Body, choice: str, functions: list[dict[str, Any]], style: str) -> dict[str, Any] | None:
    single = body.get("parallel_tool_calls") is False
    if choice == "auto" and not _constrains(body, functions, single):
        return None
    form = _xml_form(choice, functions) if style == _XML else _json_form(choice, functions)
    if single and form["type"] != "tag":
        form["stop_after_first"] = True
    return {"structural_tag": json.dumps({"type": "structural_tag", "format": form}, ensure_ascii=False)}


def _constrains(body: Body, functions: list[dict[str, Any]], single: bool) -> bool:
    """Whether a node holds an answer that may call to a grammar of calls alone."""
    if body.get("tool_choice", "auto") is None or body.get("response_format") or body.get("structured_outputs"):
        return False
    return single or any(function.get("strict") is True for function in functions)


def _xml_form(choice: str, functions: list[dict[str, Any]]) -> dict[str, Any]:
    begin = "<tool_call>\n<function="
    tags = [
        _tag(f"{begin}{function['name']}>\n", function, "\n</function>\n</tool_call>", style=_XML)
        for function in functions
    ]
    if choice == "named":
        return tags[0]
    form = {"type": "triggered_tags", "triggers": [begin], "tags": tags, "excludes": ["<think>", "</think>"]}
    return form if choice == "auto" else {**form, "at_least_one": True}


def _json_form(choice: str, functions: list[dict[str, Any]]) -> dict[str, Any]:
    tags = [
        _tag(f'<tool_call>{line}{{"name": "{function["name"]}", "arguments": ', function, f"}}{line}</tool_call>")
        for function in functions
        for line in ("\n", "")
    ]
    if choice == "auto":
        return {"type": "triggered_tags", "triggers": ["<tool_call>"], "tags": tags}
    form = {"type": "tags_with_separator", "tags": tags, "separator": "", "at_least_one": True}
    return {**form, "stop_after_first": True} if choice == "named" else form


def _tag(begin: str, function: dict[str, Any], end: str, **style: str) -> dict[str, Any]:
    """A call in tags. The arguments of a function that is not strict are free."""
    parameters = function.get("parameters") if function.get("strict") is True else None
    content = {"type": "json_schema", "json_schema": True if parameters is None else parameters, **style}
    return {"type": "tag", "begin": begin, "content": content, "end": end}
