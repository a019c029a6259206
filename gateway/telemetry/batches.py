"""Adds up many requests for the metrics: one increment of prometheus-client costs a tenth of a plain request.

Requests with the same labels (`MetricGroup`) are added up in plain integers, and the sums are added to the metrics.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.telemetry.request_stats import RequestStats

NONE = "-"
"""The label for an unknown value."""


class MetricGroup(NamedTuple):
    """The labels by which requests are added up."""

    dialect: str
    model: str
    tenant: str
    status: int
    ending: str
    node: str
    stream: bool


class GroupSums:
    """The sums of one group. `durations`, `ttfts` and `gaps` (mean times between two tokens) in seconds, the rest in
    requests, tokens and nano-dollars. `traced`: duration, time to the first byte (None where none went out) and trace
    of the requests that have one."""

    __slots__ = (
        "cached",
        "cost",
        "durations",
        "gaps",
        "input",
        "output",
        "passed",
        "reasoning",
        "requests",
        "traced",
        "ttfts",
    )

    def __init__(self) -> None:
        self.requests = self.passed = 0
        self.input = self.output = self.cached = self.reasoning = 0
        self.cost = 0
        self.durations: list[float] = []
        self.ttfts: list[float] = []
        self.gaps: list[float] = []
        self.traced: list[tuple[float, float | None, str]] = []


def add_up(ended: Iterable[RequestStats]) -> dict[MetricGroup, GroupSums]:
    """The sums of `ended`, without failed attempts and cuts, which are rare."""
    sums: dict[MetricGroup, GroupSums] = {}
    for event in ended:
        model, tenant, node = event.model or NONE, event.tenant or NONE, event.node or NONE
        kind = event.dialect, model, tenant, event.status, event.ending, node, event.stream
        found = sums.get(kind)  # type: ignore[call-overload]  # a tuple is found as the group that it is equal to
        if found is None:
            found = sums[MetricGroup(*kind)] = GroupSums()
        found.requests += 1
        found.passed += event.attempts - len(event.failures)
        found.durations.append(event.duration)
        if event.ttft is not None:
            found.ttfts.append(event.ttft)
        if event.trace_id is not None:
            found.traced.append((event.duration, event.ttft, event.trace_id))
        if event.cost is not None:
            found.cost += event.cost
        usage = event.usage
        if usage is not None:
            found.input += usage.input
            found.output += usage.output
            found.cached += usage.cached or 0
            found.reasoning += usage.reasoning or 0
            if event.stream and event.ttft is not None and usage.output > 1 and event.ending == "ok":
                found.gaps.append((event.duration - event.ttft) / (usage.output - 1))
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


class ResumeSums:
    """The sums of one model's resumes: by cause and outcome, pauses in seconds, and tokens."""

    __slots__ = ("pauses", "recomputed", "resumes")

    def __init__(self) -> None:
        self.resumes: dict[tuple[str, str], int] = {}
        self.pauses: list[float] = []
        self.recomputed = 0


def add_up_resumes(ended: Iterable[RequestStats]) -> dict[str, ResumeSums]:
    """By model. One node that dies has hundreds at once."""
    sums: dict[str, ResumeSums] = {}
    for event in ended:
        for note in event.resumes:
            found = sums.setdefault(event.model or NONE, ResumeSums())
            kind = note.cause, note.outcome
            found.resumes[kind] = found.resumes.get(kind, 0) + 1
            found.recomputed += note.recomputed or 0
            if note.pause is not None:
                found.pauses.append(note.pause)
    return sums
