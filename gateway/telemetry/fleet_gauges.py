"""The metrics of nodes and models, set at every scrape and every few seconds."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Gauge

from gateway.core.fleet.node_facts import NodeFacts
from gateway.telemetry import definitions
from gateway.telemetry.label_names import LabelNames

STATES = ("closed", "probation", "open")

RESULTS = ("passed", "weak", "failed")
"""Of a canary."""

_OF_A_NODE = (
    definitions.NODE_READY,
    definitions.NODE_IN_FLIGHT,
    definitions.NODE_MAX_CONCURRENCY,
    definitions.NODE_DRAINING,
    definitions.NODE_KV_USE,
    definitions.NODE_WAITING,
    definitions.NODE_HOLDS_BUDGETS,
)


_Place = tuple[definitions.MetricDefinition[Gauge], str | None]
"""A gauge, and the state where it has one for each."""


class FleetGauges:
    """The metrics of this process's view. Processes are added up, so a gauge says how many of them see a state."""

    def __init__(self, made: definitions.MetricSet, nodes: LabelNames, models: LabelNames) -> None:
        self._made = made
        self._nodes = nodes
        self._model_names = models
        self._models: set[str] = set()
        self._pressed: set[str] = set()
        self._failing: set[tuple[str, str]] = set()
        self._seen: dict[str, list[NodeFacts]] = {}
        self._shown: dict[str, dict[_Place, float]] = {}
        self._counted: dict[str, NodeFacts] = {}

    def set_nodes(self, nodes: Iterable[NodeFacts]) -> None:
        """Set all metrics to `nodes`; a node that is not among them is removed. Nodes beyond the bound of labels are
        added up."""
        now: dict[str, list[NodeFacts]] = {}
        counted: dict[str, NodeFacts] = {}
        for facts in nodes:
            label = self._nodes.label(facts.name)
            now.setdefault(label, []).append(facts)
            self._count(label, facts, self._counted.get(facts.name))
            counted[facts.name] = facts
            if facts.name not in self._counted:
                for result in RESULTS:
                    self._made[definitions.CANARIES].labels(label, result)  # so that alerts see the first of them
        for label in self._seen.keys() - now.keys():
            self._forget(label)
        for label, together in now.items():
            if together != self._seen.get(label):
                self._set(label, together)
        self._seen, self._counted = now, counted

    def _set(self, label: str, nodes: list[NodeFacts]) -> None:
        """Only what has changed: a node's requests do at every look, all else seldom."""
        shown = self._shown.setdefault(label, {})
        for place, value in _values(nodes):
            if shown.get(place) != value:
                shown[place] = value
                gauge, state = place
                made = self._made[gauge]
                (made.labels(label) if state is None else made.labels(label, state)).set(value)

    def set_models(self, ready: Mapping[str, bool]) -> None:
        """As `set_nodes`, for models."""
        gauge = self._made[definitions.MODEL_READY]
        folded: dict[str, bool] = {}
        for name, is_ready in ready.items():  # where they are counted together: 0 once one of them has no node
            label = self._model_names.label(name)
            folded[label] = is_ready and folded.get(label, True)
        ready = folded
        for name in self._models - ready.keys():
            _remove(gauge, name)
        for name, is_ready in ready.items():
            gauge.labels(name).set(int(is_ready))
        self._models = set(ready)

    def set_factors(self, factors: Mapping[str, float]) -> None:
        """As `set_models`, for the factors of thinking budgets."""
        gauge = self._made[definitions.FACTOR]
        folded: dict[str, float] = {}
        for name, factor in factors.items():
            label = self._model_names.label(name)
            folded[label] = min(factor, folded.get(label, 1.0))
        factors = folded
        for name in self._pressed - factors.keys():
            gauge.labels(name).set(1)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(name)
        for name, factor in factors.items():
            gauge.labels(name).set(factor)
        self._pressed = set(factors)

    def set_failing(self, failing: Iterable[tuple[str, str]]) -> None:
        """As `set_models`, for models and the dialects in which they fail."""
        gauge = self._made[definitions.MODEL_FAILING]
        now = {(self._model_names.label(model), dialect) for model, dialect in failing}
        for model, dialect in self._failing - now:
            gauge.labels(model, dialect).set(0)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(model, dialect)
        for model, dialect in now:
            gauge.labels(model, dialect).set(1)
        self._failing = now

    def _count(self, label: str, facts: NodeFacts, before: NodeFacts | None) -> None:
        for counter, totals, known in (
            (definitions.NODE_TAKEN_OUT, facts.opened, {} if before is None else before.opened),
            (definitions.CANARIES, facts.canaries, {} if before is None else before.canaries),
        ):
            for kind, total in totals.items():
                new = total - known.get(kind, 0)
                if new > 0:
                    self._made[counter].labels(label, kind).inc(new)

    def _forget(self, label: str) -> None:
        """Remove the metrics of a node that has left the fleet."""
        self._shown.pop(label, None)
        gauges: list[tuple[definitions.MetricDefinition[Gauge], tuple[str, ...]]] = [
            *((each, (label,)) for each in _OF_A_NODE),
            *((definitions.NODE_BREAKER, (label, state)) for state in STATES),
        ]
        for gauge, labels in gauges:
            _remove(self._made[gauge], *labels)


def _values(nodes: list[NodeFacts]) -> Iterator[tuple[_Place, float]]:
    """The gauges of nodes that have one label together."""
    yield (definitions.NODE_READY, None), sum([each.ready for each in nodes])
    yield (definitions.NODE_IN_FLIGHT, None), sum([each.in_flight for each in nodes])
    yield (definitions.NODE_MAX_CONCURRENCY, None), sum([each.max_concurrency or 0 for each in nodes])
    yield (definitions.NODE_DRAINING, None), sum([each.draining for each in nodes])
    for state in STATES:
        yield (definitions.NODE_BREAKER, state), sum([each.breaker == state for each in nodes])
    used = [each.kv_use for each in nodes if each.kv_use is not None]
    if used:
        yield (definitions.NODE_KV_USE, None), max(used)
    waiting = [each.waiting for each in nodes if each.waiting is not None]
    if waiting:
        yield (definitions.NODE_WAITING, None), sum(waiting)
    held = [each.holds_budgets for each in nodes if each.holds_budgets is not None]
    if held:
        yield (definitions.NODE_HOLDS_BUDGETS, None), int(all(held))


def _remove(gauge: Gauge, *labels: str) -> None:
    """Remove a series. prometheus-client cannot where there are several processes: their page leaves NaN out
    (`metrics.exposition`). A 0 would stand there for ever, and alerts would take the node for one that is out."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        gauge.labels(*labels).set(math.nan)
    else:
        gauge.remove(*labels)
