"""What pressure leaves of budgets, and which requests it leaves alone."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.errors import InvalidRequest
from gateway.core.plan import Plan, make_plan
from gateway.core.pressure.pressed_plan import PressedPlan, press
from gateway.core.pressure.squeeze import Squeeze, SqueezeRules, ThinkingClaim
from gateway.core.thinking.decision import ThinkingRules
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.policy import Policy, PolicyBook, PolicyLayer
from tests.support.compiled import slots_of

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
RULES = SqueezeRules(default_budget=8000, budget_floor=256, weights={"interactive": 0.5, "standard": 1.0, "batch": 2.0})
HALF = Squeeze(0.5, RULES)
NATIVE = Squeeze(0.5, RULES, native=True)
NONE = Squeeze(1.0, RULES)
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
PICTURE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}


def terms_of(**rules: Any) -> Policy | None:
    return PolicyBook().of(PolicyLayer(ThinkingRules(**rules)), "m")


def pressed(
    body: dict[str, Any],
    squeeze: Squeeze = HALF,
    policy: Policy | None = None,
    dialect: Dialect = BY_NAME["chat"],
    traffic_class: str = "standard",
) -> tuple[Plan, PressedPlan]:
    raw = json.dumps({"model": "m", "store": False, **body}).encode()
    plan = make_plan(dialect.read(raw), dialect, "m", None, None, policy)
    rules = None if policy is None or policy.thinking is None else policy.thinking.rules
    return plan, press(plan, squeeze, rules, traffic_class)


def told(plan: Plan) -> str | None:
    return next((value.decode() for name, value in plan.headers if name == b"x-fleetgate-thinking-budget"), None)


@pytest.mark.parametrize(
    ("body", "rules", "traffic_class", "budget", "header"),
    [
        ({"thinking_budget": 4000}, {}, "standard", 2000, "2000; source=pressure; asked=4000"),
        ({"thinking_budget": 4000}, {}, "interactive", 2828, "2828; source=pressure; asked=4000"),
        ({"thinking_budget": 4000}, {}, "batch", 1000, "1000; source=pressure; asked=4000"),
        ({"thinking_budget": 4000}, {}, "unheard of", 2000, "2000; source=pressure; asked=4000"),
        ({"thinking_budget": 300}, {}, "standard", 256, "256; source=pressure; asked=300"),
        ({"thinking_budget": 200}, {}, "standard", 200, None),
        ({"thinking_budget": 4000}, {"guaranteed_budget": 3000}, "batch", 3000, "3000; source=pressure; asked=4000"),
        ({"thinking_budget": 4000}, {"guaranteed_budget": 4000}, "batch", 4000, "4000; source=request"),
        ({"thinking_budget": 4000}, {"guaranteed_budget": 9000}, "batch", 4000, "4000; source=request"),
        ({"thinking_budget": 4000}, {"max_budget": 3000}, "standard", 1500, "1500; source=pressure; asked=4000"),
        ({"thinking_budget": 4000}, {"floor": 2500}, "standard", 2500, "2500; source=pressure; asked=4000"),
        (
            {"reasoning_effort": "high"},
            {"efforts": {"high": 8000}},
            "standard",
            4000,
            "4000; source=pressure; asked=high",
        ),
        ({}, {"default_budget": 8000}, "standard", 4000, "4000; source=pressure"),
        ({}, {}, "standard", 4000, "4000; source=pressure"),
        ({}, {"guaranteed_budget": 5000}, "standard", 5000, "5000; source=pressure"),
        ({}, {"guaranteed_budget": 20_000}, "standard", 20_000, "20000; source=pressure"),
        ({"max_tokens": 4000}, {}, "standard", None, None),
        ({"thinking_token_budget": -1}, {}, "standard", 4000, "4000; source=pressure; asked=unlimited"),
        ({"enable_thinking": True}, {}, "standard", 4000, "4000; source=pressure; asked=on"),
        ({"enable_thinking": False}, {}, "standard", 0, None),
        ({"thinking_budget": 0}, {}, "standard", 0, None),
        ({"thinking_budget": 4000}, {"mode": "forbidden"}, "standard", 0, None),
        ({"thinking_budget": 4000, **TOOLS}, {}, "standard", 4000, None),
        ({"thinking_budget": 4000, **PICTURE}, {}, "standard", 4000, None),
        ({"thinking_budget": 4000, "n": 2}, {}, "standard", 4000, None),
        ({**TOOLS}, {}, "standard", None, None),
        ({"use_beam_search": True}, {}, "standard", None, None),
    ],
)
def test_a_budget(body: Any, rules: Any, traffic_class: str, budget: int | None, header: str | None) -> None:
    plan, (made, _) = pressed(body, HALF, terms_of(**rules), traffic_class=traffic_class)
    assert made.thinking_budget == budget
    if made is plan:
        return
    assert told(made) == header
    sent = json.loads(made.body)
    assert sent["thinking_token_budget"] == budget
    assert {**sent, "thinking_token_budget": None} == {**json.loads(plan.body), "thinking_token_budget": None}


def test_nodes_that_hold_budgets_hold_them_beside_tools_too() -> None:
    for body in (TOOLS, PICTURE, {"n": 2}):
        assert pressed({"thinking_budget": 4000, **body}, NATIVE)[1].plan.thinking_budget == 2000
    with_tools = terms_of(floor_with_tools=3000)
    assert pressed({"thinking_budget": 4000, **TOOLS}, NATIVE, with_tools)[1].plan.thinking_budget == 3000
    assert pressed({"use_beam_search": True}, NATIVE)[1].plan.thinking_budget is None


def test_a_model_that_does_not_think_gets_no_budget() -> None:
    plan, made = pressed({}, Squeeze(0.5, RULES, thinks=False))
    assert made == (plan, None)


def test_without_pressure_plans_stay_and_may_be_ended_later() -> None:
    for body in ({}, {"thinking_budget": 4000}, {"enable_thinking": False}):
        plan, made = pressed(body, NONE)
        assert made.plan is plan
        assert made.claim == (ThinkingClaim(4000, 0, "standard") if plan.thinking_budget == 4000 else None)


def test_dialects_carry_what_is_left() -> None:
    ask = {"thinking_budget": 4000}
    completions = pressed({**ask, "prompt": "<think>"}, dialect=BY_NAME["completions"])[1].plan
    assert json.loads(completions.body)["thinking_token_budget"] == 2000
    assert pressed({"prompt": "hello"}, dialect=BY_NAME["completions"])[1].plan.thinking_budget is None
    message = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20_000}
    messages = pressed({**message, **ask}, dialect=BY_NAME["messages"])[1].plan
    assert json.loads(messages.body)["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    small = pressed({**message, "thinking_budget": 2000}, dialect=BY_NAME["messages"])[1].plan
    assert small.thinking_budget == 1000 and not small.carried, "it is sent as chat"
    responses = pressed({"input": "hello"}, dialect=BY_NAME["responses"])[1].plan
    assert responses.thinking_budget == 4000 and not responses.carried
    assert pressed({"input": "hello", "store": True}, dialect=BY_NAME["responses"])[1].plan.thinking_budget is None
    picture = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]
    assert pressed({"input": picture}, dialect=BY_NAME["responses"])[1].plan.thinking_budget is None
    for dialect in DIALECTS:
        if not dialect.output_fields:
            plan, made = pressed({"input": "x", "prompt": "x", "messages": []}, dialect=dialect)
            assert made.plan is plan


def test_what_chat_cannot_say_is_left_as_it_is() -> None:
    message = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20_000, "mcp_servers": [{"url": "x"}]}
    refused = {**message, "thinking_budget": 2000}
    dialect = BY_NAME["messages"]
    try:
        dialect.over_chat(refused)
    except InvalidRequest:
        assert pressed(refused, dialect=dialect)[1].plan.thinking_budget == 2000


claims = st.builds(ThinkingClaim, st.integers(1, 10**6), st.integers(0, 10**6), st.sampled_from(["a", "batch", "i"]))
squeezes = st.builds(
    Squeeze,
    st.floats(0.05, 1.0),
    st.builds(
        SqueezeRules,
        st.integers(1, 10**6),
        st.integers(1, 10**5),
        st.dictionaries(st.sampled_from(["a", "batch"]), st.floats(0, 10)),
    ),
)


@given(squeezes, claims)
def test_it_raises_nothing_and_breaks_no_promise(squeeze: Squeeze, claim: ThinkingClaim) -> None:
    left = squeeze.budget(claim)
    assert 0 < left <= claim.full
    assert left >= min(claim.full, claim.least) and left >= min(claim.full, squeeze.rules.budget_floor)
    if squeeze.factor == 1.0:
        assert left == claim.full


@given(squeezes, claims, st.floats(0.05, 1.0))
def test_more_pressure_never_leaves_more(squeeze: Squeeze, claim: ThinkingClaim, other: float) -> None:
    low, high = sorted((squeeze.factor, other))
    assert Squeeze(low, squeeze.rules).budget(claim) <= Squeeze(high, squeeze.rules).budget(claim)


@given(
    st.sampled_from([each for each in DIALECTS if each.output_fields]),
    st.none() | st.integers(-1, 20_000),
    st.none() | st.integers(1, 20_000),
    st.sampled_from([{}, TOOLS]),
    st.builds(
        ThinkingRules,
        mode=st.sampled_from([None, "forbidden", "required"]),
        max_budget=st.none() | st.integers(0, 9000),
        floor=st.none() | st.integers(0, 2000),
        answer_reserve=st.none() | st.integers(0, 2000),
        guaranteed_budget=st.none() | st.integers(0, 20_000),
    ),
    squeezes,
    st.booleans(),
)
@settings(max_examples=300)
def test_a_pressed_plan_is_the_same_but_for_a_smaller_budget(
    dialect: Dialect, budget: int | None, limit: int | None, tools: Any, rules: Any, squeeze: Squeeze, native: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", **tools}
    body |= {} if budget is None else {"thinking_budget": budget}
    body |= {} if limit is None else {dialect.output_fields[-1]: limit}
    policy = PolicyBook().of(PolicyLayer(rules), "m")
    native_squeeze = Squeeze(squeeze.factor, squeeze.rules, native=native)
    try:
        plan, (made, claim) = pressed(body, native_squeeze, policy, dialect)
    except InvalidRequest:
        return
    if made is not plan:
        assert made.thinking_budget is not None and claim is not None
        assert plan.thinking_budget is None or made.thinking_budget < plan.thinking_budget
        others = [name for name in slots_of(Plan) if name not in ("grant", "body")]
        assert all(getattr(made, name) == getattr(plan, name) for name in others)
        kept = [name for name in slots_of(Grant) if name not in ("thinking_budget", "headers")]
        assert all(getattr(made.grant, name) == getattr(plan.grant, name) for name in kept)
    if plan.thinking is False or plan.thinking_budget == 0:
        assert made is plan
