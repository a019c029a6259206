"""When a node is asked what: no node is forgotten, none is asked more often than its pauses allow."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet.probe_times import UNREADY_SECONDS, ProbeTimes

INTERVAL, QUIET = 2.0, 10.0


def times(asked: float, alive: float, page: float, cards: float) -> ProbeTimes:
    made = ProbeTimes()
    made.asked_at, made.alive_at, made.page_at, made.cards_at = asked, alive, page, cards
    return made


def test_a_new_node_is_asked_at_once() -> None:
    assert ProbeTimes().round_at(5.0, True, INTERVAL, QUIET, 0.0, False) == -math.inf
    assert ProbeTimes().round_at(5.0, False, INTERVAL, QUIET, 0.0, False) == -math.inf


def test_a_node_that_stays_out_is_asked_more_and_more_rarely() -> None:
    out = times(100.0, 0, 0, 0)
    out.saw(True, 100.0)
    pauses = [out.round_at(now, True, INTERVAL, QUIET, 0.0, False) - 100.0 for now in (100.0, 110.0, 130.0, 1000.0)]
    assert pauses == [UNREADY_SECONDS, UNREADY_SECONDS, 1.5, INTERVAL]
    out.saw(False, 1000.0)
    out.saw(True, 1001.0)
    assert out.round_at(1001.0, True, INTERVAL, QUIET, 0.0, False) - 100.0 == UNREADY_SECONDS, "it begins anew"


def test_what_proves_that_it_lives_spares_a_probe() -> None:
    node = times(10.0, 10.0, 10.0, 10.0)
    assert node.round_at(11.0, False, INTERVAL, QUIET, 0.0, False) == 12.0
    assert node.round_at(11.0, False, INTERVAL, QUIET, 11.5, False) == 13.5
    assert node.round_at(11.0, False, INTERVAL, QUIET, 11.5, True) == 12.0, "its metrics are due"


def test_others_may_ask_first() -> None:
    node = times(10.0, 10.0, 10.0, 10.0)
    node.turn = 1.5
    assert node.round_at(11.0, False, INTERVAL, QUIET, 0.0, False) == 13.5


INSTANTS = st.floats(0, 100)


@given(INSTANTS, INSTANTS, INSTANTS, INSTANTS, INSTANTS, st.booleans(), st.floats(0.9, 1.1), st.floats(0, 5))
def test_a_round_is_due_no_sooner_than_a_pause_after_the_last_and_no_later_than_what_is_due(
    asked: float, alive: float, page: float, cards: float, heard: float, busy: bool, jitter: float, turn: float
) -> None:
    node = times(asked, alive, page, cards)
    node.jitter, node.turn = jitter, turn
    at = node.round_at(100.0, False, INTERVAL, QUIET, heard, busy)
    assert at >= asked + INTERVAL * jitter
    assert at <= max(asked, alive, heard, page, cards) + QUIET * jitter + turn
    if alive <= asked and heard <= asked:
        assert at <= asked + INTERVAL * jitter + turn, "health is never put off for longer than an interval"
