"""Counting many requests at once: prometheus-client's own counting costs as much as a tenth of a plain request each.

Requests that ended alike (`MetricGroup`) are added up in plain integers; the metrics are told the sums.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.telemetry.request_stats import RequestStats

NONE = "-"
"""The label of what is not known."""


class MetricGroup(NamedTuple):
    """What requests have in common that are counted together."""

    dialect: str
    model: str
    tenant: str
    status: int
    ending: str
    node: str


class GroupSums:
    """What the requests of one kind add up to. `durations` and `ttfts` in seconds, the rest in requests and tokens."""

    __slots__ = ("cached", "durations", "input", "output", "passed", "reasoning", "requests", "ttfts")

    def __init__(self) -> None:
        self.requests = self.passed = 0
        self.input = self.output = self.cached = self.reasoning = 0
        self.durations: list[float] = []
        self.ttfts: list[float] = []


def add_up(ended: Iterable[RequestStats]) -> dict[MetricGroup, GroupSums]:
    """The sums of `ended`, but for their troubles (failed tries, cuts), which are few."""
    sums: dict[MetricGroup, GroupSums] = {}
    for event in ended:
        model, tenant, node = event.model or NONE, event.tenant or NONE, event.node or NONE
        kind = MetricGroup(event.dialect, model, tenant, event.status, event.ending, node)
        found = sums.get(kind)
        if found is None:
            found = sums[kind] = GroupSums()
        found.requests += 1
        found.passed += event.attempts - len(event.failures)
        found.durations.append(event.duration)
        if event.ttft is not None:
            found.ttfts.append(event.ttft)
        usage = event.usage
        if usage is not None:
            found.input += usage.input
            found.output += usage.output
            found.cached += usage.cached or 0
            found.reasoning += usage.reasoning or 0
    return sums


def add_up_routes(ended: Iterable[RequestStats]) -> dict[tuple[str, str], tuple[int, int]]:
    """By model and reason: the requests whose node was chosen for it, and the cached prompt tokens expected of them."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for event in ended:
        if event.route is not None:
            kind = event.model or NONE, event.route
            requests, expected = sums.get(kind, (0, 0))
            sums[kind] = requests + 1, expected + (event.expected_cached or 0)
    return sums
