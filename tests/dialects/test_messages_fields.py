"""Requests of messages with what no node understands, made what it does; and which nodes read the rest."""

import json
from typing import Any

import pytest

from gateway.core.dialects import DIALECTS, Ask
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.plan import make_plan
from gateway.core.upstream.node_request import node_request

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
SCHEMA = {"type": "json_schema", "schema": {"type": "object"}}
OTHER = {"type": "json_schema", "schema": {"type": "array"}}


def read(name: str = "messages", **fields: Any) -> Ask:
    body = {"model": "m", "max_tokens": 400, "messages": [{"role": "user", "content": "hi"}], **fields}
    ask = BY_NAME[name].read(json.dumps(body).encode())
    assert json.loads(ask.raw) == ask.body
    return ask


def path_to(version: tuple[int, ...] | None, **fields: Any) -> str:
    """The path of a node of `version` that is asked, which is trusted with what nobody asks for."""
    dialect = BY_NAME["messages"]
    plan = make_plan(read(**fields), dialect, "m", None, None)
    request = node_request(plan, b"node", Capabilities(version=version, native_off=True, native_budget=True))
    assert not request.needs_stream
    return request.path


@pytest.mark.parametrize("name", ["messages", "count_tokens"])
def test_between_tools_is_thinking_off(name: str) -> None:
    assert read(name, thinking={"type": "between_tools"}).body["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"output_format": SCHEMA}, {"format": SCHEMA}),
        ({"output_format": SCHEMA, "output_config": {"effort": "low"}}, {"effort": "low", "format": SCHEMA}),
        ({"output_format": SCHEMA, "output_config": {"format": SCHEMA}}, {"format": SCHEMA}),
        ({"output_format": None, "output_config": {"effort": "low"}}, {"effort": "low"}),
    ],
)
def test_the_formats_older_name(fields: dict[str, Any], config: Any) -> None:
    assert read(**fields).body["output_config"] == config


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"output_format": SCHEMA, "output_config": {"format": OTHER}}, "output_format", "contradiction"),
        ({"output_format": "json"}, "output_format", "invalid_type"),
        ({"output_format": SCHEMA, "output_config": []}, "output_config", "invalid_type"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields", [{"output_format": SCHEMA}, {"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}]
)
def test_nodes_that_ignore_a_field_are_asked_in_chat(fields: dict[str, Any], stream: bool) -> None:
    """vLLM 0.22 ignores `output_config`, and answers without the schema."""
    assert path_to((0, 22), **fields, stream=stream) == "/v1/chat/completions"
    assert path_to(None, **fields, stream=stream) == "/v1/chat/completions"
    assert path_to((0, 32), **fields, stream=stream) == "/v1/messages"


@pytest.mark.parametrize("version", [None, (0, 22), (0, 32)])
@pytest.mark.parametrize("fields", [{}, {"output_config": {}}, {"chat_template_kwargs": {"low_effort": True}}])
def test_other_requests_are_asked_as_they_came(version: Any, fields: dict[str, Any]) -> None:
    assert path_to(version, **fields) == "/v1/messages"
