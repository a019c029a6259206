"""The operator's rules against what clients ask: single cases by the table, and what holds for all of them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.errors import InvalidRequest
from gateway.core.plan import Plan, make_plan
from gateway.core.thinking.caps import OutputRules
from gateway.core.thinking.decision import ThinkingRules, budget_of_effort
from gateway.core.thinking.intent import EFFORTS, INTENT_FIELDS
from gateway.core.thinking.policy import Policy, PolicyBook, PolicyLayer

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
THINKING = [dialect for dialect in DIALECTS if dialect.output_fields]
NO_TOOLS: dict[str, Any] = {}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


def terms_of(
    tenant: ThinkingRules | None = None, model: ThinkingRules | None = None, output: OutputRules | None = None
) -> Policy | None:
    models = {"m": PolicyLayer(thinking=model or ThinkingRules())}
    return PolicyBook(models=models).of(PolicyLayer(tenant or ThinkingRules(), output or OutputRules()), "m")


def plan(
    body: dict[str, Any], terms: Policy | None, dialect: Dialect = BY_NAME["chat"], window: int | None = None
) -> Plan:
    raw = json.dumps({"model": "m", "store": False, **body}).encode()
    return make_plan(dialect.read(raw), dialect, "m", None, None, terms, window)


def told(made: Plan) -> dict[str, str]:
    return {name.decode().removeprefix("x-fleetgate-"): value.decode() for name, value in made.headers}


Case = tuple[ThinkingRules, dict[str, Any], bool | None, int | None, dict[str, str]]
TASK = {"output_config": {"task_budget": {"type": "tokens", "total": 128}}}
SPENT = {"output_config": {"task_budget": {"type": "tokens", "total": 128, "remaining": 0}}}

CASES: dict[str, Case] = {
    "forbidden": (
        ThinkingRules(mode="forbidden"),
        {"thinking_token_budget": 64},
        False,
        0,
        {"thinking": "off; source=tenant-forbidden; asked=64"},
    ),
    "required": (
        ThinkingRules(mode="required", default_budget=64),
        {"reasoning_effort": "none"},
        True,
        64,
        {
            "thinking": "on; source=tenant-required; asked=off",
            "thinking-budget": "64; source=tenant-default; asked=off",
        },
    ),
    "required, no budget asked for": (
        ThinkingRules(mode="required"),
        {"thinking_token_budget": 0},
        True,
        None,
        {"thinking": "on; source=tenant-required; asked=0"},
    ),
    "off by default": (ThinkingRules(default=False), {}, False, 0, {"thinking": "off; source=tenant-default"}),
    "off by default, but asked for": (
        ThinkingRules(default=False),
        {"thinking_budget": 64},
        True,
        64,
        {"thinking-budget": "64; source=request"},
    ),
    "off where asked": (
        ThinkingRules(max_budget=64),
        {"enable_thinking": False},
        False,
        0,
        {"thinking": "off; source=request"},
    ),
    "capped": (
        ThinkingRules(max_budget=2048),
        {"thinking_budget": 8192},
        None,
        2048,
        {"thinking-budget": "2048; source=tenant-max; asked=8192"},
    ),
    "unlimited is capped": (
        ThinkingRules(max_budget=2048),
        {"thinking_token_budget": -1},
        None,
        2048,
        {"thinking-budget": "2048; source=tenant-max; asked=unlimited"},
    ),
    "nothing asked is capped": (ThinkingRules(max_budget=8), {}, None, 8, {"thinking-budget": "8; source=tenant-max"}),
    "by default": (ThinkingRules(default_budget=8), {}, None, 8, {"thinking-budget": "8; source=tenant-default"}),
    "less than the most": (
        ThinkingRules(max_budget=8, default_budget=6),
        {"thinking_budget": 4},
        None,
        4,
        {"thinking-budget": "4; source=request"},
    ),
    "by effort": (
        ThinkingRules(efforts={"low": 8, "high": 32}),
        {"reasoning_effort": "medium"},
        None,
        8,
        {"thinking-budget": "8; source=tenant-effort; asked=medium"},
    ),
    "a number goes over an effort": (
        ThinkingRules(efforts={"low": 8}),
        {"reasoning_effort": "low", "thinking_budget": 4},
        None,
        4,
        {"thinking-budget": "4; source=request"},
    ),
    "what is left of a task": (
        ThinkingRules(max_budget=4096, efforts={"low": 64, "high": 512}),
        {**TASK, "reasoning_effort": "high"},
        None,
        128,
        {"thinking-budget": "128; source=request; asked=high"},
    ),
    "more is left of a task": (
        ThinkingRules(max_budget=100, efforts={"low": 64}),
        {**TASK, "reasoning_effort": "low"},
        None,
        64,
        {"thinking-budget": "64; source=tenant-effort; asked=low"},
    ),
    "a task's budget alone": (
        ThinkingRules(max_budget=100),
        TASK,
        None,
        100,
        {"thinking-budget": "100; source=tenant-max"},
    ),
    "nothing is left of a task": (
        ThinkingRules(max_budget=100),
        SPENT,
        None,
        0,
        {"thinking-budget": "0; source=request"},
    ),
    "nothing is left, but thinking is required": (
        ThinkingRules(mode="required", default_budget=64),
        SPENT,
        True,
        64,
        {"thinking": "on; source=tenant-required", "thinking-budget": "64; source=tenant-default"},
    ),
    "an answer's reserve": (
        ThinkingRules(answer_reserve=100),
        {"thinking_budget": 1000, "max_tokens": 600},
        None,
        500,
        {"thinking-budget": "500; source=answer-reserve; asked=1000"},
    ),
    "an answer's reserve where nothing is asked": (
        ThinkingRules(answer_reserve=100),
        {"max_tokens": 600},
        None,
        500,
        {"thinking-budget": "500; source=answer-reserve"},
    ),
    "no room": (
        ThinkingRules(answer_reserve=100),
        {"max_tokens": 100},
        False,
        0,
        {"thinking": "off; source=answer-reserve"},
    ),
    "no room, but required": (
        ThinkingRules(answer_reserve=100, mode="required"),
        {"max_tokens": 100},
        True,
        0,
        {"thinking": "on; source=tenant-required", "thinking-budget": "0; source=answer-reserve"},
    ),
    "not more than the answer": (
        ThinkingRules(max_budget=1000),
        {"max_tokens": 100},
        None,
        100,
        {"thinking-budget": "100; source=max-tokens"},
    ),
    "under the floor": (
        ThinkingRules(floor=64),
        {"thinking_budget": 63},
        False,
        0,
        {"thinking": "off; source=tenant-floor; asked=63"},
    ),
    "on the floor": (
        ThinkingRules(floor=64),
        {"thinking_budget": 64},
        None,
        64,
        {"thinking-budget": "64; source=request"},
    ),
    "tools raise it": (
        ThinkingRules(floor_with_tools=256),
        {"thinking_budget": 16, **TOOLS},
        None,
        256,
        {"thinking-budget": "256; source=tenant-floor-with-tools; asked=16"},
    ),
    "tools cannot raise it": (
        ThinkingRules(floor_with_tools=256),
        {"thinking_budget": 16, "max_tokens": 100, **TOOLS},
        False,
        0,
        {"thinking": "off; source=tenant-floor-with-tools; asked=16"},
    ),
    "none at all is safe beside tools": (
        ThinkingRules(floor_with_tools=256),
        {"thinking_budget": 0, **TOOLS},
        None,
        0,
        {"thinking-budget": "0; source=request"},
    ),
    "tools that may not be called": (
        ThinkingRules(floor_with_tools=256),
        {"thinking_budget": 16, "tool_choice": "none", **TOOLS},
        None,
        16,
        {"thinking-budget": "16; source=request"},
    ),
    "hidden": (ThinkingRules(hide=True), {}, None, None, {"reasoning": "hidden; source=tenant-hide"}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_rule(case: Case) -> None:
    rules, body, thinking, budget, headers = case
    made = plan(body, terms_of(rules))
    assert (made.thinking, made.thinking_budget, told(made)) == (thinking, budget, headers)


@pytest.mark.parametrize(
    ("rules", "body", "param"),
    [
        (ThinkingRules(floor_with_tools=256, below="refuse"), {"thinking_budget": 16, **TOOLS}, "thinking_budget"),
        (
            ThinkingRules(floor_with_tools=256, mode="required"),
            {"max_tokens": 100, **TOOLS, "reasoning_budget": 9},
            "reasoning_budget",
        ),
        (ThinkingRules(floor_with_tools=256, below="refuse", default_budget=16), TOOLS, "tools"),
    ],
)
def test_a_refusal_names_field_and_remedy(rules: ThinkingRules, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match="at least 256 tokens of thinking") as caught:
        plan(body, terms_of(rules))
    assert (caught.value.param, caught.value.code) == (param, "thinking_budget_too_small")


def test_the_closest_layer_wins_setting_by_setting() -> None:
    book = PolicyBook(
        PolicyLayer(ThinkingRules(max_budget=1, default_budget=1, floor=1, answer_reserve=1)),
        {"m": PolicyLayer(ThinkingRules(max_budget=2, default_budget=2, floor=2))},
    )
    tenant = PolicyLayer(
        ThinkingRules(max_budget=3, default_budget=3), per_model={"m": PolicyLayer(ThinkingRules(max_budget=4))}
    )
    terms = book.of(tenant, "m")
    assert terms is not None and terms.thinking is not None
    assert terms.thinking.rules == ThinkingRules(max_budget=4, default_budget=3, floor=2, answer_reserve=1)
    assert terms.thinking.layers == {
        "max_budget": "tenant-model",
        "default_budget": "tenant",
        "floor": "model",
        "answer_reserve": "gateway",
    }
    assert book.of(tenant, "m") is terms
    elsewhere = book.of(None, "other")
    assert elsewhere is not None and elsewhere.thinking is not None and elsewhere.thinking.rules.max_budget == 1


def test_where_nobody_says_anything_there_are_no_terms() -> None:
    assert PolicyBook().silent and PolicyBook().of(None, "m") is None
    assert not PolicyBook(PolicyLayer(ThinkingRules(hide=True))).silent


@pytest.mark.parametrize("word", EFFORTS[1:])
@given(efforts=st.dictionaries(st.sampled_from(EFFORTS[1:]), st.integers(0, 99), min_size=1))
def test_every_word_has_a_budget(word: str, efforts: dict[str, int]) -> None:
    if word in efforts:
        assert budget_of_effort(word, efforts) == efforts[word]
    assert budget_of_effort(word, efforts) in efforts.values()


# What a node is sent


@pytest.mark.parametrize(
    ("name", "rules", "body", "sent"),
    [
        ("chat", ThinkingRules(mode="forbidden"), {"thinking_token_budget": 9}, {"thinking_token_budget": 0}),
        ("chat", ThinkingRules(mode="required"), {"thinking_token_budget": 0}, {"thinking_token_budget": None}),
        ("chat", ThinkingRules(mode="required"), {"reasoning_effort": "none"}, {"reasoning_effort": None}),
        ("chat", ThinkingRules(max_budget=9), {"thinking_token_budget": -1}, {"thinking_token_budget": 9}),
        ("completions", ThinkingRules(mode="forbidden"), {}, {"thinking_token_budget": 0}),
        ("completions", ThinkingRules(max_budget=9), {}, {"thinking_token_budget": 9}),
        ("messages", ThinkingRules(max_budget=2000), {}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        (
            "messages",
            ThinkingRules(mode="forbidden"),
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            "messages",
            ThinkingRules(mode="required"),
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "adaptive"}, "chat_template_kwargs": {"enable_thinking": True}},
        ),
        (
            "responses",
            ThinkingRules(mode="required"),
            {"reasoning": {"effort": "none"}},
            {"reasoning": {"effort": None}},
        ),
    ],
)
def test_what_is_granted_reaches_the_node(name: str, rules: ThinkingRules, body: Any, sent: dict[str, Any]) -> None:
    made = plan(body, terms_of(rules), BY_NAME[name])
    assert {key: value for key, value in json.loads(made.body).items() if key in sent} == sent


@pytest.mark.parametrize(
    ("name", "body", "max_budget", "carried"),
    [
        ("chat", {}, 9, True),
        ("completions", {}, 9, True),
        ("responses", {}, 9, False),
        ("responses", {"reasoning": {"effort": "none"}}, 9, True),
        ("messages", {"max_tokens": 4000}, 1024, True),
        ("messages", {"max_tokens": 4000}, 1023, False),
        ("messages", {"max_tokens": 1024}, 1024, False),
    ],
)
def test_which_budgets_a_dialect_can_carry(name: str, body: dict[str, Any], max_budget: int, carried: bool) -> None:
    assert plan(body, terms_of(ThinkingRules(max_budget=max_budget)), BY_NAME[name]).carried is carried


# What holds for every request under every policy

tokens = st.integers(0, 5000)
said = st.none() | tokens | tokens
efforts = st.none() | st.dictionaries(st.sampled_from(EFFORTS[1:]), tokens, min_size=1)
thinking_rules = st.builds(
    ThinkingRules,
    mode=st.sampled_from([None, None, "allowed", "forbidden", "required", "required"]),
    default=st.none() | st.booleans(),
    default_budget=said,
    max_budget=said,
    efforts=efforts,
    answer_reserve=said,
    floor=said,
    floor_with_tools=said,
    below=st.sampled_from([None, "raise", "refuse"]),
    hide=st.none() | st.booleans(),
)
output_rules = st.builds(
    OutputRules,
    default_tokens=st.none() | st.integers(1, 5000),
    max_tokens=st.none() | st.integers(1, 5000),
    on_excess=st.sampled_from([None, "clamp", "reject"]),
)
rules = st.builds(PolicyLayer, thinking_rules, output_rules)
asked = st.integers(-1, 5000)
wish_parts = st.one_of(
    st.fixed_dictionaries({"thinking_token_budget": asked}),
    st.fixed_dictionaries({"chat_template_kwargs": st.fixed_dictionaries({"enable_thinking": st.booleans()})}),
    st.fixed_dictionaries({"chat_template_kwargs": st.fixed_dictionaries({"low_effort": st.booleans()})}),
    st.fixed_dictionaries({"enable_thinking": st.booleans()}),
    st.fixed_dictionaries({"reasoning_budget": asked}),
    st.fixed_dictionaries({"reasoning_effort": st.sampled_from(EFFORTS)}),
    st.fixed_dictionaries({"reasoning": st.fixed_dictionaries({"effort": st.sampled_from(EFFORTS)})}),
    st.fixed_dictionaries({"reasoning": st.fixed_dictionaries({"exclude": st.booleans()})}),
    st.fixed_dictionaries({"thinking": st.fixed_dictionaries({"type": st.just("enabled"), "budget_tokens": asked})}),
    st.fixed_dictionaries({"thinking": st.fixed_dictionaries({"type": st.sampled_from(["disabled", "adaptive"])})}),
    st.fixed_dictionaries({"output_config": st.fixed_dictionaries({"effort": st.sampled_from(EFFORTS)})}),
    st.fixed_dictionaries({"include_reasoning": st.booleans()}),
)
wishes: st.SearchStrategy[dict[str, Any]] = (
    st.just({}) | wish_parts | st.tuples(wish_parts, wish_parts).map(lambda pair: {**pair[0], **pair[1]})
)
limits = st.none() | st.integers(1, 6000)


def sized(dialect: Dialect, limit: int | None) -> dict[str, Any]:
    return {} if limit is None else {dialect.output_fields[-1]: limit}


tools = st.sampled_from([NO_TOOLS, TOOLS])
dialects = st.sampled_from(THINKING)


@given(dialects, wishes, limits, tools, rules, rules, st.none() | st.integers(300, 8000))
@settings(max_examples=400)
def test_a_plan_holds_what_the_rules_promise(
    dialect: Dialect,
    wish: Any,
    limit: int | None,
    tool: Any,
    tenant: PolicyLayer,
    model: PolicyLayer,
    window: int | None,
) -> None:
    terms = PolicyBook(models={"m": model}).of(tenant, "m")
    body = {"messages": [{"role": "user", "content": "hello"}], **wish, **sized(dialect, limit), **tool}
    try:
        made = plan(body, terms, dialect, window)
    except InvalidRequest as refused:
        assert refused.param
        return
    thinking = terms.thinking.rules if terms is not None and terms.thinking is not None else ThinkingRules()
    output = terms.output.rules if terms is not None and terms.output is not None else OutputRules()
    _check_output(made, output, window)
    _check_thinking(made, thinking, tool)
    _check_node(made)
    _check_told(made, thinking)


def _check_output(made: Plan, output: OutputRules, window: int | None) -> None:
    if output.max_tokens is not None:
        assert made.max_tokens is not None and made.max_tokens <= output.max_tokens
    if output.default_tokens is not None or made.ask.max_tokens is not None:
        assert made.max_tokens is not None
    if output != OutputRules() and window is not None and made.max_tokens is not None:
        assert made.max_tokens <= max(window - made.input_tokens, 256)
    if made.ask.max_tokens is not None and made.max_tokens is not None:
        assert made.max_tokens <= made.ask.max_tokens, "nobody gets more than was asked for"


def _check_thinking(made: Plan, rules: ThinkingRules, tool: Any) -> None:
    budget = made.thinking_budget
    if rules.mode == "forbidden":
        assert (made.thinking, budget) == (False, 0)
    if rules.mode == "required":
        assert made.thinking is True
    if made.thinking is False:
        assert budget == 0
        return
    if rules == ThinkingRules():
        return
    assert budget is None or budget >= 0
    if rules.max_budget is not None:
        assert budget is not None and budget <= rules.max_budget
    if made.max_tokens is not None and rules.answer_reserve is not None:
        assert budget is not None
    if budget is not None and made.max_tokens is not None:
        assert budget <= max(0, made.max_tokens - (rules.answer_reserve or 0))
    if rules.mode != "required" and budget is not None and rules.floor is not None:
        assert budget >= rules.floor
    if tool and budget and rules.floor_with_tools is not None:
        assert budget >= rules.floor_with_tools


def _check_node(made: Plan) -> None:
    """What stands in the body that is sent, read with a node's eyes, is what was granted."""
    body = json.loads(made.body)
    switch = (body.get("chat_template_kwargs") or {}).get("enable_thinking")
    if made.dialect.name != "completions" and made.thinking is not None and made.body != made.ask.raw:
        assert switch is made.thinking or (switch is None and made.ask.intent.heeded)
    if made.dialect.name == "completions" or (made.dialect.name == "chat" and made.thinking is not False):
        given = body.get("thinking_token_budget")
        assert made.thinking_budget == (None if given == -1 else given)
    if made.dialect.name == "messages" and made.thinking is not False and made.thinking_budget and made.carried:
        assert body["thinking"]["budget_tokens"] == made.thinking_budget
    for name in made.dialect.output_fields:
        if made.max_tokens is not None and body.get(name) is not None and made.body != made.ask.raw:
            assert body[name] == made.max_tokens or made.ask.max_tokens == made.max_tokens


def _check_told(made: Plan, rules: ThinkingRules) -> None:
    """Whatever is not as it was asked for is told."""
    headers = told(made)
    intent = made.ask.intent
    if made.max_tokens != made.ask.max_tokens:
        assert headers["max-tokens"].startswith(f"{made.max_tokens}; source=")
    if intent.wants_thinking and made.thinking is False:
        assert headers["thinking"].startswith("off; source=") and "asked=" in headers["thinking"]
    if intent.on is False and made.thinking is True:
        assert headers["thinking"].startswith("on; source=") and headers["thinking"].endswith("; asked=off")
    if intent.budget is not None and made.thinking is not False and made.thinking_budget not in (intent.budget, None):
        assert headers["thinking-budget"].endswith(f"; asked={intent.asked}")
    assert ("reasoning" in headers) is (rules.hide is True)


@given(dialects, wishes, limits, tools, rules, rules)
def test_less_than_is_allowed_is_granted_as_it_is(
    dialect: Dialect, wish: Any, limit: int | None, tool: Any, tenant: PolicyLayer, model: PolicyLayer
) -> None:
    """Asking again for what was granted grants the same: a client that heeds the headers is told nothing new."""
    terms = PolicyBook(models={"m": model}).of(tenant, "m")
    body = {**wish, **sized(dialect, limit), **tool}
    try:
        made = plan(body, terms, dialect)
    except InvalidRequest:
        return
    if made.thinking_budget is None or made.thinking is False or not made.thinking_budget:
        return
    kept = {name: value for name, value in body.items() if name not in INTENT_FIELDS}
    again = plan({**kept, **sized(dialect, made.max_tokens), "thinking_budget": made.thinking_budget}, terms, dialect)
    assert again.thinking_budget == made.thinking_budget


@given(dialects, wishes, limits, tools)
def test_without_rules_what_a_node_heeds_goes_through_as_it_came(
    dialect: Dialect, wish: Any, limit: int | None, tool: Any
) -> None:
    try:
        made = plan({**wish, **sized(dialect, limit), **tool}, None, dialect)
    except InvalidRequest:
        return
    assert made.headers == ()
    if made.ask.intent.heeded:
        assert made.body == made.ask.raw
