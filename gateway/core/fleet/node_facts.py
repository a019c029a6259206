"""The facts about nodes that metrics read."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class CanaryRuns(NamedTuple):
    """How often a node's canary was run, by result: `weak` where the gateway has to hold its budgets."""

    passed: int = 0
    weak: int = 0
    failed: int = 0

    def after(self, result: str) -> "CanaryRuns":
        """With one run more."""
        return self._replace(**{result: getattr(self, result) + 1})


NO_RUNS: Final = CanaryRuns()


class NodeFacts(NamedTuple):
    """One node as a process sees it. `breaker` is its state (see `BreakerState`), `opened` how often it opened by
    cause; `in_flight` what this process has there; `max_concurrency` what all gateways may have there, None without a
    bound. `canaries`: runs of its canary here; `holds_budgets`: what they showed, None before. `kv_use` (0
    to 1) and `waiting` (requests in its own queue) as its metrics tell them; None where they do not."""

    name: str
    ready: bool
    breaker: str
    opened: Mapping[str, int]
    draining: bool
    in_flight: int
    max_concurrency: int | None = None
    canaries: CanaryRuns = NO_RUNS
    holds_budgets: bool | None = None
    kv_use: float | None = None
    waiting: int | None = None
