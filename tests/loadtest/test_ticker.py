"""The wheel: every stream at its own pace, late ticks made up for, nothing kept of what has ended."""

from loadtest.ticker import Wheel


class Steps:
    """Counts its calls, and ends after `last` of them."""

    def __init__(self, last: int = 1000) -> None:
        self.calls = 0
        self._last = last

    def __call__(self) -> bool:
        self.calls += 1
        return self.calls < self._last


def test_each_stream_keeps_its_period() -> None:
    wheel, fast, slow = Wheel(64), Steps(), Steps()
    wheel.add(fast, 2)
    wheel.add(slow, 10)
    for now in range(1, 101):
        wheel.turn(now)
    assert (fast.calls, slow.calls) == (50, 10)


def test_a_late_turn_makes_up_for_every_tick_missed() -> None:
    wheel, steps = Wheel(64), Steps()
    wheel.add(steps, 5)
    wheel.turn(100)
    assert steps.calls == 20


def test_what_has_ended_is_forgotten() -> None:
    wheel, steps = Wheel(64), Steps(last=3)
    wheel.add(steps, 1)
    wheel.turn(50)
    assert (steps.calls, wheel.streams) == (3, 0)


def test_an_empty_wheel_leaps_over_the_time_it_rested() -> None:
    wheel, steps = Wheel(64), Steps()
    wheel.turn(10**12)
    wheel.add(steps, 1)
    wheel.turn(10**12 + 4)
    assert steps.calls == 4


def test_a_period_longer_than_the_wheel_is_cut_to_it() -> None:
    wheel, steps = Wheel(8), Steps()
    wheel.add(steps, 1000)
    wheel.turn(7)
    assert steps.calls == 1
