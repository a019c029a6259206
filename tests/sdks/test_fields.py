"""docs/fields.md has every field of the newest SDKs' requests, and says what becomes of it."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import get_type_hints

from gateway.core.dialects import DIALECTS
from gateway.core.dialects.over_chat import OverChat, messages_over_chat, responses_over_chat
from gateway.core.errors import InvalidRequest
from gateway.core.plan import make_plan
from tests.sdks.drawing import Body, Drawing, fields_of
from tests.sdks.pages import Field, dialect_fields
from tests.sdks.requests import CALLS, LIKELY, Call

DECLARED: dict[str, list[str]] = json.loads((Path(__file__).parent / "vllm-0.32-fields.json").read_text())
"""The request fields that vLLM 0.32 declares; it ignores others. `tests/real/test_sdk_requests.py` compares them."""

TABLES = {
    "chat": dialect_fields("Chat"),
    "completions": dialect_fields("Completions"),
    "responses": dialect_fields("Responses"),
    "messages": dialect_fields("Messages"),
    "count_tokens": dialect_fields("Count tokens"),
    "embeddings": dialect_fields("Embeddings"),
}
BY_PATH = {dialect.path: dialect for dialect in DIALECTS}
FIELDS = [(call, name) for call in CALLS for name in sorted(fields_of(call.kind))]
EVERY_FIELD = pytest.mark.parametrize(("call", "name"), FIELDS, ids=[f"{call.method} {name}" for call, name in FIELDS])
BASES: dict[str, Body] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2000},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
}
FUNCTION: Body = {"type": "function", "name": "look", "parameters": {"type": "object"}}
TOOL: Body = {"name": "look", "input_schema": {"type": "object"}}
BESIDE: dict[tuple[str, str], Body] = {
    ("/v1/responses", "tool_choice"): {"tools": [FUNCTION]},
    ("/v1/responses", "top_logprobs"): {"include": ["message.output_text.logprobs"]},
    ("/v1/messages", "tool_choice"): {"tools": [TOOL]},
}
"""What has to stand beside a field for it to have its effect."""

DRAWS = 60
"""Values of each field that are tried."""


def row_of(call: Call, name: str) -> Field:
    return TABLES[BY_PATH[call.path].name][name]


def values(call: Call, name: str) -> list[Any]:
    """Values of a field that its SDK allows."""
    hint = get_type_hints(call.kind)[name]
    return [Drawing(random.Random(number), LIKELY).value(hint, name, 1) for number in range(DRAWS)]


def test_no_field_is_unlisted_and_none_is_made_up() -> None:
    known: dict[str, set[str]] = {dialect: set() for dialect in TABLES}
    for call in CALLS:
        known[BY_PATH[call.path].name] |= fields_of(call.kind) | ({"stream"} if call.streams else set())
    assert {dialect: set(table) for dialect, table in TABLES.items()} == known


@pytest.mark.parametrize("dialect", TABLES)
def test_what_a_node_does_with_a_field_it_declares(dialect: str) -> None:
    for name, row in TABLES[dialect].items():
        declared = name in DECLARED[dialect]
        assert row.effect in ("node", "rules", "gateway", "none", "header")
        if row.effect in ("node", "rules"):
            assert declared, f"{name}: nodes do not know it"
        elif row.effect == "none":
            assert not declared, f"{name}: nodes know it"


@EVERY_FIELD
def test_what_goes_to_the_node(call: Call, name: str) -> None:
    dialect, row = BY_PATH[call.path], row_of(call, name)
    if row.effect in ("rules", "header"):
        return
    for value in values(call, name):
        body = {"model": "m", **BASES[call.path], name: value}
        plan = make_plan(dialect.read(json.dumps(body).encode()), dialect, "m", None, None)
        assert json.loads(plan.body) == body


TRANSLATED: dict[str, Callable[[Body], OverChat]] = {
    "/v1/responses": responses_over_chat,
    "/v1/messages": messages_over_chat,
}
OVER_CHAT = [(call, name) for call, name in FIELDS if call.path in TRANSLATED]


@pytest.mark.parametrize(("call", "name"), OVER_CHAT, ids=[f"{call.method} {name}" for call, name in OVER_CHAT])
def test_what_it_is_over_chat(call: Call, name: str) -> None:
    translate, said = TRANSLATED[call.path], row_of(call, name).over_chat
    base = {"model": "other", **BASES[call.path], **BESIDE.get((call.path, name), {})}
    before = translate(base).chat
    changed: set[str] = set()
    refused = False
    for value in [*values(call, name), *([True] if name == "stream" else [])]:
        try:
            over = translate({**base, name: value})
        except InvalidRequest as error:
            refused = refused or error.param == name
            continue
        changed |= {key for key in over.chat.keys() | before.keys() if over.chat.get(key) != before.get(key)}
        if said == "repeated" and value is not None:
            assert answer_over_chat(over)[name] == value
    assert refused == (said == "400")
    wanted = set(re.findall(r"`(\w+)`", said))
    if said in ("none", "repeated", "400"):
        assert changed <= {name}, "only as unknown as it came, if at all"
    else:
        assert wanted and changed >= wanted and changed - wanted <= ALSO.get((call.path, name), set())


ALSO: dict[tuple[str, str], set[str]] = {
    ("/v1/responses", "input"): {"tools", "add_generation_prompt", "continue_final_message"},
    ("/v1/responses", "tool_choice"): {"tools"},
    ("/v1/responses", "tools"): {"tool_choice"},
}
"""What else a field may change in chat: an input that declares tools or goes on with an answer."""


def answer_over_chat(over: OverChat) -> Body:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    chat = {"id": "c", "created": 1, "model": "m", "choices": [choice]}
    made: Body = json.loads(over.plain(200, json.dumps(chat).encode()))
    return made
