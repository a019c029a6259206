"""Usage: what each dialect calls its tokens, and finding it in an answer without reading the answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects.answers import find_error_message, find_usage
from gateway.core.usage.token_usage import MOST_TOKENS, Usage, from_anthropic, from_openai

BOTH = {"prompt_tokens": 3, "completion_tokens": 4}


@pytest.mark.parametrize(
    ("given_usage", "expected"),
    [
        ({}, Usage()),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, Usage(3, 4)),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, Usage(3, 4)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            Usage(3, 4, reasoning=1, cached=2),
        ),
        (
            {
                "input_tokens": 3,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 9},
            },
            Usage(3, 4, reasoning=0, cached=0),
        ),
        ({"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None}, Usage(3, 0)),
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 9}},
            Usage(3, 4, 4),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 10**400}},
            Usage(3, 4, None, 3),
        ),
        ({"prompt_tokens": MOST_TOKENS, "completion_tokens": MOST_TOKENS}, Usage(MOST_TOKENS, MOST_TOKENS)),
        ({"prompt_tokens": 3, "prompt_tokens_details": [1], "completion_tokens_details": "x"}, Usage(3)),
    ],
)
def test_openai(given_usage: dict[str, Any], expected: Usage) -> None:
    assert from_openai(given_usage) == expected


@pytest.mark.parametrize("count", ["3", -4, True, 4.0, float("nan"), float("inf"), MOST_TOKENS + 1, 10**400, [], {}])
def test_a_usage_with_a_count_that_is_none_is_not_believed(count: Any) -> None:
    """It is estimated then, as where the node does not say. It would be taken of a tenant's limit, or given to it."""
    assert from_openai({"prompt_tokens": 3, "completion_tokens": count}) is None
    assert from_openai({"prompt_tokens": count, "completion_tokens": 4}) is None
    assert from_openai({"input_tokens": count}) is None
    assert from_anthropic({"input_tokens": 3, "output_tokens": count}) is None
    assert from_anthropic({"cache_read_input_tokens": count}, Usage(3, 4)) == Usage(3, 4)
    assert from_anthropic({"cache_creation_input_tokens": count}, Usage(3, 4)) == Usage(3, 4)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([{"input_tokens": 3, "output_tokens": 4}], Usage(3, 4)),
        ([{"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 4}], Usage(5, 4, cached=2)),
        ([{"input_tokens": 3, "output_tokens": 0}, {"output_tokens": 4}], Usage(3, 4)),
        ([{"input_tokens": 3, "output_tokens": 1}, {"input_tokens": 3, "output_tokens": 4}], Usage(3, 4)),
        ([{"input_tokens": 3, "cache_read_input_tokens": 2}, {"output_tokens": 4}], Usage(5, 4, cached=2)),
        (
            [{"input_tokens": 3, "cache_read_input_tokens": 2}, {"input_tokens": 3, "output_tokens": 4}],
            Usage(5, 4, cached=2),
        ),
        (
            [{"input_tokens": 3, "cache_creation_input_tokens": 90, "cache_read_input_tokens": 7, "output_tokens": 4}],
            Usage(100, 4, cached=7),
        ),
        (
            [
                {"input_tokens": 100, "output_tokens": 0},
                {"input_tokens": 3, "cache_creation_input_tokens": 90, "cache_read_input_tokens": 7},
                {"output_tokens": 4},
            ],
            Usage(100, 4, cached=7),
        ),
        (
            [
                {"input_tokens": 3, "cache_creation_input_tokens": 97, "output_tokens": 0},
                {"input_tokens": 3, "output_tokens": 4},
            ],
            Usage(100, 4),
        ),
        ([{"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": 2}}], Usage(3, 4, 2)),
        ([{"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": 9}}], Usage(3, 4, 4)),
        ([{"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": "2"}}], Usage(3, 4)),
        ([{"input_tokens": 3, "output_tokens": 4, "output_tokens_details": None}], Usage(3, 4)),
        ([{"input_tokens": None, "output_tokens": "4"}], None),
        ([{"input_tokens": 3, "output_tokens": 1}, {"output_tokens": "4"}], Usage(3, 1)),
    ],
)
def test_anthropic(events: list[dict[str, Any]], expected: Usage | None) -> None:
    """`input` includes what was found in the cache or written there, whichever of a stream's events told of it."""
    usage: Usage | None = None
    for told in events:
        usage = from_anthropic(told, usage)
    assert usage == expected


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")])
@pytest.mark.parametrize(
    "answer",
    [
        {"usage": BOTH},
        {"id": "x", "choices": [{"message": {"content": '"usage":{"prompt_tokens":9}'}}], "usage": BOTH},
        {"choices": [{"message": {"content": "\\"}}], "usage": BOTH, "system_fingerprint": "x"},
        {"usage": BOTH, "prompt_logprobs": [None, {"17": {"logprob": -0.1, "decoded_token": "usage"}}]},
        {"usage": BOTH, "prompt_token_ids": list(range(5000))},
        {"choices": [{"logprobs": {"content": [{"token": "usage"}]}}], "usage": BOTH},
    ],
)
def test_usage_is_found_in_an_answer(answer: dict[str, Any], separators: tuple[str, str]) -> None:
    assert find_usage(json.dumps(answer, separators=separators).encode()) == BOTH


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"usage":null}', b'{"usage":5}', b'{"usage":{', b'"usage"', b"\xff"])
def test_where_there_is_none_none_is_found(answer: bytes) -> None:
    assert find_usage(answer) is None


@pytest.mark.parametrize(
    "usage",
    [
        {**BOTH, "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"a": {"b": {}}}},
        {"note": "}", **BOTH},
        {"note": "{{", **BOTH, "more": {"note": "}{"}},
        {"note": "}}}", **BOTH, "more": {"note": '\\"}'}},
    ],
)
def test_usage_ends_where_its_object_ends(usage: dict[str, Any]) -> None:
    """Whatever braces stand in it and behind it."""
    answer = {"usage": usage, "service_tier": "{", "more": {"a": "}"}}
    assert find_usage(json.dumps(answer, separators=(",", ":")).encode()) == usage


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_is_never_taken_for_usage(before: str, after: str) -> None:
    answer = {"content": before, "usage": BOTH, "more": after}
    assert find_usage(json.dumps(answer, ensure_ascii=False).encode(errors="replace")) == BOTH
    assert find_usage(json.dumps({"content": before + '"usage":{}' + after}).encode()) is None


@given(st.binary(max_size=60))
def test_noise_has_no_usage(noise: bytes) -> None:
    found = find_usage(noise)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"error":{"message":"no","type":"x","code":400}}', "no"),
        (b'{"type":"error","error":{"type":"x","message":"no"}}', "no"),
        (b'{"error":"no"}', None),
        (b'{"error":{"message":5}}', None),
        (b'{"detail":"Not Found"}', None),
        (b"[]", None),
        (b"Bad Gateway", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_the_message_of_a_nodes_error(answer: bytes, message: str | None) -> None:
    assert find_error_message(answer) == message
