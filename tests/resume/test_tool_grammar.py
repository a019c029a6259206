"""The grammar of an answer by `tool_choice`, as vLLM makes it. The expected values are what vLLM 0.32 made of them."""

import copy
import json
from typing import Any

import pytest

from gateway.core.resume.tool_grammar import grammar_of

SCHEMA = {"type": "object", "properties": {"s": {"$ref": "#/$defs/D"}}}
DEFINITIONS = {"D": {"type": "string"}}
EMPTY = {"type": "object", "properties": {}}
NAMED = {"type": "function", "function": {"name": "f"}}


def body_of(choice: Any = "auto", strict: bool | None = None, **fields: Any) -> dict[str, Any]:
    function: dict[str, Any] = {"name": "f", "parameters": {**SCHEMA, "$defs": DEFINITIONS}}
    if strict is not None:
        function["strict"] = strict
    tools = [{"type": "function", "function": function}, {"type": "function", "function": {"name": "g"}}]
    return {"tools": tools, "tool_choice": choice, **fields}


def one_of(*calls: tuple[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "anyOf": [
            {
                "properties": {"name": {"type": "string", "enum": [name]}, "parameters": parameters},
                "required": ["name", "parameters"],
            }
            for name, parameters in calls
        ],
    }


LIST = {"type": "array", "minItems": 1, "items": one_of(("f", SCHEMA), ("g", EMPTY)), "$defs": DEFINITIONS}


@pytest.mark.parametrize("parser", ["", "llama3_json"])
@pytest.mark.parametrize(
    ("body", "schema"),
    [
        (body_of("required"), LIST),
        (body_of("required", parallel_tool_calls=None), LIST),
        (body_of("required", parallel_tool_calls=False), {**LIST, "maxItems": 1}),
        (body_of(NAMED), {**SCHEMA, "$defs": DEFINITIONS}),
        (body_of({"type": "function", "function": {"name": "g"}}), EMPTY),
        (
            {"tools": [{"function": {"name": "g", "parameters": {}}}], "tool_choice": "required"},
            {"type": "array", "minItems": 1, "items": one_of(("g", EMPTY))},
        ),
    ],
)
def test_json(body: dict[str, Any], schema: dict[str, Any], parser: str) -> None:
    before = copy.deepcopy(body)
    assert grammar_of(body, parser) == {"json": schema}
    assert body == before


@pytest.mark.parametrize("parser", ["", "qwen3_coder", "hermes"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": [], "tool_choice": "required"},
        {"tools": [None, {"function": None}, {"function": {}}], "tool_choice": "required"},
        body_of("none", strict=True),
        body_of("auto"),
        body_of("auto", strict=False),
        body_of(None, strict=True),
        body_of("auto", strict=True, response_format={"type": "json_object"}),
        body_of("auto", strict=True, structured_outputs={"regex": "a"}),
        body_of({"type": "function", "function": {"name": "unknown"}}),
    ],
)
def test_no_grammar(body: dict[str, Any], parser: str) -> None:
    assert grammar_of(body, parser) is None


def test_without_a_choice_it_is_automatic() -> None:
    body = body_of(strict=True)
    del body["tool_choice"]
    assert grammar_of(body, "hermes") == grammar_of(body_of("auto", strict=True), "hermes")
    assert grammar_of(body) is None


def form_of(body: dict[str, Any], parser: str) -> dict[str, Any]:
    grammar = grammar_of(body, parser)
    assert grammar is not None
    assert set(grammar) == {"structural_tag"}
    tag = json.loads(grammar["structural_tag"])
    assert (set(tag), tag["type"]) == ({"type", "format"}, "structural_tag")
    form: dict[str, Any] = tag["format"]
    return form


def xml_tag(name: str, schema: Any = True) -> dict[str, Any]:
    content = {"type": "json_schema", "json_schema": schema, "style": "qwen_xml"}
    end = "\n</function>\n</tool_call>"
    return {"type": "tag", "begin": f"<tool_call>\n<function={name}>\n", "content": content, "end": end}


@pytest.mark.parametrize("parser", ["qwen3_coder", "qwen3_xml"])
def test_tags_of_xml(parser: str) -> None:
    text = {"type": "triggered_tags", "triggers": ["<tool_call>\n<function="], "excludes": ["<think>", "</think>"]}
    free = {**text, "tags": [xml_tag("f"), xml_tag("g")]}
    strict = {**text, "tags": [xml_tag("f", {**SCHEMA, "$defs": DEFINITIONS}), xml_tag("g")]}
    assert form_of(body_of("required"), parser) == {**free, "at_least_one": True}
    assert form_of(body_of("required", strict=True), parser) == {**strict, "at_least_one": True}
    assert form_of(body_of("auto", strict=True), parser) == strict
    assert form_of(body_of("auto", parallel_tool_calls=False), parser) == {**free, "stop_after_first": True}
    assert form_of(body_of(NAMED), parser) == xml_tag("f")
    assert form_of(body_of(NAMED, parallel_tool_calls=False), parser) == xml_tag("f")


def json_tags(name: str, schema: Any = True) -> list[dict[str, Any]]:
    content = {"type": "json_schema", "json_schema": schema}
    begin = '{"name": "' + name + '", "arguments": '
    return [
        {"type": "tag", "begin": f"<tool_call>\n{begin}", "content": content, "end": "}\n</tool_call>"},
        {"type": "tag", "begin": f"<tool_call>{begin}", "content": content, "end": "}</tool_call>"},
    ]


@pytest.mark.parametrize("parser", ["hermes", "qwen3_json"])
def test_tags_of_json(parser: str) -> None:
    calls = {"type": "tags_with_separator", "separator": "", "at_least_one": True}
    text = {"type": "triggered_tags", "triggers": ["<tool_call>"]}
    free = [*json_tags("f"), *json_tags("g")]
    strict = [*json_tags("f", {**SCHEMA, "$defs": DEFINITIONS}), *json_tags("g")]
    once = {"stop_after_first": True}
    assert form_of(body_of("required"), parser) == {**calls, "tags": free}
    assert form_of(body_of("required", parallel_tool_calls=False), parser) == {**calls, "tags": free, **once}
    assert form_of(body_of(NAMED), parser) == {**calls, "tags": json_tags("f"), **once}
    assert form_of(body_of("auto", strict=True), parser) == {**text, "tags": strict}
    assert form_of(body_of("auto", parallel_tool_calls=False), parser) == {**text, "tags": free, **once}
