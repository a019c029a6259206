"""The least loaded of many, found by rows."""

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.routing import load_rows
from gateway.core.routing.load_rows import FINEST, LAST, PER_DOUBLING, IndexedSet, LoadRows, row_of


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.one_of(st.none(), st.floats(0, 1e4), st.just(inf))), max_size=60),
    st.integers(1, 9),
    st.floats(0, 0.999),
    st.integers(0, 15),
)
def test_the_least_loaded_are_found_by_rows(
    steps: list[tuple[int, float | None]], count: int, draw: float, among: int
) -> None:
    rows: LoadRows[int] = LoadRows()
    plain: dict[int, int] = {}
    for item, load in steps:
        if load is None:
            rows.discard(item)
            plain.pop(item, None)
        else:
            rows.put(item, load)
            plain[item] = row_of(load)
        found = rows.least(count, draw, among)
        assert len(found) == len(set(found)) == min(count, len(plain))
        assert set(found) <= set(plain)
        first = sorted(plain.values())[: max(count, among)]
        assert all(plain[each] <= first[-1] for each in found)
        if among <= count:
            assert sorted(plain[each] for each in found) == first
        assert rows.has_room == any(row != load_rows.LAST for row in plain.values())
        assert len(rows) == len(plain)


def test_rows_rise_with_the_load_and_what_is_full_stands_last() -> None:
    loads = [0.0, FINEST, 2 * FINEST, 0.1, 1.0, 60.0, 1e6, inf]
    numbers = [row_of(load) for load in loads]
    assert numbers == sorted(numbers)
    assert numbers[:2] == [0, 0] and numbers[-2:] == [LAST - 1, LAST]
    assert row_of(2.0) - row_of(1.0) == PER_DOUBLING


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40), st.integers(1, 12), st.floats(0, 0.999))
def test_some_of_a_set_are_drawn_and_none_twice(steps: list[tuple[bool, int]], count: int, draw: float) -> None:
    drawn: IndexedSet[int] = IndexedSet()
    plain: set[int] = set()
    for adds, item in steps:
        if adds:
            drawn.add(item)
            plain.add(item)
        else:
            drawn.discard(item)
            plain.discard(item)
    found = drawn.some(count, draw)
    assert len(found) == len(set(found)) == min(count, len(plain)) and set(found) <= plain
    assert len(drawn) == len(plain) and all((item in drawn) == (item in plain) for item in range(10))


def test_each_member_may_be_drawn() -> None:
    drawn: IndexedSet[int] = IndexedSet()
    rows: LoadRows[int] = LoadRows()
    for item in range(20):
        drawn.add(item)
        rows.put(item, 0.0)
    draws = [number / 100 for number in range(100)]
    assert set().union(*(drawn.some(2, draw) for draw in draws)) == set(range(20))
    assert set().union(*(rows.least(3, draw) for draw in draws)) == set(range(20))
    assert set().union(*(rows.least(3, draw, 20) for draw in draws)) == set(range(20))
    assert 7 in rows and 20 not in rows
