"""The breaker: what opens it, what does not, and that nothing but an answered request closes what failed."""

from itertools import pairwise

from gateway.core.breaker import Breaker, BreakerRules, Cause, State


def closed(now: float = 0.0, **rules: float) -> Breaker:
    breaker = Breaker(BreakerRules(**rules))  # type: ignore[arg-type]
    breaker.probed(now)
    assert breaker.state is State.CLOSED
    return breaker


def failing(now: float = 0.0) -> Breaker:
    breaker = closed(now)
    for request in (1, 2, 3):
        breaker.failed(now, request, spare=False)
    assert (breaker.state, breaker.cause) == (State.OPEN, Cause.FAILING)
    return breaker


def test_a_node_that_was_there_from_the_beginning_needs_a_probe_only() -> None:
    assert Breaker().is_open
    assert closed().share(0.0) == 1.0


def test_a_node_that_joins_later_has_to_answer_first() -> None:
    breaker = Breaker(trusted=False)
    breaker.probed(1.0)
    assert breaker.is_open and breaker.trial_due(1.0)
    breaker.answered(1.0)
    assert breaker.state is State.PROBATION


def test_different_failing_requests_open_it() -> None:
    breaker = closed()
    assert not breaker.failed(1.0, 1, spare=False)
    assert not breaker.failed(1.0, 2, spare=False)
    assert breaker.failed(1.0, 3, spare=False)
    assert breaker.cause is Cause.FAILING


def test_the_same_request_again_and_again_does_not() -> None:
    breaker = closed()
    assert not any(breaker.failed(float(n), 7, spare=False) for n in range(100))


def test_an_answer_between_failures_clears_the_node() -> None:
    breaker = closed()
    for request in range(100):
        assert not breaker.failed(1.0, request, spare=False)
        breaker.answered(1.0)


def test_the_last_ready_node_is_not_opened_by_failures_or_silence() -> None:
    breaker = closed()
    assert not any(breaker.failed(1.0, request, spare=True) for request in range(100))
    assert not breaker.fell_silent(1.0, spare=True)
    assert breaker.state is State.CLOSED


def test_requests_that_fail_everywhere_open_nothing() -> None:
    breaker = failing()
    breaker.acquit(2.0, 2)
    assert breaker.state is State.CLOSED
    assert not breaker.failed(3.0, 3, spare=False), "3 was counted before"
    assert breaker.failed(3.0, 4, spare=False)


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
    assert states == [State.PROBATION, State.CLOSED]


def test_one_failure_on_probation_is_enough_unless_it_was_the_requests() -> None:
    breaker = closed()
    breaker.refused(0.0)
    breaker.answered(1.0)
    assert breaker.failed(2.0, 1, spare=False)
    breaker.acquit(2.0, 1)
    assert breaker.state is State.PROBATION


def test_a_node_that_was_only_late_comes_back_with_its_probe() -> None:
    breaker = closed()
    assert breaker.missed_probes(1.0)
    breaker.probed(2.0)
    assert (breaker.state, breaker.share(2.0)) == (State.CLOSED, 1.0)


def test_a_silent_node_is_opened_and_has_to_answer() -> None:
    breaker = closed()
    assert breaker.fell_silent(1.0, spare=False)
    breaker.probed(2.0)
    assert breaker.is_open and breaker.trial_due(2.0)
