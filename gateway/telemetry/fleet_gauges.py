"""What Prometheus reads about nodes: told as facts, set with every scrape and every few seconds."""

import os
from collections.abc import Iterable, Mapping

from gateway.core.telemetry.events import NodeFacts
from gateway.telemetry import definitions

STATES = ("closed", "probation", "open")


class FleetGauges:
    """The metrics of all nodes, as this process sees them. Processes are added up: a gauge says how many see it so."""

    def __init__(self, made: definitions.MetricSet) -> None:
        self._made = made
        self._models: set[str] = set()
        self._seen: dict[str, NodeFacts] = {}

    def set_nodes(self, nodes: Iterable[NodeFacts]) -> None:
        """Set everything to what `nodes` say; a node that is not among them is gone."""
        now = {facts.name: facts for facts in nodes}
        for name in self._seen.keys() - now.keys():
            self._forget(name)
        for name, facts in now.items():
            self._made[definitions.NODE_READY].labels(name).set(int(facts.ready))
            self._made[definitions.NODE_IN_FLIGHT].labels(name).set(facts.in_flight)
            self._made[definitions.NODE_DRAINING].labels(name).set(int(facts.draining))
            for state in STATES:
                self._made[definitions.NODE_BREAKER].labels(name, state).set(int(facts.breaker == state))
            self._count(facts, self._seen.get(name))
        self._seen = now

    def set_models(self, ready: Mapping[str, bool]) -> None:
        """As `tell`, of models."""
        gauge = self._made[definitions.MODEL_READY]
        for name in self._models - ready.keys():
            gauge.labels(name).set(0)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(name)
        for name, is_ready in ready.items():
            gauge.labels(name).set(int(is_ready))
        self._models = set(ready)

    def _count(self, facts: NodeFacts, before: NodeFacts | None) -> None:
        known = {} if before is None else before.opened
        for cause, times in facts.opened.items():
            new = times - known.get(cause, 0)
            if new > 0:
                self._made[definitions.NODE_TAKEN_OUT].labels(facts.name, cause).inc(new)

    def _forget(self, name: str) -> None:
        """A node that left the fleet is not down: it is not there. (Files of several processes can only say 0.)"""
        alone = "PROMETHEUS_MULTIPROC_DIR" not in os.environ
        for gauge in (definitions.NODE_READY, definitions.NODE_IN_FLIGHT, definitions.NODE_DRAINING):
            self._made[gauge].labels(name).set(0)
            if alone:
                self._made[gauge].remove(name)
        for state in STATES:
            self._made[definitions.NODE_BREAKER].labels(name, state).set(0)
            if alone:
                self._made[definitions.NODE_BREAKER].remove(name, state)
