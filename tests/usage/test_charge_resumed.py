"""What a resumed request is charged: one usage, all parts of its answer once, nothing for what is computed again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects import DIALECTS
from gateway.core.limits.metering import Meter, plan_amounts
from gateway.core.plan import Plan, make_plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.charge import NO_CHARGE, Charge, RequestOutcome, charge
from gateway.core.usage.token_usage import Usage

CHAT = next(dialect for dialect in DIALECTS if dialect.name == "chat")
OK = RequestOutcome("ok", 200, 2)
LEFT, LATE, CUT = (RequestOutcome(ending, 200, 2) for ending in ("client_gone", "deadline_exceeded", "upstream_cut"))
FAILED = RequestOutcome("upstream_cut", 502, 2)


def plan_of(**body: Any) -> Plan:
    fields = {"messages": [{"role": "user", "content": "x" * 36}], "stream": True, "max_tokens": 1000}
    return make_plan(CHAT.read(json.dumps(fields | body).encode()), CHAT, "m", None, None)


def charged(stats: RequestStats, end: RequestOutcome, plan: Plan | None = None, meter: Meter | None = None) -> Charge:
    plan, meter = plan or plan_of(), meter or Meter()
    planned = plan_amounts(plan, meter, 4096)
    return charge(end, stats.reported, stats.work, plan, planned, meter, stats.resumed_at)


def output(stats: RequestStats, end: RequestOutcome, plan: Plan | None = None) -> int:
    found = charged(stats, end, plan)
    assert found.estimated and found.usage is not None
    return found.usage.output


def broken(*made: int, wait: float = 0.0) -> RequestStats:
    """An answer that was resumed once for each of `made`, the tokens that it had then, an event each. The nodes that
    broke off were silent for `wait` before, and the client read nothing for as long."""
    stats = RequestStats()
    for before, after in zip((0, *made), made, strict=False):
        stats.work.add(after - before, 1.0 + 2 * wait, 1.0 + wait, wait, wait)
        stats.go_on(after)
    return stats


@pytest.mark.parametrize("made", [(100,), (100, 100), (100, 250), (100, 90)])
def test_a_resumed_answer_that_completes_is_charged_what_was_reported(made: tuple[int, ...]) -> None:
    stats = broken(*made)
    stats.work.add(50, 1.0, 1.0, 0.0, 0.0)
    stats.reported = Usage(9, 300, 200, 4)
    assert charged(stats, OK) == Charge(Usage(9, 300, 200, 4), False)
    assert stats.lost_events == 0, "the client has them"


@pytest.mark.parametrize(("end", "tokens"), [(LEFT, 100 + 30 + 15), (LATE, 100 + 30 + 15), (CUT, 100 + 30)])
def test_a_resumed_answer_without_an_end_has_all_its_parts(end: RequestOutcome, tokens: int) -> None:
    """The last node's silence counts where the node may have worked; that of nodes that broke off never does."""
    stats = broken(100, wait=20.0)
    stats.work.add(30, 2.0, 1.0, 0.0, 0.5)
    assert output(stats, end) == tokens


@pytest.mark.parametrize("end", [LEFT, LATE, CUT])
@pytest.mark.parametrize("more", [{}, {"include_reasoning": False}, {"stream": False}])
def test_who_leaves_in_the_pause_pays_what_came(end: RequestOutcome, more: dict[str, Any]) -> None:
    """Also where the new node has begun: it computes the prompt again, which is not billed."""
    assert output(broken(100, wait=20.0), end, plan_of(**more)) == 100
    stats = broken(100, wait=20.0)
    stats.work.add(0, 5.0, 0.0, 0.0, 5.0)
    assert output(stats, end, plan_of(**more)) == 100


def test_what_was_cut_back_is_made_again_and_paid_once() -> None:
    stats = RequestStats()
    stats.work.add(100, 1.0, 1.0, 0.0, 0.0)
    stats.go_on(80)
    stats.work.add(25, 1.0, 1.0, 0.0, 0.0)
    assert output(stats, CUT) == 105


def test_no_estimate_goes_beyond_what_was_asked_for() -> None:
    stats = broken(90)
    stats.work.add(60, 1.0, 1.0, 0.0, 0.0)
    assert output(stats, CUT, plan_of(max_tokens=120)) == 120
    assert output(stats, CUT, plan_of(max_tokens=None)) == 150


def test_what_the_node_reported_on_the_way_is_the_least() -> None:
    """A stream with usage in each event: that of the first part stands until a later one comes."""
    stats = RequestStats(reported=Usage(77, 40, 30, 5))
    stats.work.add(10, 1.0, 1.0, 0.0, 0.0)
    stats.go_on(12)
    assert charged(stats, LEFT) == Charge(Usage(77, 40, 30, 5), True)


def test_a_plain_answer_that_broke_for_good_is_charged_nothing_and_lost_whole() -> None:
    stats = broken(100)
    stats.work.add(30, 1.0, 1.0, 0.0, 0.0)
    assert charged(stats, FAILED, plan_of(stream=False)) == NO_CHARGE
    assert stats.made == 130


def test_an_answer_that_begins_again_loses_what_was_resumed() -> None:
    stats = broken(100)
    stats.work.add(30, 1.0, 1.0, 0.0, 0.0)
    stats.begin_again()
    assert (stats.lost_events, stats.resumed_at, stats.work.events) == (130, 0, 0)


def test_a_meter_learns_from_the_part_that_it_saw_whole() -> None:
    meter = Meter()
    for _ in range(300):
        stats = broken(500, wait=9.0)
        stats.work.add(50, 2.0, 2.0, 0.0, 0.0)
        stats.reported = Usage(20, 650)
        charged(stats, OK, meter=meter)
    assert meter.tokens_per_event.value == pytest.approx(3, rel=0.01)
    assert meter.tokens_per_second.value == pytest.approx(75, rel=0.01)


@given(
    parts=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20), st.floats(0, 60), st.floats(0, 60)), max_size=5),
    events=st.integers(0, 300),
    bound=st.one_of(st.none(), st.integers(1, 900)),
    n_events=st.integers(1, 4),
    end=st.sampled_from([OK, LEFT, LATE, CUT]),
    stream=st.booleans(),
)
def test_a_resumed_answer_costs_what_the_unbroken_one_does(
    parts: list[tuple[int, int, float, float]],
    events: int,
    bound: int | None,
    n_events: int,
    end: RequestOutcome,
    stream: bool,
) -> None:
    """However often it broke off, whatever was cut back, however many tokens came in an event, however long it took."""
    plan = plan_of(max_tokens=bound, stream=stream)
    resumed, made = RequestStats(), 0
    for tokens, cut, paused, silent in parts:
        resumed.work.add(tokens // n_events, paused + silent, paused + silent, paused, silent)
        made = max(0, made + tokens - cut)
        resumed.go_on(made)
    resumed.work.add(events, 1.0, 1.0, 0.0, 0.0)
    tokens = made + events
    if end is OK:
        resumed.reported = Usage(9, tokens, 3)
        assert charged(resumed, end, plan) == Charge(Usage(9, tokens, 3), False)
    elif stream or events or made:
        assert output(resumed, end, plan) == (tokens if bound is None else min(tokens, bound))
    assert resumed.lost_events == 0
