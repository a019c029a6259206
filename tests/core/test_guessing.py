"""Wrong keys: so many at once, then one at a time, and the wait that is told is the wait that is needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guessing import Guesses, plain_address, source_of

HERE, THERE = "192.0.2.1", "192.0.2.2"


def test_so_many_in_a_minute_and_no_more() -> None:
    guesses = Guesses(5)
    assert [guesses.wrong(HERE, 0.0) for _ in range(5)] == [0.0] * 5
    assert guesses.wrong(HERE, 0.0) == pytest.approx(12)
    assert guesses.wrong(THERE, 0.0) == 0, "others are not made to wait"


def test_whoever_waits_as_told_may_try_again_once() -> None:
    guesses = Guesses(5)
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
    guesses, now, passed = Guesses(limit), 0.0, []
    for pause in pauses:
        now += pause
        if guesses.wrong(HERE, now) == 0:
            passed.append(now)
    for start in passed:
        assert sum(start <= moment < start + 60 for moment in passed) <= 2 * limit


def test_what_is_remembered_is_bounded() -> None:
    guesses = Guesses(1, addresses=3)
    for number in range(10):
        assert guesses.wrong(f"192.0.2.{number}", 0.0) == 0
    assert len(guesses._arrivals) == 3
    assert guesses.wrong("192.0.2.9", 0.0) > 0, "the last ones are"
    assert guesses.wrong("192.0.2.1", 0.0) == 0


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::FFFF:c000:207%eth0", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("fe80::2", "fe80::/64"),
        ("unknown", "unknown"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_who_counts_as_one(address: str, source: str) -> None:
    assert source_of(address) == source


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("0:0:0:0:0:FFFF:A00:1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::1", "::1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("10.0.0.1:80:90", "10.0.0.1:80:90"),
        ("[x", "[x"),
        ("::ffff:10.0.0.1:x", "::ffff:10.0.0.1:x"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(address: str, plain: str) -> None:
    assert plain_address(address) == plain


def test_waiting_is_known_before_anything_is_judged_and_notes_nothing() -> None:
    guesses = Guesses(per_minute=3)
    assert guesses.wait("192.0.2.1", 0) == 0
    for _ in range(3):
        assert guesses.wait("192.0.2.1", 0) == 0
        assert guesses.wrong("192.0.2.1", 0) == 0
    for _ in range(5):
        assert guesses.wait("192.0.2.1", 0) == guesses.wrong("192.0.2.1", 0) == pytest.approx(20)
    assert guesses.wait("192.0.2.2", 0) == 0
    assert guesses.wait("192.0.2.1", 21) == 0
