"""The metrics of queues, set at every scrape and every few seconds."""

import os
from collections.abc import Iterable
from math import inf

from prometheus_client import Gauge

from gateway.core.admission.queue_facts import QueueFacts
from gateway.telemetry import definitions
from gateway.telemetry.label_names import LabelNames

UNKNOWN_WAIT = -1.0
"""Told where places have not become free yet, so that no rate is known."""


class QueueGauges:
    """Labels that are not there any more are removed: tenants that do not wait have no counter."""

    def __init__(self, made: definitions.MetricSet, models: LabelNames, tenants: LabelNames) -> None:
        self._made = made
        self._models = models
        self._tenants = tenants
        self._set: dict[definitions.MetricDefinition[Gauge], set[tuple[str, ...]]] = {}

    def set(self, queues: Iterable[QueueFacts]) -> None:
        waiting: dict[tuple[str, ...], float] = {}
        waits: dict[tuple[str, ...], float] = {}
        counters: dict[tuple[str, ...], float] = {}
        for facts in queues:
            model = self._models.label(facts.model)
            wait = UNKNOWN_WAIT if facts.expected_wait == inf else facts.expected_wait
            waits[(model,)] = max(wait, waits.get((model,), wait))
            for name, count in facts.waiting.items():
                waiting[model, name] = waiting.get((model, name), 0.0) + count
            for (name, tenant), value in facts.counters.items():
                who = model, name, self._tenants.label(tenant)
                counters[who] = max(value, counters.get(who, value))
        self._replace(definitions.WAITING, waiting)
        self._replace(definitions.EXPECTED_WAIT, waits)
        self._replace(definitions.TURN_COUNTER, counters)

    def _replace(self, definition: definitions.MetricDefinition[Gauge], values: dict[tuple[str, ...], float]) -> None:
        gauge = self._made[definition]
        for labels in self._set.get(definition, set()) - values.keys():
            gauge.labels(*labels).set(0)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(*labels)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        self._set[definition] = set(values)
