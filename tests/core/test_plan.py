"""Plans: what goes to a node is what came, but for what the gateway needs and what clients may not set."""

import json
from typing import Any

import pytest

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.dialects.base import FORBIDDEN_FIELDS
from gateway.core.dialects.response_ids import NONCE_BYTES, node_tag, open_id
from gateway.core.plan import IdMinting, Plan, make_plan

MINTING = IdMinting(b"key", b"n" * NONCE_BYTES, "tenant")
NODES = (node_tag("http://a"), node_tag("http://b"))
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
EVERY = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def plan(dialect: Dialect, body: dict[str, Any] | bytes, model: str = "m", **options: Any) -> Plan:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    minting = MINTING if dialect.mints_ids else None
    return make_plan(dialect.read(raw), dialect, model, minting, options.get("pinned_to"))


def sent(dialect: Dialect, body: dict[str, Any] | bytes, model: str = "m") -> Any:
    """What a node gets, less an id that the gateway chose."""
    parsed = json.loads(plan(dialect, body, model).body_for(NODES[0]))
    if dialect.mints_ids:
        parsed.pop("request_id", None)
    return parsed


@EVERY
def test_nothing_is_changed_that_need_not_be(dialect: Dialect) -> None:
    raw = b'{ "model":"m", "unknown" : [1.0, 1e3, {"priority": 1}], "store": false,\n"temperature": 0.10 }'
    made = plan(dialect, raw)
    assert made.body == raw
    assert made.body_for(NODES[0]) == raw
    assert (made.model, made.pinned_to) == ("m", None)


@EVERY
@pytest.mark.parametrize("field", sorted(FORBIDDEN_FIELDS))
@pytest.mark.parametrize("value", [None, 0, "x", {}, [1]])
def test_what_steers_the_engine_is_taken_out(dialect: Dialect, field: str, value: object) -> None:
    body = {"model": "m", field: value, "nested": {field: value}, "store": False}
    assert sent(dialect, body) == {"model": "m", "nested": {field: value}, "store": False}


@EVERY
def test_what_steers_the_engine_is_taken_out_however_it_is_spelled(dialect: Dialect) -> None:
    assert sent(dialect, b'{"model":"m","\\u0070riority":-1,"store":false}') == {"model": "m", "store": False}


@EVERY
@pytest.mark.parametrize("field", sorted([*FORBIDDEN_FIELDS, "kv_cache_report_mode"]))
def test_what_steers_the_engine_is_taken_out_of_its_arguments(dialect: Dialect, field: str) -> None:
    """vLLM hands `vllm_xargs` to its engine, which looks for the same things there."""
    body = {"model": "m", "store": False, "vllm_xargs": {field: "x", "ngram_size": 5}}
    assert sent(dialect, body) == {**body, "vllm_xargs": {"ngram_size": 5}}
    harmless = json.dumps({"model": "m", "store": False, "vllm_xargs": {"ngram_size": 5}}).encode()
    assert plan(dialect, harmless).body == harmless
    assert sent(dialect, {"model": "m", "store": False, "vllm_xargs": [field]})["vllm_xargs"] == [field]


@EVERY
def test_a_salt_is_the_tenants_whatever_the_client_sets(dialect: Dialect) -> None:
    raw = b'{"model":"m","cache_salt":"mine","store":false}'
    made = make_plan(dialect.read(raw), dialect, "m", None, None, salt="theirs")
    assert made.salted is dialect.takes_salt
    assert json.loads(made.body) == {"model": "m", "store": False, **({"cache_salt": "theirs"} if made.salted else {})}
    assert not plan(dialect, raw).salted


@EVERY
def test_an_alias_becomes_the_nodes_name(dialect: Dialect) -> None:
    body = {"model": "alias", "user": "alias", "store": False}
    assert sent(dialect, body, "real/name") == {**body, "model": "real/name"}


@EVERY
def test_no_model_stays_no_model(dialect: Dialect) -> None:
    assert sent(dialect, {"store": False}, "the only one") == {"store": False}


@pytest.mark.parametrize("name", ["chat", "completions"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {}}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        ({"stream_options": {"include_usage": None, "x": 1}}, {"include_usage": True, "x": 1}),
        ({"stream_options": {"include_usage": True}}, {"include_usage": True}),
        (
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
            {"include_usage": True, "continuous_usage_stats": True},
        ),
        ({"stream_options": {"continuous_usage_stats": True}}, {"include_usage": True}),
    ],
)
def test_usage_is_always_asked_of_a_stream(name: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    body = {"model": "m", "stream": True, **options, "x": 1}
    assert sent(BY_NAME[name], body) == {**body, "stream_options": expected}


@EVERY
@pytest.mark.parametrize("stream", [False, None])
def test_a_plain_request_is_asked_for_nothing_more(dialect: Dialect, stream: bool | None) -> None:
    body = {"model": "m", "stream": stream, "store": False}
    assert sent(dialect, body) == body


@pytest.mark.parametrize("name", ["responses", "messages", "count_tokens", "embeddings", "tokenize", "detokenize"])
def test_other_streams_are_left_alone(name: str) -> None:
    body = {"model": "m", "stream": True, "store": False}
    assert sent(BY_NAME[name], body) == body


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("responses", {"service_tier": "fast"}, {"service_tier": "auto"}),
        ("responses", {"service_tier": None}, {"service_tier": "auto"}),
        ("responses", {"service_tier": "flex"}, {}),
        ("responses", {"service_tier": ["fast"]}, {}),
        (
            "responses",
            {"include": ["web_search_call.results", "reasoning.encrypted_content", "web_search_call.action.sources"]},
            {"include": ["reasoning.encrypted_content"]},
        ),
        ("responses", {"include": ["message.output_text.logprobs"]}, {}),
        ("responses", {"include": "web_search_call.results"}, {}),
        ("responses", {"include": [{}, 5]}, {}),
        ("completions", {"n": None}, {"n": 1}),
        ("completions", {"n": 2}, {}),
        ("chat", {"n": None}, {}),
        ("chat", {"service_tier": "fast"}, {}),
    ],
)
def test_what_nodes_refuse_though_it_has_no_effect_there(name: str, given: Any, expected: dict[str, Any]) -> None:
    body = {"model": "m", "store": False, **given}
    assert sent(BY_NAME[name], body) == {**body, **expected}


@pytest.mark.parametrize("fields", [{}, {"store": True}, {"store": None}, {"request_id": "mine"}])
def test_a_stored_response_gets_an_id_that_names_its_node(fields: dict[str, Any]) -> None:
    made = plan(BY_NAME["responses"], {"model": "m", "input": "x", **fields})
    for node in NODES:
        body = json.loads(made.body_for(node))
        assert open_id(b"key", body.pop("request_id"), "tenant") == node
        assert body == {"model": "m", "input": "x", **{name: fields[name] for name in fields if name == "store"}}


def test_only_responses_get_ids() -> None:
    assert [dialect.name for dialect in DIALECTS if dialect.mints_ids] == ["responses"]


def test_a_continued_response_is_pinned() -> None:
    ask = BY_NAME["responses"].read(b'{"model":"m","previous_response_id":"resp_1"}')
    assert ask.continues == "resp_1"
    assert plan(BY_NAME["responses"], ask.raw, pinned_to=NODES[1]).pinned_to == NODES[1]
