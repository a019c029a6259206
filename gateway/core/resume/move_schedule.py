"""When a drain moves the streams that will not end before its deadline.

Theory. A moved stream has another node compute its prompt and answer once more, so many moves at once would hold up all
that the other nodes do. A move too early is wasted where the stream would have ended by itself. So moves are spread
evenly over the last part of the time: `WINDOW`, or more where there are many streams. The plan is made anew after each
look, from the streams that are left (k) and the time of the last move:

    deadline                   first move                             following moves
    far away                   max(WINDOW, k * SPACING) before it     (end - last) / (k + 1) after the last
    less than that away        at once                                the same: closer together
    has come (`overdue`)       at once                                the same, NOW_STEP at the most
    none                       never                                  never

Where the deadline had come when the drain was first seen, its operator waits: all is to be moved soon, but still one
after the other, within `NOW_SECONDS`. What could not be moved by the end is ended there.
"""

WINDOW = 5.0
"""Seconds before the deadline in which streams are moved, at the least."""

SPACING = 0.25
"""Seconds between two moves, where there is time."""

NOW_SECONDS = 3.0
"""Seconds in which all streams are moved where the deadline has come already."""

NOW_STEP = 0.05
"""Seconds between two moves then, at the most."""

SAME = 0.25
"""Seconds by which a deadline may differ from what it was before: it is told in another clock's time."""


class MoveSchedule:
    """That of one drain of one node, in seconds of one clock. `end`: when what is left is ended."""

    __slots__ = ("_began", "_last", "_until", "end", "overdue")

    def __init__(self, began: float, until: float) -> None:
        """`began`: when the drain, with the deadline `until`, was first seen."""
        self._began = began
        self._until = until
        self._last: float | None = None
        self.overdue = until <= began
        self.end = began + NOW_SECONDS if self.overdue else until

    def is_for(self, until: float) -> bool:
        """Whether it was made for this deadline."""
        return abs(until - self._until) <= SAME

    def next_move(self, left: int) -> float:
        """When to move one of `left` streams."""
        first = self._began if self.overdue else max(self._began, self.end - max(WINDOW, SPACING * left))
        if self._last is None:
            return first
        step = (self.end - self._last) / (left + 1)
        return max(first, self._last + (min(NOW_STEP, step) if self.overdue else step))

    def moved(self, now: float) -> None:
        """A stream was moved at `now`."""
        self._last = now

    def over(self, now: float) -> bool:
        """Whether time is up."""
        return now >= self.end
