"""Which requests say something of a node: none that a client could have made overrun a budget by itself."""

from typing import Any

import pytest

from gateway.core.budgets.judging import begins_in_thought, is_evidence, is_plain

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "thinking_token_budget": 8}
BEGUN = [*ASK["messages"], {"role": "assistant", "content": "Sure: one two"}]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1},
        {"temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3, "max_tokens": 100},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"tools": [{"type": "function"}], "tool_choice": "auto"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"system": "be brief", "thinking": {"type": "enabled", "budget_tokens": 1024}},
    ],
)
def test_a_plain_request_is_heard(fields: dict[str, Any]) -> None:
    assert is_plain({**ASK, **fields}) and is_evidence({**ASK, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"n": "4"},
        {"n": 1.0},
        {"n": True},
        {"best_of": 4},
        {"use_beam_search": True},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": False, "continue_final_message": True, "messages": BEGUN},
        {"messages": BEGUN},
        {"messages": "hello"},
        {"messages": []},
        {"chat_template": "{{ messages }}"},
        {"chat_template_kwargs": {"thinking": False}},
        {"chat_template_kwargs": "x"},
        {"logprobs": True},
        {"logit_bias": {"13": -100}},
        {"allowed_token_ids": [1, 2]},
        {"bad_words": ["</think>"]},
        {"min_tokens": 500},
        {"ignore_eos": True},
        {"stop": ["x" * 1000]},
        {"stop_token_ids": [13]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a*"}},
        {"skip_special_tokens": False},
        {"vllm_xargs": {"x": 1}},
        {"truncate_prompt_tokens": 1},
        {"something_new": 1},
    ],
)
def test_whatever_may_move_what_is_counted_is_not(fields: dict[str, Any]) -> None:
    assert not is_plain({**ASK, **fields}) and not is_evidence({**ASK, **fields})


@pytest.mark.parametrize("text", ["</think>", "<think>", "a </think> b"])
def test_markers_in_the_prompt_are_no_evidence(text: str) -> None:
    assert not is_evidence({**ASK, "messages": [{"role": "user", "content": text}]})
    assert not is_evidence({**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]})
    assert not is_evidence({**ASK, "system": text})


@pytest.mark.parametrize(
    ("fields", "begins"),
    [
        ({}, True),
        ({"add_generation_prompt": True, "continue_final_message": False}, True),
        ({"add_generation_prompt": None, "continue_final_message": None}, True),
        ({"add_generation_prompt": False}, False),
        ({"add_generation_prompt": 0}, False),
        ({"add_generation_prompt": "off"}, False),
        ({"continue_final_message": True}, False),
        ({"continue_final_message": "yes"}, False),
    ],
)
def test_an_answer_that_is_begun_has_no_thought_to_bound(fields: dict[str, Any], begins: bool) -> None:
    assert begins_in_thought({**ASK, **fields}) is begins
