"""What other processes told of themselves for the console."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.console import open_requests
from gateway.console.history_feed import HistoryFeed
from gateway.core.console.error_groups import ErrorGroup, read_groups
from gateway.core.console.tenant_sums import TenantUse, read_uses


class ConsolePeers:
    """The views of other processes. One that cannot be read is left out: another version may have written it."""

    def __init__(self, views: Sequence[Mapping[str, Any]]) -> None:
        self.requests: list[list[Any]] = []
        self.running: list[dict[str, int]] = []
        self.waiting: list[dict[str, int]] = []
        self.errors: list[ErrorGroup] = []
        self.sums: list[dict[str, TenantUse]] = []
        self._views = views
        for view in views:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                rows = [list(row) for row in view["requests"] if len(row) == len(open_requests.COLUMNS)]
                running = {str(name): int(count) for name, count in view["running"].items()}
                waiting = {str(name): int(count) for name, count in view["waiting"].items()}
                errors, sums = read_groups(view["errors"]), read_uses(view["sums"])
                self.requests += rows
                self.running.append(running)
                self.waiting.append(waiting)
                self.errors += errors
                self.sums.append(sums)

    def histories(self, now: float) -> list[Any]:
        found = []
        for view in self._views:
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                found.append(HistoryFeed.read(view["history"], now))
        return found
