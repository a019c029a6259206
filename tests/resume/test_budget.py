"""The bounds of resumes: what one request may cost, and how fast all of a model's may follow one another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import (
    AnswerTooLarge,
    BadUpstreamResponse,
    ConnectFailed,
    NodeBusy,
    NodeFailed,
    NodeLeaving,
    StaleConnection,
    UnreadableAnswer,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.resume.budget import MINIMUM_RATE, PROGRESS, ResumeBudget, ResumeDecision, Resumes
from gateway.core.resume.node_deaths import NodeDeaths

GO_ON, KILLER, LIMIT = ResumeDecision.GO_ON, ResumeDecision.GIVE_UP_KILLER, ResumeDecision.GIVE_UP_LIMIT

UNCOUNTED = (NodeLeaving, ConnectFailed, StaleConnection, NodeBusy)
DEATHS = (UpstreamCut, NodeFailed)
OTHERS = (UpstreamTimeout, BadUpstreamResponse, UnreadableAnswer, AnswerTooLarge)

Break = tuple[type[UpstreamError], str, int]
"""What happened, on which node, and the tokens that were made since the break before."""

BREAKS = st.lists(
    st.tuples(st.sampled_from(UNCOUNTED + DEATHS + OTHERS), st.sampled_from("ABC"), st.integers(-3, 2 * PROGRESS)),
    max_size=30,
)


def judged(limit: int, *breaks: Break) -> list[ResumeDecision]:
    """The decisions on each, up to the first that gives up: of a request that is alone."""
    resumes, tokens = Resumes(limit, NodeDeaths(), 0), 0
    decisions: list[ResumeDecision] = []
    for kind, node, made in breaks:
        tokens = max(0, tokens + made)
        decisions.append(resumes.judge(kind("x"), node, tokens, 600.0 * len(decisions)))
        if decisions[-1] is not GO_ON:
            break
    return decisions


def plain(limit: int, *breaks: Break) -> list[ResumeDecision]:
    """The same from the whole history: the counted breaks at the end of it between which the answer did not get on."""
    history: list[tuple[bool, str, int]] = []
    tokens, decisions = 0, []
    for kind, node, made in breaks:
        here, tokens = max(-tokens, made), max(0, tokens + made)
        if kind in UNCOUNTED:
            decisions.append(GO_ON)
            continue
        history.append((kind in DEATHS and here < PROGRESS, node, tokens))
        run = [history[-1]]
        for earlier in reversed(history[:-1]):
            if run[0][2] - earlier[2] >= PROGRESS:
                break
            run.insert(0, earlier)
        dead = {name for died, name, _ in run if died}
        decisions.append(KILLER if len(dead) > 1 else LIMIT if len(run) > limit else GO_ON)
        if decisions[-1] is not GO_ON:
            break
    return decisions


@given(st.integers(0, 4), BREAKS)
def test_breaks_are_judged_as_their_history_says(limit: int, breaks: list[Break]) -> None:
    assert judged(limit, *breaks) == plain(limit, *breaks)


@pytest.mark.parametrize("limit", [0, 1, 2, 7])
@pytest.mark.parametrize("kind", DEATHS + OTHERS)
def test_an_answer_that_does_not_get_on_is_given_up(limit: int, kind: type[UpstreamError]) -> None:
    assert judged(limit, *[(kind, "A", PROGRESS - 1)] * (limit + 2)) == [GO_ON] * limit + [LIMIT]


@pytest.mark.parametrize("limit", [1, 2, 7])
@pytest.mark.parametrize("kind", DEATHS + OTHERS)
def test_an_answer_that_gets_on_may_lose_any_number_of_nodes(limit: int, kind: type[UpstreamError]) -> None:
    breaks: list[Break] = [(kind, f"node {number}", PROGRESS) for number in range(500)]
    assert judged(limit, *breaks) == [GO_ON] * 500


@pytest.mark.parametrize("limit", [0, 2])
@pytest.mark.parametrize("kind", UNCOUNTED)
def test_what_cost_no_node_any_work_is_not_counted(limit: int, kind: type[UpstreamError]) -> None:
    uncounted: list[Break] = [(kind, f"node {number}", 0) for number in range(50)]
    assert judged(limit, *uncounted) == [GO_ON] * 50
    cut: Break = (UpstreamCut, "A", 3)
    assert judged(limit, cut, *uncounted, cut, *uncounted, cut) == judged(limit, cut) + (
        [GO_ON] * 50 + judged(limit, cut, cut)[1:] + [GO_ON] * 50 + judged(limit, cut, cut, cut)[2:] if limit else []
    )


@pytest.mark.parametrize("first", DEATHS)
@pytest.mark.parametrize("second", DEATHS)
@pytest.mark.parametrize("between", [None, *UNCOUNTED, *OTHERS])
def test_a_request_over_which_two_nodes_died_is_ended(
    first: type[UpstreamError], second: type[UpstreamError], between: type[UpstreamError] | None
) -> None:
    more: list[Break] = [] if between is None else [(between, "B", 0)]
    assert judged(9, (first, "A", 3), *more, (second, "C", PROGRESS - 1))[-1] is KILLER
    assert judged(9, (first, "A", 3), *more, (second, "C", PROGRESS))[-1] is GO_ON, "it had got on"
    assert judged(9, (first, "A", 3), *more, (second, "A", 0))[-1] is GO_ON, "one node: it may be its own fault"
    late = (first, "A", PROGRESS)
    assert judged(9, late, *more, (second, "C", 0))[-1] is GO_ON, "it had got on where the first node died"
    assert judged(9, late, *more, (second, "C", 0), (first, "D", 0))[-1] is KILLER, "at the same token as on C"


@pytest.mark.parametrize("kind", OTHERS)
def test_a_stall_is_no_death(kind: type[UpstreamError]) -> None:
    assert judged(2, (kind, "A", 0), (kind, "B", 0), (UpstreamCut, "C", 0)) == [GO_ON, GO_ON, LIMIT]


def test_tokens_that_are_cut_back_are_no_progress() -> None:
    assert judged(9, (UpstreamCut, "A", 10), (UpstreamCut, "B", -5)) == [GO_ON, KILLER]


RATES = st.sampled_from([0.0, 0.01, 0.2, 1.0, 100.0])
OPEN = st.sampled_from([0, 1, 19, 20, 21, 200, 5000])


@given(RATES, st.lists(st.tuples(st.floats(0, 30), OPEN), min_size=1, max_size=200))
def test_a_budget_is_a_bucket(rate: float, asked: list[tuple[float, int]]) -> None:
    budget, now, saved = ResumeBudget(rate), 1000.0, float("inf")
    for passed, streams in asked:
        now += passed
        saved = min(max(20.0, streams), saved + max(MINIMUM_RATE, rate * streams) * passed)
        if abs(saved - 1) < 1e-6:
            return  # what rounding decides is no rule
        wait = budget.take(now, streams)
        assert (wait == 0.0) == (saved > 1)
        assert wait >= 0.0
        if wait == 0.0:
            saved -= 1


@given(RATES, OPEN, st.floats(0, 1e7))
def test_who_waits_as_long_as_told_may_go(rate: float, streams: int, now: float) -> None:
    budget = ResumeBudget(rate)
    while not (wait := budget.take(now, streams)):
        pass
    assert wait <= 1 / MINIMUM_RATE
    assert budget.take(now + 0.9 * wait, streams) > 0.0
    assert budget.take(now + 1.1 * wait + 1e-6, streams) == 0.0


def test_a_rate_is_changed_at_once() -> None:
    budget = ResumeBudget(0.2)
    while not budget.take(0.0, 100):
        pass
    budget.rate = 1.0
    assert [budget.take(1.0, 100) for _ in range(100)] == [0.0] * 100
    assert budget.take(1.0, 100) > 0


def test_each_open_stream_may_break_at_once() -> None:
    """All nodes but one die: all their streams go on without a wait, once."""
    budget = ResumeBudget(0.2)
    assert [budget.take(0.0, 300) for _ in range(300)] == [0.0] * 300
    assert budget.take(0.0, 300) > 0
