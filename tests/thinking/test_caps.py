"""How long an answer may be: asked for, by default, at most, and beside its prompt in the window."""

import json
from typing import Any

import pytest

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.errors import InvalidRequest
from gateway.core.plan import Plan, make_plan
from gateway.core.thinking.caps import LEAST_ROOM, OutputRules, room_for
from gateway.core.thinking.policy import PolicyBook, PolicyLayer
from gateway.core.thinking.sizes import MEDIA_TOKENS, estimate_input

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
EVERY = pytest.mark.parametrize(
    "dialect", [each for each in DIALECTS if each.output_fields], ids=lambda each: each.name
)


def plan(dialect: Dialect, body: dict[str, Any], rules: OutputRules, window: int | None = None) -> Plan:
    raw = json.dumps({"model": "m", "store": False, **body}).encode()
    terms = PolicyBook().of(PolicyLayer(output=rules), "m")
    return make_plan(dialect.read(raw), dialect, "m", None, None, terms, window)


def sent(made: Plan) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(made.body)
    return {name: body[name] for name in made.dialect.output_fields if name in body}


@EVERY
def test_none_asked_for_is_the_default(dialect: Dialect) -> None:
    made = plan(dialect, {}, OutputRules(default_tokens=64, max_tokens=128))
    assert (made.max_tokens, sent(made)) == (64, {dialect.output_fields[-1]: 64})
    assert made.headers == ((b"x-fleetgate-max-tokens", b"64; source=tenant-default"),)


@EVERY
def test_without_a_default_the_most_is_the_default(dialect: Dialect) -> None:
    assert plan(dialect, {dialect.output_fields[0]: None}, OutputRules(max_tokens=128)).max_tokens == 128


@EVERY
def test_more_than_the_most_is_clamped(dialect: Dialect) -> None:
    for field in dialect.output_fields:
        made = plan(dialect, {field: 1000}, OutputRules(max_tokens=128))
        assert (made.max_tokens, sent(made)) == (128, {field: 128})
        assert made.headers == ((b"x-fleetgate-max-tokens", b"128; source=tenant-max; asked=1000"),)


@EVERY
def test_more_than_the_most_is_refused_where_that_is_wanted(dialect: Dialect) -> None:
    field = dialect.output_fields[0]
    with pytest.raises(InvalidRequest, match=f"The field '{field}' is 1000, and at most 128 is allowed") as caught:
        plan(dialect, {field: 1000}, OutputRules(max_tokens=128, on_excess="reject"))
    assert (caught.value.param, caught.value.code) == (field, "max_tokens_exceeded")
    assert caught.value.headers == {"x-fleetgate-max-tokens": "128; source=tenant-max; asked=1000"}
    assert plan(dialect, {}, OutputRules(max_tokens=128, on_excess="reject")).max_tokens == 128


@EVERY
@pytest.mark.parametrize("value", ["many", 1.5, [], {}, -1])
def test_a_limit_that_is_no_integer_cannot_slip_through(dialect: Dialect, value: object) -> None:
    field = dialect.output_fields[0]
    with pytest.raises(InvalidRequest) as caught:
        plan(dialect, {field: value}, OutputRules(max_tokens=128))
    assert (caught.value.param, caught.value.code) == (field, "invalid_type")


@EVERY
@pytest.mark.parametrize("value", ["100000", " 1_000 ", 1e6])
def test_a_limit_in_another_spelling_is_read_as_nodes_read_it(dialect: Dialect, value: object) -> None:
    """vLLM takes "100000" for 100000."""
    field = dialect.output_fields[0]
    made = plan(dialect, {field: value}, OutputRules(max_tokens=128))
    assert (made.max_tokens, sent(made)) == (128, {field: 128})


def test_both_of_chats_fields_are_bounded() -> None:
    """vLLM heeds max_completion_tokens where both are there."""
    made = plan(BY_NAME["chat"], {"max_tokens": 9, "max_completion_tokens": 1000}, OutputRules(max_tokens=128))
    assert (made.max_tokens, sent(made)) == (128, {"max_completion_tokens": 128, "max_tokens": 128})


@EVERY
def test_less_than_the_most_goes_through_as_it_came(dialect: Dialect) -> None:
    made = plan(dialect, {dialect.output_fields[0]: 100}, OutputRules(max_tokens=128))
    assert (made.max_tokens, made.body) == (100, made.ask.raw)
    assert made.headers == ((b"x-fleetgate-max-tokens", b"100; source=request"),)


def test_prompt_and_answer_stay_inside_the_window() -> None:
    words = [{"role": "user", "content": "word " * 1600}]  # 8,004 bytes of text, about 2,000 tokens
    made = plan(BY_NAME["chat"], {"messages": words}, OutputRules(default_tokens=4000), window=4096)
    assert (made.input_tokens, made.max_tokens) == (2001, 4096 - 2501 - 64)
    assert made.headers == ((b"x-fleetgate-max-tokens", b"1531; source=window"),)
    assert plan(BY_NAME["chat"], {"messages": words}, OutputRules(default_tokens=4000)).max_tokens == 4000


def test_a_full_window_refuses_nothing_and_cuts_nothing() -> None:
    words = [{"role": "user", "content": "word " * 6000}]
    made = plan(BY_NAME["chat"], {"messages": words, "max_tokens": 1000}, OutputRules(max_tokens=4000), window=4096)
    assert made.max_tokens == LEAST_ROOM
    assert json.loads(made.body)["messages"] == words
    assert room_for(4096, 10**9) == LEAST_ROOM


def test_with_several_answers_all_of_them_count() -> None:
    for body, choices in (({"n": 3}, 3), ({"prompt": ["a", "b"], "n": 2}, 4), ({"prompt": [[1], [2]]}, 2)):
        made = plan(BY_NAME["completions"], body, OutputRules(max_tokens=10))
        assert (made.max_tokens, made.output_tokens) == (10, 10 * choices)
    assert plan(BY_NAME["chat"], {}, OutputRules()).output_tokens is None


@pytest.mark.parametrize("body", [{"max_tokens": -1000}, {"n": -1000, "max_tokens": 5}, {"n": 0, "max_tokens": 5}])
def test_nobody_can_ask_for_less_than_nothing(body: dict[str, Any]) -> None:
    """What limits reserve would be a gift otherwise. What the node says to such a body is its own."""
    made = make_plan(BY_NAME["chat"].read(json.dumps(body).encode()), BY_NAME["chat"], "m", None, None)
    assert made.output_tokens in (None, 5)
    assert json.loads(made.body) == body


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 1),
        ({"messages": [{"role": "user", "content": "x" * 36}]}, 10),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 32}]}]}, 10),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"image_url": {"url": "data:" + "x" * 999}, "text": "x" * 36}]}
                ]
            },
            10 + MEDIA_TOKENS,
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "data": "word " * 8}]}]}, 13 + MEDIA_TOKENS),
        ({"tools": [{"function": {"url": "x" * 40}}], "documents": [{"text": "x" * 40}]}, 20),
        ({"tokens": [1] * 7}, 7),
        ({"prompt": [1.0, True, 3]}, 3),
        ({"system": "x" * 20, "messages": [{"role": "user", "content": "x" * 16}]}, 10),
        ({"input": "x" * 20, "instructions": "x" * 20}, 10),
        ({"prompt": "é" * 20}, 10),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2, 3], [4]]}, 4),
        ({"prompt": "x" * 40, "metadata": "x" * 999}, 10),
    ],
)
def test_a_prompts_size_is_told_by_its_text(body: dict[str, Any], tokens: int) -> None:
    assert estimate_input(body, 4.0) == tokens


def test_the_ratio_is_the_callers() -> None:
    assert estimate_input({"prompt": "x" * 40}, 2.0) == 20
