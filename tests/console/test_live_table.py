"""A viewer that applies every change has the table."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.console.live_table import LiveTable

TABLES = st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), max_size=6), max_size=12)


def test_only_what_differs_is_sent() -> None:
    table = LiveTable(["name", "value"])
    assert table.update([["a", 1], ["b", 2]]) == {"set": [["a", 1], ["b", 2]]}
    assert table.update([["a", 1], ["b", 2]]) is None
    assert table.update([["b", 3]]) == {"set": [["b", 3]], "gone": ["a"]}
    assert table.update([]) == {"gone": ["b"]}
    assert table.whole() == {"columns": ("name", "value"), "rows": []}


@given(TABLES, st.integers(0, 11))
def test_a_viewer_may_come_at_any_time(states: list[dict[str, int]], joins: int) -> None:
    table = LiveTable(["name", "value"])
    seen: dict[str, list[Any]] | None = None
    for number, state in enumerate(states):
        change = table.update([[name, value] for name, value in state.items()])
        if number == joins:
            seen = {row[0]: row for row in table.whole()["rows"]}
        elif seen is not None and change is not None:
            for key in change.get("gone", ()):
                del seen[key]
            seen |= {row[0]: row for row in change.get("set", ())}
        if seen is not None:
            assert seen == {name: [name, value] for name, value in state.items()}
