"""What a request is charged, by how it ended and what was seen of the node's work."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects import DIALECTS
from gateway.core.dialects.responses import StoredResponses
from gateway.core.limits.metering import Meter, plan_amounts
from gateway.core.limits.rules import Amounts
from gateway.core.plan import Plan, make_plan
from gateway.core.usage.charge import NO_CHARGE, Charge, RequestOutcome, charge
from gateway.core.usage.token_usage import ObservedWork, Usage

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
LEFT, LATE, OK = (
    RequestOutcome("client_gone", 200, 1),
    RequestOutcome("deadline_exceeded", 504, 1),
    RequestOutcome("ok", 200, 1),
)
STREAM: dict[str, Any] = {"stream": True, "max_tokens": 1000}


def plan_of(name: str = "chat", **body: Any) -> Plan:
    dialect = BY_NAME[name]
    ask = dialect.read(json.dumps({"messages": [{"role": "user", "content": "x" * 36}], **body}).encode())
    return make_plan(ask, dialect, "m", None, None)


def charged(
    plan: Plan,
    end: RequestOutcome,
    work: ObservedWork | None = None,
    usage: Usage | None = None,
    meter: Meter | None = None,
) -> Charge:
    meter = meter or Meter()
    return charge(end, usage, work or ObservedWork(), plan, plan_amounts(plan, meter, 4096), meter)


def worked(
    events: int = 0, asked: float = 0.0, flowed: float = 0.0, paused: float = 0.0, silent: float = 0.0
) -> ObservedWork:
    work = ObservedWork()
    work.add(events, asked, flowed, paused, silent)
    return work


def test_what_the_node_said_is_what_is_charged() -> None:
    assert charged(plan_of(**STREAM), OK, worked(5, 1.0, 1.0), Usage(9, 5, 2, 1)) == Charge(Usage(9, 5, 2, 1), False)


@pytest.mark.parametrize(
    "end",
    [
        RequestOutcome("no_node_ready", 503, 0),
        RequestOutcome("client_gone", 0, 0),
        RequestOutcome("memory_full", 503, 0),
        RequestOutcome("upstream_error", 502, 2),
        RequestOutcome("node_error", 400, 1),
    ],
)
def test_what_failed_is_not_charged(end: RequestOutcome) -> None:
    assert charged(plan_of(**STREAM), end, worked(50, 1.0, 1.0)) == NO_CHARGE


def test_what_was_made_before_is_not_charged_again() -> None:
    dialect = StoredResponses()
    stored = Plan(dialect.read(b"{}"), dialect, None, b"{}")
    assert charge(OK, Usage(5, 5), ObservedWork(), stored, Amounts(), Meter()) == NO_CHARGE


PACED = worked(100, 2.0, 1.0, silent=0.5)
"""Seen: 100 events in a second, and none for half a second since."""


@pytest.mark.parametrize(
    ("plan", "end", "work", "output"),
    [
        (plan_of(**STREAM), LEFT, PACED, 150),
        (plan_of(**STREAM), LATE, PACED, 150),
        (plan_of(**STREAM), RequestOutcome("upstream_cut", 200, 1), PACED, 100),
        (plan_of(**STREAM), RequestOutcome("idle_timeout", 200, 1), worked(100, 999.0, 1.0, silent=900.0), 100),
        (plan_of(**STREAM), LEFT, worked(100, 3.0, 2.0, paused=1.0), 200),
        (plan_of(**STREAM), LEFT, worked(0, 30.0), 0),
        (plan_of(stream=True, max_tokens=120), LEFT, PACED, 120),
        (plan_of(stream=True), LEFT, worked(9000, 90.0, 90.0), 9000),
        (plan_of(stream=True, max_tokens=100, n=8), LEFT, worked(600, 1.0, 1.0), 600),
        (plan_of(**STREAM, include_reasoning=False), LEFT, worked(30, 10.0, 10.0), 400),
        (plan_of(**STREAM, tools=[{"type": "function"}]), LEFT, worked(3, 10.0, 0.0, silent=10.0), 400),
        (plan_of(**STREAM, stream_interval=50), LEFT, worked(9, 1.0, 1.0), 450),
        (plan_of(**STREAM, stop=["x" * 4000]), LEFT, worked(5, 10.0, 10.0), 400),
        (plan_of("messages", **STREAM, stop_sequences=["x" * 4000]), LATE, worked(5, 10.0, 10.0), 400),
        (plan_of(**STREAM, stop="\nObservation:"), LEFT, worked(5, 10.0, 10.0), 5),
        (plan_of(**STREAM, stop=[]), LEFT, worked(5, 10.0, 10.0), 5),
        (plan_of(**STREAM, logit_bias={"2": 50}), LEFT, worked(5, 10.0, 10.0), 400),
        (plan_of(**STREAM, allowed_token_ids=[2, 9]), LEFT, worked(5, 10.0, 10.0), 400),
        (plan_of(**STREAM, use_beam_search=True, n=2), LEFT, worked(0, 5.0), 400),
        (plan_of(**STREAM, use_beam_search="yes", n=2), LATE, worked(0, 5.0), 400),
        (plan_of(max_tokens=1000), LEFT, worked(0, 2.0), 80),
        (plan_of(max_tokens=1000, n=8), LATE, worked(0, 2.0), 640),
        (plan_of(max_tokens=1000), RequestOutcome("answer_too_large", 502, 1), worked(500, 2.0, 1.9), 500),
        (plan_of(max_tokens=1000), RequestOutcome("memory_full", 503, 1), worked(0, 2.0), 80),
        (plan_of(max_tokens=50), LATE, worked(0, 2.0), 50),
        (plan_of(max_tokens=1000), LEFT, worked(500, 2.0, 1.9), 500),
        (plan_of(max_tokens=1000), OK, worked(0, 2.0), 1000),
        (plan_of("responses", max_output_tokens=900, background=True), OK, worked(0, 0.1), 900),
        (plan_of("responses", max_output_tokens=900, background=True, stream=True), LEFT, worked(5, 0.1), 900),
        (plan_of("completions", prompt="a", max_tokens=0, echo=True), OK, worked(0, 0.1), 1),
    ],
)
def test_what_nobody_reported_is_estimated(plan: Plan, end: RequestOutcome, work: ObservedWork, output: int) -> None:
    found = charged(plan, end, work)
    assert found.estimated and found.usage is not None
    assert found.usage.output == output
    assert found.usage.input >= 1


def test_what_was_reported_so_far_is_the_least() -> None:
    found = charged(plan_of(**STREAM), LEFT, worked(10, 1.0, 1.0), Usage(77, 300, 200, 5))
    assert found == Charge(Usage(77, 300, 200, 5), True)


@pytest.mark.parametrize("name", ["tokenize", "detokenize", "count_tokens"])
def test_what_only_counts_tokens_is_charged_by_its_size(name: str) -> None:
    body: dict[str, Any] = (
        {"tokens": [1] * 500, "messages": None} if name == "detokenize" else {"messages": ["x" * 2000]}
    )
    for end in (OK, LEFT):
        assert charged(plan_of(name, **body), end) == Charge(Usage(500), True)


def test_the_nodes_pace_is_learnt_from_what_ended_well() -> None:
    meter = Meter()
    for _ in range(300):
        charged(plan_of(max_tokens=1000), OK, worked(0, 2.0), Usage(20, 200), meter)
    assert meter.tokens_per_second.value == pytest.approx(100, rel=0.01)
    found = charged(plan_of(max_tokens=1000, n=2), LATE, worked(0, 3.0), None, meter).usage
    assert found is not None and found.output == pytest.approx(600, rel=0.01), "of two answers"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("chat", {"best_of": 100}),
        ("completions", {"best_of": 100, "prompt": "a"}),
        ("messages", {"n": 100}),
        ("chat", {"prompt": ["a"] * 100}),
        ("responses", {"max_tool_calls": 99, "tools": [{"type": "mcp"}]}),
    ],
)
def test_answers_that_a_node_never_makes_do_not_make_it_slow(name: str, fields: dict[str, Any]) -> None:
    """vLLM 0.32 takes no notice of these."""
    meter, bound = Meter(), "max_output_tokens" if name == "responses" else "max_tokens"
    for _ in range(100):
        charged(plan_of(name, **{bound: 50}, **fields), OK, worked(0, 1.0), Usage(20, 50), meter)
    assert meter.tokens_per_second.value == 40


def test_a_node_that_sends_several_tokens_an_event_is_known_by_it() -> None:
    meter, plan = Meter(), plan_of(**STREAM)
    for _ in range(300):
        charged(plan, OK, worked(100, 2.0, 2.0), Usage(20, 300), meter)
    found = charged(plan, LEFT, worked(50, 1.0, 1.0), None, meter).usage
    assert found is not None and found.output == pytest.approx(150, rel=0.02)


def test_a_client_that_reads_slowly_teaches_nothing() -> None:
    meter, plan = Meter(), plan_of(**STREAM)
    for _ in range(100):
        charged(plan, OK, worked(30, 60.0, 60.0, paused=50.0), Usage(20, 30), meter)
    assert meter.tokens_per_second.value == 40


@given(
    events=st.integers(0, 3000),
    times=st.tuples(*[st.floats(0, 100)] * 4),
    bound=st.one_of(st.none(), st.integers(1, 500)),
    n=st.integers(1, 8),
    stream=st.booleans(),
    veiled=st.booleans(),
    end=st.sampled_from([LEFT, LATE, RequestOutcome("upstream_cut", 200, 1), OK]),
)
def test_an_estimate_keeps_to_its_bounds(
    events: int, times: tuple[float, ...], bound: int | None, n: int, stream: bool, veiled: bool, end: RequestOutcome
) -> None:
    """At least every event that was seen, as far as the request is bounded; never beyond what was planned for time."""
    plan = plan_of(stream=stream, max_tokens=bound, n=n, include_reasoning=not veiled)
    found = charged(plan, end, worked(events, *times)).usage
    assert found is not None
    most = (bound or 4096) * n
    assert found.output <= (most if bound is not None else max(most, events))
    assert found.output >= (min(events, most) if bound is not None else events) or (end is OK and not stream)
