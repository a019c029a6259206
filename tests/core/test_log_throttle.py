"""What recurs is logged at once, and then once an interval with how often it was."""

from gateway.core.log_throttle import LogThrottle


def test_the_first_is_logged_and_then_one_an_interval_with_its_count() -> None:
    throttle = LogThrottle(seconds=60)
    assert [throttle.due("a", now) for now in (0, 1, 2, 59.9, 60, 61, 200)] == [1, 0, 0, 0, 4, 0, 2]


def test_each_key_is_on_its_own() -> None:
    throttle = LogThrottle(seconds=60)
    assert [throttle.due(key, 0) for key in ("a", "b", "a", "b")] == [1, 1, 0, 0]


def test_ever_new_keys_take_no_memory() -> None:
    throttle = LogThrottle(seconds=60, keys=100)
    assert all(throttle.due(str(number), 0) == 1 for number in range(1_000))
    assert len(throttle._counts) == 100
