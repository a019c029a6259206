"""What recurs is logged at once, and then once an interval with how often it was."""

from gateway.core.telemetry.log_throttle import LogThrottle


def test_the_first_is_logged_and_then_one_an_interval_with_its_count() -> None:
    throttle = LogThrottle(seconds=60)
    assert [throttle.due("a", now) for now in (0, 1, 2, 59.9, 60, 61, 200)] == [1, 0, 0, 0, 4, 0, 2]


def test_what_no_later_event_tells_of_is_overdue_once_its_interval_is_over() -> None:
    throttle = LogThrottle(seconds=60)
    for key, now in (("a", 0), ("once", 0), ("a", 1), ("b", 10), ("b", 11), ("b", 12)):
        throttle.due(key, now)
    assert throttle.overdue(59.9) == []
    assert throttle.overdue(65) == [("a", 1)]
    assert throttle.overdue(70) == [("b", 2)]
    assert throttle.overdue(1000) == []
    assert [throttle.due(key, 80) for key in ("a", "once")] == [0, 1], "what was told counts as logged"
    assert throttle.overdue(130) == [("a", 1)]


def test_each_key_is_on_its_own() -> None:
    throttle = LogThrottle(seconds=60)
    assert [throttle.due(key, 0) for key in ("a", "b", "a", "b")] == [1, 1, 0, 0]


def test_ever_new_keys_take_no_memory() -> None:
    throttle = LogThrottle(seconds=60, keys=100)
    assert all(throttle.due(str(number), 0) == 1 for number in range(1_000))
    assert len(throttle._counts) == 100


def test_a_crowd_of_strangers_has_one_line_more_an_interval() -> None:
    """Ever new addresses, and those of before again and again: no more lines than keys, and one."""
    throttle = LogThrottle(seconds=60, keys=100, crowded=True)
    for start in (0.0, 60.0):
        told = [throttle.due(str(number % 3000), start + number / 1000) for number in range(9_000)]
        assert sum(1 for count in told if count) <= 101
        assert len(throttle._counts) == 100
    assert throttle.due("another", 200.0) == 1, "there is room again"
