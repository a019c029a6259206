"""What clients ask of thinking: many spellings, one intent."""

import json
from typing import Any

import pytest

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.errors import InvalidRequest
from gateway.core.plan import make_plan
from gateway.core.thinking.intent import SPELLINGS, UNLIMITED, UNSAID, Intent

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
THINKING = [dialect for dialect in DIALECTS if dialect.output_fields]
EVERY = pytest.mark.parametrize("dialect", THINKING, ids=lambda dialect: dialect.name)
WRONG = {
    "_switch": 1,
    "_budget": "64",
    "_lax_budget": "many",
    "_effort": "ultra",
    "_low_effort": "yes",
    "_hide": 0,
    "_show": "no",
    "_task_budget": 2048,
    "_type": 1,
}


TASK = {"output_config": {"task_budget": {"type": "tokens", "total": 90_000, "remaining": 2048}}}
ENABLED = {"type": "enabled", "budget_tokens": 8192}


def at(path: str, value: Any) -> dict[str, Any]:
    """A body with `value` at `path`."""
    top, _, member = path.partition(".")
    return {top: {member: value} if member else value}


def intent(dialect: Dialect, body: dict[str, Any]) -> Intent:
    return dialect.read(json.dumps({"model": "m", **body}).encode()).intent


def refused(dialect: Dialect, body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        intent(dialect, body)
    return caught.value


@EVERY
def test_nothing_said_is_no_intent(dialect: Dialect) -> None:
    assert intent(dialect, {"reasoning": None, "thinking": {}, "chat_template_kwargs": {"x": 1}}) == UNSAID
    assert intent(dialect, {}) is UNSAID


@EVERY
@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.path)
def test_a_value_of_the_wrong_kind_names_its_field(dialect: Dialect, spelling: Any) -> None:
    error = refused(dialect, at(spelling.path, WRONG[spelling.means.__name__]))
    assert (error.param, error.code) == (spelling.path, "invalid_type")
    assert spelling.path in error.message


@EVERY
@pytest.mark.parametrize("field", ["chat_template_kwargs", "nvext", "nvidia", "reasoning", "thinking", "output_config"])
def test_a_field_that_holds_members_is_an_object(dialect: Dialect, field: str) -> None:
    assert refused(dialect, {field: True}).message == f"The field {field!r} must be an object, not a boolean."


@pytest.mark.parametrize("value", [True, 1.5, -2, "8", [], {}])
def test_a_budget_is_a_number_of_tokens(value: Any) -> None:
    assert refused(BY_NAME["chat"], {"reasoning_budget": value}).param == "reasoning_budget"


@EVERY
@pytest.mark.parametrize("value", ["2048", " 2048 ", 2048.0, "2048.0"])
def test_anthropics_budget_is_read_as_nodes_read_it(dialect: Dialect, value: Any) -> None:
    thinking = {"type": "enabled", "budget_tokens": value}
    assert intent(dialect, {"thinking": thinking}).budget == 2048


@pytest.mark.parametrize("value", ["many", 1.5, -2, "-2", True, [], {}])
def test_and_what_nodes_do_not_read_is_refused(value: Any) -> None:
    assert refused(BY_NAME["messages"], {"thinking": {"budget_tokens": value}}).param == "thinking.budget_tokens"


def test_an_unknown_effort_is_told_the_list() -> None:
    assert "none, minimal, low, medium, high, xhigh, max" in refused(BY_NAME["chat"], {"reasoning_effort": "x"}).message


@EVERY
@pytest.mark.parametrize(
    ("body", "one", "other"),
    [
        ({"enable_thinking": False, "thinking_budget": 8}, "enable_thinking", "thinking_budget"),
        ({"thinking_budget": 8, "enable_thinking": False}, "enable_thinking", "thinking_budget"),
        ({"reasoning_effort": "none", "reasoning_budget": 8}, "reasoning_effort", "reasoning_budget"),
        ({"thinking": {"type": "disabled", "budget_tokens": 9}}, "thinking.type", "thinking.budget_tokens"),
        ({"reasoning_effort": "none", "reasoning": {"enabled": True}}, "reasoning_effort", "reasoning.enabled"),
        ({"thinking_budget": 8, "reasoning_budget": 9}, "thinking_budget", "reasoning_budget"),
        ({"nvidia": {"low_effort": True}, "reasoning_effort": "high"}, "nvidia.low_effort", "reasoning_effort"),
        ({"include_reasoning": True, "reasoning": {"exclude": True}}, "include_reasoning", "reasoning.exclude"),
    ],
)
def test_contradictions_name_both_fields(dialect: Dialect, body: dict[str, Any], one: str, other: str) -> None:
    error = refused(dialect, body)
    assert (error.code, error.param) == ("contradiction", other)
    assert repr(one) in error.message and repr(other) in error.message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"enable_thinking": False, "thinking_budget": 0}, Intent(on=False, budget=0)),
        ({"enable_thinking": False, "reasoning_budget": -1}, Intent(on=False, budget=UNLIMITED)),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, Intent(on=False, effort="high")),
        ({"thinking_budget": 8, "reasoning_budget": 8}, Intent(budget=8)),
        ({"enable_thinking": True, "thinking_budget": 0}, Intent(on=True, budget=0)),
        ({"reasoning_effort": "low", "nvidia": {"low_effort": True}}, Intent(effort="low", low=True)),
        ({"output_config": {"task_budget": {"type": "tokens", "total": 90}}}, Intent(most=90)),
        ({"output_config": {"task_budget": {"total": 90, "remaining": "8"}}}, Intent(most=8)),
        ({"output_config": {"task_budget": {"type": None, "total": 90, "remaining": None}}}, Intent(most=90)),
        (
            {"output_config": {"task_budget": {"total": 90, "remaining": 0}}, "thinking_budget": 8},
            Intent(None, 8, most=0),
        ),
        ({"thinking": {"type": "between_tools"}}, Intent(on=False)),
    ],
)
def test_what_agrees_is_one_wish(body: dict[str, Any], expected: Intent) -> None:
    assert intent(BY_NAME["chat"], body)._replace(heeded=True, budget_field=None) == expected


@EVERY
@pytest.mark.parametrize(
    ("budget", "member"),
    [
        ({}, "total"),
        ({"total": -1}, "total"),
        ({"total": "many"}, "total"),
        ({"total": 9, "remaining": -1}, "remaining"),
        ({"total": 9, "remaining": True}, "remaining"),
        ({"type": "hours", "total": 9}, "type"),
        ({"type": [], "total": 9}, "type"),
    ],
)
def test_a_tasks_budget_is_tokens(dialect: Dialect, budget: dict[str, Any], member: str) -> None:
    error = refused(dialect, {"output_config": {"task_budget": budget}})
    assert (error.param, error.code) == (f"output_config.task_budget.{member}", "invalid_type")


@pytest.mark.parametrize("name", ["count_tokens", "embeddings", "tokenize", "detokenize"])
def test_what_generates_nothing_has_no_intent(name: str) -> None:
    assert intent(BY_NAME[name], {"reasoning_effort": "ultra"}) is UNSAID


@pytest.mark.parametrize(
    ("name", "body", "sent"),
    [
        ("chat", {"reasoning_budget": 64}, {"thinking_token_budget": 64}),
        ("chat", {"thinking": {"type": "disabled"}}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            "chat",
            {"chat_template_kwargs": {"x": 1}, "enable_thinking": True},
            {"chat_template_kwargs": {"x": 1, "enable_thinking": True}},
        ),
        ("chat", {"nvidia": {"low_effort": True}}, {"chat_template_kwargs": {"low_effort": True}}),
        ("chat", {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ("completions", {"reasoning": {"max_tokens": 64}}, {"thinking_token_budget": 64}),
        ("completions", {"enable_thinking": False}, {"thinking_token_budget": 0}),
        ("responses", {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ("messages", {"reasoning_budget": 2048}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ("messages", {"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("messages", TASK, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (
            "messages",
            {**TASK, "thinking": ENABLED},
            {"thinking": {**ENABLED, "budget_tokens": 2048}, "chat_template_kwargs": {"enable_thinking": True}},
        ),
        ("messages", {**TASK, "thinking": {**ENABLED, "budget_tokens": 1024}}, {}),
        ("messages", {"thinking": {"type": "between_tools"}}, {"thinking": {"type": "disabled"}}),
        ("chat", {**TASK, "reasoning_effort": "low"}, {"thinking_token_budget": 2048}),
        ("chat", {**TASK, "thinking_token_budget": 8}, {}),
        ("chat", {**TASK, "thinking_token_budget": -1}, {"thinking_token_budget": 2048}),
        ("chat", {**TASK, "enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_what_a_node_would_ignore_is_said_in_its_own_words(name: str, body: dict[str, Any], sent: Any) -> None:
    dialect = BY_NAME[name]
    ask = dialect.read(json.dumps({"model": "m", "store": False, **body}).encode())
    assert json.loads(make_plan(ask, dialect, "m", None, None).body) == {"model": "m", "store": False, **body, **sent}
