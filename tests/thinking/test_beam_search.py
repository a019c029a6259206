"""A budget that nobody can hold is refused, and what asks for none is let pass."""

import json
from typing import Any

import pytest

from gateway.core.dialects import DIALECTS
from gateway.core.errors import InvalidRequest
from gateway.core.plan import Plan, make_plan
from gateway.core.thinking.decision import ThinkingRules, refuse_unholdable
from gateway.core.thinking.policy import Policy
from gateway.core.thinking.resolved import resolve

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
ASKS: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "completions": {"prompt": "hi"},
}


def plan_of(dialect: str, **fields: Any) -> Plan:
    body = {"model": "m", **ASKS[dialect], **fields}
    return make_plan(BY_NAME[dialect].read(json.dumps(body).encode()), BY_NAME[dialect], "m", None, None)


@pytest.mark.parametrize("dialect", ASKS)
def test_a_beam_search_beside_a_budget_is_refused_by_name(dialect: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plan_of(dialect, use_beam_search=True, n=2, thinking_token_budget=8)
    assert (refused.value.param, refused.value.code) == ("use_beam_search", "thinking_budget_not_enforceable")


@pytest.mark.parametrize("dialect", ASKS)
@pytest.mark.parametrize(
    "fields",
    [
        {"use_beam_search": True, "n": 2},
        {"use_beam_search": True, "n": 2, "thinking_token_budget": -1},
        {"use_beam_search": False, "thinking_token_budget": 8},
        {"thinking_token_budget": 8},
    ],
)
def test_what_asks_for_one_of_them_is_not(dialect: str, fields: dict[str, Any]) -> None:
    plan_of(dialect, **fields)


def test_an_operators_budget_is_no_less_held() -> None:
    rules = Policy(resolve(ThinkingRules(), [("tenant", ThinkingRules(max_budget=100))]), None)
    raw = json.dumps({"model": "m", **ASKS["chat"], "use_beam_search": True}).encode()
    with pytest.raises(InvalidRequest) as refused:
        make_plan(BY_NAME["chat"].read(raw), BY_NAME["chat"], "m", None, None, rules)
    assert refused.value.param == "use_beam_search"


def test_thinking_that_the_template_switches_off_needs_no_budget() -> None:
    plan_of("chat", use_beam_search=True, n=2, chat_template_kwargs={"enable_thinking": False})


@pytest.mark.parametrize("on", [True, 1, 1.0, "1", "true", "True", "on", "yes", "y", "t", [], {}])
def test_every_spelling_that_is_not_off_is_on(on: object) -> None:
    with pytest.raises(InvalidRequest):
        refuse_unholdable({"use_beam_search": on}, 0)


@pytest.mark.parametrize("off", [None, False, 0, 0.0, "0", "false", "False", "off", "no", "n", "f"])
def test_and_off_is_off(off: object) -> None:
    refuse_unholdable({"use_beam_search": off}, 0)
