"""The metrics of nodes, set at every scrape and every few seconds.

One process keeps the facts of each node, and makes its series when a page is made: prometheus-client takes 750 bytes
for a series, and a node has 13. Where several worker processes share a page, its files hold the series.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from gateway.core.fleet.node_facts import NO_RUNS, CanaryRuns, NodeFacts
from gateway.telemetry import definitions
from gateway.telemetry.definitions import MetricDefinition, MetricSet, ReadGauge, Series
from gateway.telemetry.label_names import LabelNames

Nodes = Sequence[NodeFacts]
"""Those that have one label together, one at the least."""

STATES: Final = ("closed", "probation", "open")


def _kv_use(nodes: Nodes) -> float | None:
    return max([each.kv_use for each in nodes if each.kv_use is not None], default=None)


def _waiting(nodes: Nodes) -> int | None:
    told = [each.waiting for each in nodes if each.waiting is not None]
    return sum(told) if told else None


def _holds_budgets(nodes: Nodes) -> int | None:
    told = [each.holds_budgets for each in nodes if each.holds_budgets is not None]
    return int(all(told)) if told else None


_VALUES: Final[Mapping[MetricDefinition[ReadGauge], Callable[[Nodes], float | None]]] = {
    definitions.NODE_READY: lambda nodes: sum([each.ready for each in nodes]),
    definitions.NODE_IN_FLIGHT: lambda nodes: sum([each.in_flight for each in nodes]),
    definitions.NODE_MAX_CONCURRENCY: lambda nodes: sum([each.max_concurrency or 0 for each in nodes]),
    definitions.NODE_DRAINING: lambda nodes: sum([each.draining for each in nodes]),
    definitions.NODE_KV_USE: _kv_use,
    definitions.NODE_WAITING: _waiting,
    definitions.NODE_HOLDS_BUDGETS: _holds_budgets,
}
"""The gauges that a label has one series of, and its value; None: it has none now."""

_Place = tuple[MetricDefinition[ReadGauge], str | None]
"""A gauge, and the state where it has one for each."""


def _values(nodes: Nodes) -> Iterator[tuple[_Place, float]]:
    """The gauges of one label."""
    for gauge, value_of in _VALUES.items():
        value = value_of(nodes)
        if value is not None:
            yield (gauge, None), value
    for state in STATES:
        yield (definitions.NODE_BREAKER, state), _in_state(nodes, state)


def _in_state(nodes: Nodes, state: str) -> int:
    return sum([each.breaker == state for each in nodes])


class NodeGauges:
    """This process's view. Processes are added up, so a gauge says how many of them see a state."""

    def __init__(self, made: MetricSet, names: LabelNames) -> None:
        self._names = names
        self._now: dict[str, tuple[NodeFacts, ...]] = {}
        """By label. Replaced and never changed: a page may be made in another thread."""
        self._canaries: dict[str, CanaryRuns] = {}
        self._taken_out: dict[tuple[str, str], int] = {}
        """Since the start, by label, and by label and cause."""
        self._files = _Files(made) if "PROMETHEUS_MULTIPROC_DIR" in os.environ else None
        if self._files is None:
            for gauge in _VALUES:
                made[gauge].read = partial(self._read, gauge)
            made[definitions.NODE_BREAKER].read = self._read_breakers
            made[definitions.CANARIES].read = self._read_canaries
            made[definitions.NODE_TAKEN_OUT].read = self._read_taken_out

    def set(self, nodes: Iterable[NodeFacts]) -> None:
        """Set all metrics to `nodes`; one that is not among them has no gauges any more. Nodes beyond the bound of
        labels are added up."""
        before = {facts.name: facts for together in self._now.values() for facts in together}
        by_label: dict[str, list[NodeFacts]] = {}
        for facts in nodes:
            label, known = self._names.label(facts.name), before.get(facts.name)
            by_label.setdefault(label, []).append(facts)
            self._count_canaries(label, facts.canaries, NO_RUNS if known is None else known.canaries)
            self._count_taken_out(label, facts.opened, {} if known is None else known.opened)
        seen, self._now = self._now, {label: tuple(together) for label, together in by_label.items()}
        if self._files is not None:
            self._files.set(seen, self._now)

    def _count_canaries(self, label: str, runs: CanaryRuns, known: CanaryRuns) -> None:
        if runs == known and label in self._canaries:
            return
        new = [max(0, each - before) for each, before in zip(runs, known, strict=True)]
        self._canaries[label] = CanaryRuns(*map(sum, zip(self._canaries.get(label, NO_RUNS), new, strict=True)))
        if self._files is not None:
            self._files.add_canaries(label, new)

    def _count_taken_out(self, label: str, opened: Mapping[str, int], known: Mapping[str, int]) -> None:
        if opened == known:
            return
        for cause, total in opened.items():
            new = total - known.get(cause, 0)
            if new > 0:
                self._taken_out[label, cause] = self._taken_out.get((label, cause), 0) + new
                if self._files is not None:
                    self._files.add_taken_out(label, cause, new)

    # What is on the page of one process

    def _read(self, gauge: MetricDefinition[ReadGauge]) -> Series:
        value_of = _VALUES[gauge]
        for label, nodes in self._now.items():
            value = value_of(nodes)
            if value is not None:
                yield (label,), value

    def _read_breakers(self) -> Series:
        for label, nodes in self._now.items():
            for state in STATES:
                yield (label, state), _in_state(nodes, state)

    def _read_canaries(self) -> Series:
        for label, runs in self._canaries.copy().items():
            for result, count in runs._asdict().items():
                yield (label, result), count

    def _read_taken_out(self) -> Series:
        yield from self._taken_out.copy().items()


class _Files:
    """The series of one of several worker processes, in its files."""

    def __init__(self, made: MetricSet) -> None:
        self._made = made
        self._shown: dict[str, dict[_Place, float]] = {}
        """By label."""

    def set(self, seen: Mapping[str, Nodes], now: Mapping[str, Nodes]) -> None:
        """Only what has changed: a node's requests do at every look, all else seldom."""
        for label in seen.keys() - now.keys():
            self._show(label, {})
            del self._shown[label]
        for label, nodes in now.items():
            if nodes != seen.get(label):
                self._show(label, dict(_values(nodes)))

    def add_canaries(self, label: str, new: Iterable[int]) -> None:
        """Also where there are none: alerts are to see the first of them."""
        for result, count in zip(CanaryRuns._fields, new, strict=True):
            self._made[definitions.CANARIES].labels(label, result).inc(count)

    def add_taken_out(self, label: str, cause: str, new: int) -> None:
        self._made[definitions.NODE_TAKEN_OUT].labels(label, cause).inc(new)

    def _show(self, label: str, values: Mapping[_Place, float]) -> None:
        """prometheus-client cannot remove a series from its files: the page leaves NaN out (`metrics.exposition`). A 0
        would stand there for ever, and alerts would take a node that has left for one that is out."""
        shown = self._shown.setdefault(label, {})
        for place in shown.keys() - values.keys():
            self._set(label, place, math.nan)
            del shown[place]
        for place, value in values.items():
            if shown.get(place) != value:
                self._set(label, place, value)
                shown[place] = value

    def _set(self, label: str, place: _Place, value: float) -> None:
        gauge, state = place
        made = self._made[gauge]
        (made.labels(label) if state is None else made.labels(label, state)).set(value)
