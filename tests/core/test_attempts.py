"""Attempts: what may be tried again, and that nothing is once the client has seen a byte."""

from itertools import product

import pytest

from gateway.core.attempts import Attempts, Verdict
from gateway.core.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    StaleConnection,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)

KINDS = (ConnectFailed, StaleConnection, UpstreamCut, BadUpstreamResponse, UpstreamTimeout)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectFailed, Verdict.ANOTHER_NODE),
        (StaleConnection, Verdict.SAME_NODE),
        (UpstreamCut, Verdict.GIVE_UP),
        (BadUpstreamResponse, Verdict.GIVE_UP),
        (UpstreamTimeout, Verdict.GIVE_UP),
    ],
)
def test_what_is_tried_again(error: type[UpstreamError], verdict: Verdict) -> None:
    assert Attempts(limit=3).judge(error("x"), answered=False) is verdict


@pytest.mark.parametrize("error", KINDS)
def test_nothing_is_tried_again_after_a_byte_of_the_answer(error: type[UpstreamError]) -> None:
    assert Attempts(limit=3).judge(error("x"), answered=True) is Verdict.GIVE_UP


@pytest.mark.parametrize("limit", [1, 2, 3, 16])
def test_no_more_nodes_are_tried_than_allowed(limit: int) -> None:
    attempts = Attempts(limit)
    verdicts = [attempts.judge(ConnectFailed("x"), answered=False) for _ in range(limit + 2)]
    assert verdicts == [Verdict.ANOTHER_NODE] * (limit - 1) + [Verdict.GIVE_UP] * 3


@pytest.mark.parametrize("order", list(product(KINDS, repeat=3)))
def test_every_run_of_failures_comes_to_an_end(order: tuple[type[UpstreamError], ...]) -> None:
    """Whatever nodes do in turn, one request is not sent to more of them than allowed, and not without bound to one."""
    attempts = Attempts(limit=2)
    sent = 1
    for error in order * 3:
        if attempts.judge(error("x"), answered=False) is Verdict.GIVE_UP:
            return
        sent += 1
    assert sent <= 4, "a node that takes connections and closes them would be asked for ever"
