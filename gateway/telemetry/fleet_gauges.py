"""The metrics of nodes and models, set at every scrape and every few seconds."""

import os
from collections.abc import Iterable, Mapping

from gateway.core.fleet.node_facts import NodeFacts
from gateway.telemetry import definitions

STATES = ("closed", "probation", "open")


class FleetGauges:
    """The metrics of this process's view. Processes are added up, so a gauge says how many of them see a state."""

    def __init__(self, made: definitions.MetricSet) -> None:
        self._made = made
        self._models: set[str] = set()
        self._pressed: set[str] = set()
        self._seen: dict[str, NodeFacts] = {}

    def set_nodes(self, nodes: Iterable[NodeFacts]) -> None:
        """Set all metrics to `nodes`; a node that is not among them is removed."""
        now = {facts.name: facts for facts in nodes}
        for name in self._seen.keys() - now.keys():
            self._forget(name)
        for name, facts in now.items():
            before = self._seen.get(name)
            if facts == before:  # seven gauges a node: of a thousand nodes 1% of a core
                continue
            self._made[definitions.NODE_READY].labels(name).set(int(facts.ready))
            self._made[definitions.NODE_IN_FLIGHT].labels(name).set(facts.in_flight)
            self._made[definitions.NODE_MAX_CONCURRENCY].labels(name).set(facts.max_concurrency or 0)
            self._made[definitions.NODE_DRAINING].labels(name).set(int(facts.draining))
            for state in STATES:
                self._made[definitions.NODE_BREAKER].labels(name, state).set(int(facts.breaker == state))
            self._count(facts, before)
        self._seen = now

    def set_models(self, ready: Mapping[str, bool]) -> None:
        """As `set_nodes`, for models."""
        gauge = self._made[definitions.MODEL_READY]
        for name in self._models - ready.keys():
            gauge.labels(name).set(0)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(name)
        for name, is_ready in ready.items():
            gauge.labels(name).set(int(is_ready))
        self._models = set(ready)

    def set_factors(self, factors: Mapping[str, float]) -> None:
        """As `set_models`, for the factors of thinking budgets."""
        gauge = self._made[definitions.FACTOR]
        for name in self._pressed - factors.keys():
            gauge.labels(name).set(1)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(name)
        for name, factor in factors.items():
            gauge.labels(name).set(factor)
        self._pressed = set(factors)

    def _count(self, facts: NodeFacts, before: NodeFacts | None) -> None:
        known = {} if before is None else before.opened
        for cause, times in facts.opened.items():
            new = times - known.get(cause, 0)
            if new > 0:
                self._made[definitions.NODE_TAKEN_OUT].labels(facts.name, cause).inc(new)

    def _forget(self, name: str) -> None:
        """Remove the metrics of a node that has left the fleet. (With several processes they can only be set to 0.)"""
        single = "PROMETHEUS_MULTIPROC_DIR" not in os.environ
        for gauge in (
            definitions.NODE_READY,
            definitions.NODE_IN_FLIGHT,
            definitions.NODE_MAX_CONCURRENCY,
            definitions.NODE_DRAINING,
        ):
            self._made[gauge].labels(name).set(0)
            if single:
                self._made[gauge].remove(name)
        for state in STATES:
            self._made[definitions.NODE_BREAKER].labels(name, state).set(0)
            if single:
                self._made[definitions.NODE_BREAKER].remove(name, state)
