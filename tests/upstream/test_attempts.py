"""Attempts: what may be tried again, and that nothing is once the client has seen a byte."""

from itertools import product

import pytest

from gateway.core.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    NodeBusy,
    NodeFailed,
    NodeLeaving,
    StaleConnection,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.upstream.attempts import Attempts, RetryBudget, RetryDecision, RetryRules, outcome

KINDS = (ConnectFailed, StaleConnection, NodeBusy, NodeFailed, UpstreamCut, BadUpstreamResponse, UpstreamTimeout)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectFailed, RetryDecision.ANOTHER_NODE),
        (StaleConnection, RetryDecision.SAME_NODE),
        (NodeBusy, RetryDecision.ANOTHER_NODE),
        (NodeFailed, RetryDecision.ANOTHER_NODE),
        (NodeLeaving, RetryDecision.ANOTHER_NODE),
        (UpstreamCut, RetryDecision.ANOTHER_NODE),
        (BadUpstreamResponse, RetryDecision.ANOTHER_NODE),
        (UpstreamTimeout, RetryDecision.ANOTHER_NODE),
        (UpstreamError, RetryDecision.GIVE_UP),
    ],
)
def test_what_is_tried_again(error: type[UpstreamError], verdict: RetryDecision) -> None:
    assert Attempts(limit=3).judge(error("x"), answered=False) is verdict


@pytest.mark.parametrize("error", KINDS)
def test_nothing_is_tried_again_after_a_byte_of_the_answer(error: type[UpstreamError]) -> None:
    assert Attempts(limit=3).judge(error("x"), answered=True) is RetryDecision.GIVE_UP


@pytest.mark.parametrize("limit", [1, 2, 3, 16])
def test_no_more_nodes_are_tried_than_allowed(limit: int) -> None:
    attempts = Attempts(limit)
    verdicts = [attempts.judge(ConnectFailed("x"), answered=False) for _ in range(limit + 2)]
    assert verdicts == [RetryDecision.ANOTHER_NODE] * (limit - 1) + [RetryDecision.GIVE_UP] * 3


@pytest.mark.parametrize("limit", [1, 2, 3, 16])
def test_a_node_that_died_as_others_did_counts_towards_the_limit_alone(limit: int) -> None:
    attempts = Attempts(limit)
    cuts = [attempts.judge(UpstreamCut("x"), answered=False, innocent=True) for _ in range(limit)]
    assert cuts == [RetryDecision.ANOTHER_NODE] * (limit - 1) + [RetryDecision.GIVE_UP]
    attempts = Attempts(16)
    verdicts = [attempts.judge(UpstreamCut("x"), answered=False, innocent=each) for each in (True, False, True, False)]
    assert verdicts == [RetryDecision.ANOTHER_NODE] * 3 + [RetryDecision.GIVE_UP], "the second of its own"


@pytest.mark.parametrize("order", list(product(KINDS, repeat=3)))
def test_every_run_of_failures_comes_to_an_end(order: tuple[type[UpstreamError], ...]) -> None:
    """Whatever nodes do in turn, one request is not sent to more of them than allowed, and not without bound to one."""
    attempts = Attempts(limit=2)
    sent = 1
    for error in order * 3:
        if attempts.judge(error("x"), answered=False) is RetryDecision.GIVE_UP:
            return
        sent += 1
    assert sent <= 4, "a node that takes connections and closes them would be asked for ever"


DOUBTFUL = (NodeFailed, BadUpstreamResponse, UpstreamCut, UpstreamTimeout)


@pytest.mark.parametrize(("first", "second"), list(product(DOUBTFUL, repeat=2)))
def test_a_request_that_may_have_killed_a_node_is_given_one_more_not_all(
    first: type[UpstreamError], second: type[UpstreamError]
) -> None:
    attempts = Attempts(limit=16)
    assert attempts.judge(first("x"), answered=False) is RetryDecision.ANOTHER_NODE
    assert attempts.judge(NodeBusy("x"), answered=False) is RetryDecision.ANOTHER_NODE, "a full queue did nothing"
    assert attempts.judge(ConnectFailed("x"), answered=False) is RetryDecision.ANOTHER_NODE
    assert attempts.judge(second("x"), answered=False) is RetryDecision.GIVE_UP


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_has_a_name_of_its_own(kind: type[UpstreamError]) -> None:
    assert [outcome(other("x")) for other in KINDS].count(outcome(kind("x"))) == 1


def test_retries_are_a_share_of_the_requests_once_the_saved_ones_are_spent() -> None:
    budget = RetryBudget(RetryRules(share=0.2, minimum=0.0), now=0.0)
    granted = 0
    for second in range(1, 101):
        budget.requests += 10
        granted += sum(budget.spend(float(second)) for _ in range(10))
    assert 180 <= granted <= 200, "1000 requests, a fifth of them, less what fades"


def test_a_quiet_model_may_be_tried_again_for_a_while() -> None:
    budget = RetryBudget(RetryRules(share=0.2, minimum=1.0), now=0.0)
    assert sum(budget.spend(0.0) for _ in range(100)) == 10, "ten seconds' worth was saved"
    assert not budget.spend(0.5)
    assert budget.spend(1.5)


def test_what_is_not_used_does_not_pile_up_for_ever() -> None:
    budget = RetryBudget(RetryRules(share=0.2, minimum=1.0), now=0.0)
    budget.requests = 100_000
    assert sum(budget.spend(1000.0) for _ in range(1000)) <= 10 + 0.2 * 100 * 10


def test_no_budget_is_none() -> None:
    budget = RetryBudget(RetryRules(share=0.0, minimum=0.0), now=0.0)
    budget.requests = 1000
    assert not budget.spend(1.0)
