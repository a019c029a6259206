"""A table that viewers keep a copy of: the first time they get all of it, later the rows that have changed."""

from collections.abc import Iterable, Sequence
from typing import Any

Row = Sequence[Any]
"""Values by the table's columns; the first one is the row's key."""


class LiveTable:
    """The rows as the viewers have them."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._rows: dict[Any, Row] = {}

    def whole(self) -> dict[str, Any]:
        """All of it, for a viewer that has nothing."""
        return {"columns": self.columns, "rows": list(self._rows.values())}

    def update(self, rows: Iterable[Row]) -> dict[str, Any] | None:
        """Make the table `rows`; returns what a viewer changes: rows to `set`, keys that are `gone`. None where nothing
        has changed."""
        fresh = {row[0]: row for row in rows}
        before, self._rows = self._rows, fresh
        changed = [row for key, row in fresh.items() if before.get(key) != row]
        gone = [key for key in before if key not in fresh]
        found: dict[str, Any] = {}
        if changed:
            found["set"] = changed
        if gone:
            found["gone"] = gone
        return found or None
