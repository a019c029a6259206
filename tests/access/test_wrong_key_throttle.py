"""Wrong keys: so many at once, then one at a time, and the wait that is told is the wait that is needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.wrong_key_throttle import WrongKeyThrottle

HERE, THERE = "192.0.2.1", "192.0.2.2"


def test_so_many_in_a_minute_and_no_more() -> None:
    guesses = WrongKeyThrottle(5)
    assert [guesses.wrong(HERE, 0.0) for _ in range(5)] == [0.0] * 5
    assert guesses.wrong(HERE, 0.0) == pytest.approx(12)
    assert guesses.wrong(THERE, 0.0) == 0, "others are not made to wait"


def test_whoever_waits_as_told_may_try_again_once() -> None:
    guesses = WrongKeyThrottle(5)
    now = 100.0
    for _ in range(5):
        guesses.wrong(HERE, now)
    for _ in range(3):
        now += guesses.wrong(HERE, now)
        assert guesses.wrong(HERE, now) == 0
        assert guesses.wrong(HERE, now) == pytest.approx(12)


@given(st.lists(st.floats(0, 30), max_size=80), st.integers(1, 10))
def test_never_more_than_twice_the_limit_in_any_minute(pauses: list[float], limit: int) -> None:
    """A burst of N, and N that came back in the minute after it: what any bucket of N a minute lets through."""
    guesses, now, passed = WrongKeyThrottle(limit), 0.0, []
    for pause in pauses:
        now += pause
        if guesses.wrong(HERE, now) == 0:
            passed.append(now)
    for start in passed:
        assert sum(start <= moment < start + 60 for moment in passed) <= 2 * limit


def test_what_is_remembered_is_bounded() -> None:
    guesses = WrongKeyThrottle(1, addresses=3)
    for number in range(10):
        assert guesses.wrong(f"192.0.2.{number}", 0.0) == 0
    assert len(guesses._arrivals) == 3
    assert guesses.wrong("192.0.2.9", 0.0) > 0, "the last ones are"
    assert guesses.wrong("192.0.2.1", 0.0) == 0


def test_waiting_is_known_before_anything_is_judged_and_notes_nothing() -> None:
    guesses = WrongKeyThrottle(per_minute=3)
    assert guesses.wait("192.0.2.1", 0) == 0
    for _ in range(3):
        assert guesses.wait("192.0.2.1", 0) == 0
        assert guesses.wrong("192.0.2.1", 0) == 0
    for _ in range(5):
        assert guesses.wait("192.0.2.1", 0) == guesses.wrong("192.0.2.1", 0) == pytest.approx(20)
    assert guesses.wait("192.0.2.2", 0) == 0
    assert guesses.wait("192.0.2.1", 21) == 0
