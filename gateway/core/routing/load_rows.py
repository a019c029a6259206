"""Things in the order of their load, roughly: the least loaded are found, and a load is changed, at a fixed cost.

Loads are sorted into rows, each a fifth higher than the one below; within a row there is no order. That is enough to
sample from: what is sampled is compared exactly.
"""

from collections.abc import Hashable
from math import log2
from typing import Final, Generic, TypeVar

ROWS: Final = 64
LAST: Final = ROWS - 1
"""The row of what is taken to be full, whatever its load."""

FINEST: Final = 0.004
"""Seconds of load that are none."""

PER_DOUBLING: Final = 4
"""Rows between a load and its double."""

T = TypeVar("T", bound=Hashable)


class IndexedSet(Generic[T]):
    """A set of which a member may be drawn."""

    __slots__ = ("_at", "items")

    def __init__(self) -> None:
        self.items: list[T] = []
        self._at: dict[T, int] = {}

    def __contains__(self, item: object) -> bool:
        return item in self._at

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: T) -> None:
        if item not in self._at:
            self._at[item] = len(self.items)
            self.items.append(item)

    def discard(self, item: T) -> None:
        at = self._at.pop(item, -1)
        if at < 0:
            return
        last = self.items.pop()
        if at < len(self.items):
            self.items[at] = last
            self._at[last] = at

    def some(self, count: int, draw: float) -> list[T]:
        """Up to `count` members, beginning where `draw`, in [0, 1), says."""
        items = self.items
        size = len(items)
        if size <= count:
            return list(items)
        start = int(draw * size)
        found = items[start : start + count]
        return found if len(found) == count else found + items[: count - len(found)]


class LoadRows(Generic[T]):
    """Each thing has one load, in seconds; infinite where it counts as full."""

    __slots__ = ("_row_of", "_rows", "_used")

    def __init__(self) -> None:
        self._rows: list[IndexedSet[T]] = [IndexedSet() for _ in range(ROWS)]
        self._row_of: dict[T, int] = {}
        self._used = 0
        """A bit for each row that has something."""

    def __contains__(self, item: object) -> bool:
        return item in self._row_of

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def has_room(self) -> bool:
        """Whether there is something that does not count as full."""
        return self._used & ~(1 << LAST) != 0

    def put(self, item: T, load: float) -> None:
        row = row_of(load)
        before = self._row_of.get(item, -1)
        if row == before:
            return
        if before >= 0:
            self._take(item, before)
        self._row_of[item] = row
        self._rows[row].add(item)
        self._used |= 1 << row

    def discard(self, item: T) -> None:
        before = self._row_of.pop(item, -1)
        if before >= 0:
            self._take(item, before)

    def least(self, count: int, draw: float, among: int = 0) -> list[T]:
        """`count` of the `among` least loaded (no fewer than `count`), or all; where there are more, those that `draw`,
        in [0, 1), says."""
        rows: list[list[T]] = []
        size, among = 0, max(count, among)
        used = self._used
        while used and size < among:
            lowest = used & -used
            rows.append(self._rows[lowest.bit_length() - 1].items)
            size += len(rows[-1])
            used ^= lowest
        found: list[T] = []
        if size <= count:
            for row in rows:
                found += row
            return found
        if among == count:  # the last row has more than are wanted
            for row in rows[:-1]:
                found += row
            wanted, row = count - len(found), rows[-1]
            start = int(draw * len(row))
            return found + (row[start : start + wanted] + row[: max(0, start + wanted - len(row))])
        at, step = int(draw * size / count), size / count
        for number in range(count):
            place = at + int(number * step)
            for row in rows:
                if place < len(row):
                    found.append(row[place])
                    break
                place -= len(row)
        return found

    def _take(self, item: T, row: int) -> None:
        rows = self._rows[row]
        rows.discard(item)
        if not len(rows):
            self._used &= ~(1 << row)


def row_of(load: float) -> int:
    """The number of the row that a load, in seconds, belongs to."""
    if load <= FINEST:
        return 0
    if load == float("inf"):
        return LAST
    return min(LAST - 1, 1 + int(PER_DOUBLING * log2(load / FINEST)))
