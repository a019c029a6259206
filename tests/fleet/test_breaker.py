"""The breaker: what opens it, what does not, and that nothing but an answered request closes what failed."""

from itertools import pairwise

from gateway.core.fleet.breaker import Breaker, BreakerRules, BreakerState, Cause


def closed(now: float = 0.0, **rules: float) -> Breaker:
    breaker = Breaker(BreakerRules(**rules))  # type: ignore[arg-type]
    breaker.probed(now)
    assert breaker.state is BreakerState.CLOSED
    return breaker


def failing(now: float = 0.0) -> Breaker:
    breaker = closed(now)
    for _ in range(3):
        breaker.convict(now, now, spare=False)
    assert (breaker.state, breaker.cause) == (BreakerState.OPEN, Cause.FAILING)
    return breaker


def test_a_node_that_was_there_from_the_beginning_needs_a_probe_only() -> None:
    assert Breaker().is_open
    assert closed().share(0.0) == 1.0


def test_a_node_that_joins_later_has_to_answer_first() -> None:
    breaker = Breaker(trusted=False)
    breaker.probed(1.0)
    assert breaker.is_open and breaker.trial_due(1.0)
    breaker.answered(1.0)
    assert breaker.state is BreakerState.PROBATION


def test_requests_that_another_node_answered_open_it_equal_bodies_or_not() -> None:
    breaker = closed()
    assert not breaker.convict(1.0, 1.0, spare=False)
    assert not breaker.convict(1.0, 1.0, spare=False)
    assert breaker.convict(1.0, 1.0, spare=False)
    assert breaker.cause is Cause.FAILING


def test_requests_that_failed_alone_open_nothing_but_have_the_node_asked() -> None:
    breaker = closed()
    for now in range(100):
        breaker.doubt()
        if breaker.begin_check(float(now)):
            breaker.end_check(float(now))
    assert breaker.state is BreakerState.CLOSED


def test_the_nodes_own_failed_answer_opens_it_at_once() -> None:
    breaker = closed()
    breaker.doubt()
    assert breaker.begin_check(1.0)
    breaker.end_check(1.0)
    assert breaker.check_failed(1.0, spare=False)
    assert (breaker.state, breaker.cause) == (BreakerState.OPEN, Cause.FAILING)
    assert not breaker.check_failed(1.0, spare=False), "it is out already"


def test_a_node_is_asked_once_at_a_time_and_not_too_often() -> None:
    breaker = closed(retrial=1.0)
    breaker.doubt()
    assert breaker.begin_check(0.0)
    breaker.doubt()
    assert not breaker.begin_check(5.0), "one is under way"
    breaker.end_check(10.0)
    assert not breaker.begin_check(10.5)
    assert breaker.begin_check(11.0), "the doubt that came meanwhile is not forgotten"
    breaker.end_check(11.0)
    assert not breaker.begin_check(99.0), "nothing more is doubted"


def test_an_answer_between_failures_clears_the_node() -> None:
    breaker = closed()
    for now in range(100):
        assert not breaker.convict(now, now, spare=False)
        breaker.answered(now + 0.5)


def test_what_failed_before_an_answer_is_no_evidence_after_it() -> None:
    """The other node may answer much later: a long stream."""
    breaker = closed()
    breaker.answered(5.0)
    assert not any(breaker.convict(9.0, 4.0, spare=False) for _ in range(100))
    assert breaker.state is BreakerState.CLOSED


def test_the_last_ready_node_is_not_opened_by_failures_or_silence() -> None:
    breaker = closed()
    assert not any(breaker.convict(1.0, 1.0, spare=True) for _ in range(100))
    assert not breaker.check_failed(1.0, spare=True)
    assert not breaker.fell_silent(1.0, spare=True)
    assert breaker.state is BreakerState.CLOSED


def test_probes_do_not_readmit_a_zombie() -> None:
    breaker = failing()
    for now in range(1, 1000):
        breaker.probed(float(now))
        assert breaker.is_open


def test_trials_come_less_and_less_often_up_to_a_limit() -> None:
    breaker = failing(now=0.0)
    times = []
    for now in range(200):
        if breaker.trial_due(float(now)):
            times.append(now)
            breaker.trial_failed(float(now))
    pauses = [b - a for a, b in pairwise(times)]
    assert times[0] == 1
    assert pauses[:6] == [1, 2, 4, 8, 16, 30] and set(pauses[6:]) == {30}


def test_a_restarted_process_is_tried_at_once() -> None:
    breaker = failing()
    for now in (1.0, 2.0, 4.0, 8.0):
        breaker.trial_failed(now)
    breaker.refused(9.0)
    assert breaker.cause is Cause.REFUSED and breaker.trial_due(9.0)


def test_places_grow_slowly_after_an_answer() -> None:
    breaker = closed(slow_start=20.0)
    breaker.refused(0.0)
    assert breaker.share(1.0) == 0.0
    breaker.answered(10.0)
    assert [breaker.share(now) for now in (10.0, 15.0, 20.0, 30.0)] == [0.0, 0.25, 0.5, 1.0]
    states = []
    for now in (29.0, 30.0):
        breaker.probed(now)
        states.append(breaker.state)
    assert states == [BreakerState.PROBATION, BreakerState.CLOSED]


def test_on_probation_one_request_that_another_node_answered_is_enough() -> None:
    breaker = closed()
    breaker.refused(0.0)
    breaker.answered(1.0)
    assert not breaker.convict(2.0, 0.5, spare=False), "that failed before it came back"
    assert breaker.convict(2.0, 1.5, spare=False)


def test_a_node_that_was_only_late_comes_back_with_its_probe() -> None:
    breaker = closed()
    assert breaker.missed_probes(1.0)
    breaker.probed(2.0)
    assert (breaker.state, breaker.share(2.0)) == (BreakerState.CLOSED, 1.0)


def test_a_silent_node_is_opened_and_has_to_answer() -> None:
    breaker = closed()
    assert breaker.fell_silent(1.0, spare=False)
    breaker.probed(2.0)
    assert breaker.is_open and breaker.trial_due(2.0)
