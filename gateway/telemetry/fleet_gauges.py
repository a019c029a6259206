"""What Prometheus reads about nodes: told as facts, set with every scrape and every few seconds."""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.core.events import NodeFacts

STATES = ("closed", "probation", "open")


class FleetGauges:
    """The metrics of all nodes, as this process sees them. Processes are added up: a gauge says how many see it so."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seen: dict[str, NodeFacts] = {}

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(name, says, ("node", *labels), registry=registry, multiprocess_mode="livesum")

        self._ready = gauge("fleetgate_node_ready", "1 where the node gets requests.")
        self._in_flight = gauge("fleetgate_node_in_flight", "Requests that this gateway has on the node.")
        self._breaker = gauge("fleetgate_node_breaker", "1 for the state of the node's breaker.", "state")
        self._draining = gauge("fleetgate_node_draining", "1 where the node is drained: it gets nothing new.")
        self._taken_out = Counter(
            "fleetgate_node_taken_out_total",
            "How often a node was taken out: it refused connections, failed requests, fell silent or missed probes.",
            ("node", "cause"),
            registry=registry,
        )

    def tell(self, nodes: Iterable[NodeFacts]) -> None:
        """Set everything to what `nodes` say; a node that is not among them is gone."""
        now = {facts.name: facts for facts in nodes}
        for name in self._seen.keys() - now.keys():
            self._forget(name)
        for name, facts in now.items():
            self._ready.labels(name).set(int(facts.ready))
            self._in_flight.labels(name).set(facts.in_flight)
            self._draining.labels(name).set(int(facts.draining))
            for state in STATES:
                self._breaker.labels(name, state).set(int(facts.breaker == state))
            self._count(facts, self._seen.get(name))
        self._seen = now

    def _count(self, facts: NodeFacts, before: NodeFacts | None) -> None:
        known = {} if before is None else before.opened
        for cause, times in facts.opened.items():
            new = times - known.get(cause, 0)
            if new > 0:
                self._taken_out.labels(facts.name, cause).inc(new)

    def _forget(self, name: str) -> None:
        """A node that left the fleet is not down: it is not there. (Files of several processes can only say 0.)"""
        alone = "PROMETHEUS_MULTIPROC_DIR" not in os.environ
        for gauge in (self._ready, self._in_flight, self._draining):
            gauge.labels(name).set(0)
            if alone:
                gauge.remove(name)
        for state in STATES:
            self._breaker.labels(name, state).set(0)
            if alone:
                self._breaker.remove(name, state)
