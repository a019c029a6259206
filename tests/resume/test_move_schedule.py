"""The schedule of a drain's moves, against the plain sum of its parts, in time that is an argument."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resume.move_schedule import NOW_SECONDS, NOW_STEP, SPACING, WINDOW, MoveSchedule

BEGAN = 1000.0


class Drained:
    """A node with streams that end by themselves at `ends`, drained from `BEGAN` until `until`."""

    def __init__(self, until: float, ends: list[float], looks: float = 0.5) -> None:
        """`looks`: seconds between two looks at the node, beside those that the schedule asks for."""
        self.schedule = MoveSchedule(BEGAN, until)
        self.ends = ends
        self.looks = looks
        self.moves: list[tuple[float, float]] = []
        """When each move was made, and when that stream would have ended."""
        self.rest: list[float] = []
        """The ends of those that were there when time was up."""

    def run(self) -> None:
        now = BEGAN
        while True:
            left = sorted(end for end in self.ends if end > now)
            if self.schedule.over(now):
                self.rest = left
                return
            due = self.schedule.next_move(len(left))
            if left and due <= now:
                self.moves.append((now, left[-1]))
                self.ends.remove(left[-1])
                self.schedule.moved(now)
                continue
            now = min(self.schedule.end, now + self.looks, max(due, now) if left else self.schedule.end)

    @property
    def times(self) -> list[float]:
        return [now for now, _ in self.moves]


def drained(seconds: float, ends: list[float]) -> Drained:
    made = Drained(BEGAN + seconds, [BEGAN + end for end in ends])
    made.run()
    return made


SECONDS = st.one_of(st.sampled_from([0.0, -5.0, 0.01, 0.2, 5.0, 30.0, 110.0]), st.floats(0.001, 300))
ENDS = st.lists(st.one_of(st.just(float("inf")), st.floats(0.001, 400)), max_size=120)


@given(SECONDS, ENDS)
def test_what_would_not_end_in_time_is_moved_before_the_deadline(seconds: float, ends: list[float]) -> None:
    made = drained(seconds, ends)
    assert made.rest == [], "nothing is left for the deadline"
    assert all(now < made.schedule.end and end > now for now, end in made.moves), "nothing that has ended is moved"
    stay = [BEGAN + end for end in ends]
    late = sum(end >= made.schedule.end for end in stay)
    assert len(made.moves) >= late
    assert sorted(end for _, end in made.moves) == sorted(stay)[len(stay) - len(made.moves) :]


@given(st.floats(0.001, 300), ENDS)
def test_moves_are_as_far_apart_as_the_time_allows(seconds: float, ends: list[float]) -> None:
    made = drained(seconds, ends)
    if len(made.moves) < 2:
        return
    window = min(seconds, max(WINDOW, SPACING * len(ends)))
    gaps = [later - earlier for earlier, later in pairwise(made.times)]
    assert min(gaps) >= 0.99 * window / len(ends)
    assert made.times[0] >= made.schedule.end - window - 1e-6


@given(st.integers(1, 200), st.floats(0.001, 300))
def test_endless_streams_are_moved_evenly_over_the_window(count: int, seconds: float) -> None:
    made = drained(seconds, [float("inf")] * count)
    window = min(seconds, max(WINDOW, SPACING * count))
    planned = [made.schedule.end - window + number * window / count for number in range(count)]
    assert made.times == pytest.approx(planned, abs=1e-6)


@given(st.floats(-1000, 0), st.integers(1, 300))
def test_a_deadline_that_has_come_moves_at_once_and_one_by_one(seconds: float, count: int) -> None:
    made = drained(seconds, [float("inf")] * count)
    assert made.schedule.overdue
    assert made.schedule.end == BEGAN + NOW_SECONDS
    step = min(NOW_STEP, NOW_SECONDS / count)
    assert made.times == pytest.approx([BEGAN + number * step for number in range(count)], abs=1e-6)


def test_streams_that_end_give_the_others_more_time() -> None:
    """100 streams need 25 s, the 8 that stay 5 s."""
    made = drained(60, [34.9] * 92 + [float("inf")] * 8)
    assert made.times[0] == pytest.approx(BEGAN + 55)
    assert len(made.moves) == 8


def test_a_move_that_was_held_up_is_made_up_for_over_what_is_left() -> None:
    schedule = MoveSchedule(BEGAN, BEGAN + 10)
    assert schedule.next_move(4) == BEGAN + 5
    schedule.moved(BEGAN + 8)
    assert schedule.next_move(3) == pytest.approx(BEGAN + 8.5)
    assert not schedule.over(BEGAN + 9.99) and schedule.over(BEGAN + 10)
    assert not schedule.overdue


def test_clocks_that_drift_are_no_new_deadline() -> None:
    """Deadlines are told in wall time, and read anew with each look."""
    schedule = MoveSchedule(BEGAN, BEGAN + 10)
    assert schedule.is_for(BEGAN + 10.05) and schedule.is_for(BEGAN + 9.95)
    assert not schedule.is_for(BEGAN + 11) and not schedule.is_for(BEGAN)
