"""What Prometheus reads. One place for every metric; the rest of the gateway tells facts and names no metric."""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.core.events import NodeFacts, RequestEnded
from gateway.telemetry.batches import NONE, BatchHistogram, add_up, add_up_routes
from gateway.telemetry.fleet_gauges import FleetGauges
from gateway.telemetry.recent import RecentTtft

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)

MAX_UNSETTLED = 10_000
"""Requests that wait to be counted at the most."""


class Metrics:
    """The metrics of this process, and the page that shows those of all processes of this gateway.

    With several worker processes prometheus-client keeps the values in files below PROMETHEUS_MULTIPROC_DIR
    (set by `server` before anything is imported); whichever process is asked adds them up.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series for nothing
        registry = CollectorRegistry()
        self._registry = registry
        self._ended: list[RequestEnded] = []
        self.recent = RecentTtft()
        self._requests = Counter(
            "fleetgate_requests_total",
            "Requests by how they ended: HTTP status seen by the client, and ok, an error code or client_gone.",
            ("dialect", "model", "tenant", "status", "ending"),
            registry=registry,
        )
        self._duration = BatchHistogram(
            "fleetgate_request_duration_seconds",
            "From the request's head to the last byte of its answer.",
            ("dialect", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._ttft = BatchHistogram(
            "fleetgate_ttft_seconds",
            "From the request's head to the first byte of the answer; on plain answers that is the whole answer.",
            ("dialect", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "fleetgate_tokens_total",
            "Tokens as nodes report them; kind is input, cached (part of input), output, reasoning (part of output) "
            "or wasted (thinking beyond its budget that a node made and nobody got; in no other kind).",
            ("model", "tenant", "kind"),
            registry=registry,
        )
        self._attempts = Counter(
            "fleetgate_attempts_total",
            "Tries on nodes, first ones included; passed is one whose answer the client got, whatever it was.",
            ("node", "outcome"),
            registry=registry,
        )
        self._retries_refused = Counter(
            "fleetgate_retries_refused_total",
            "Requests that would have been tried on another node but for the model's retry budget.",
            ("model",),
            registry=registry,
        )
        self._cuts = Counter(
            "fleetgate_thinking_cuts_total",
            "Answers whose thinking the gateway ended at its budget, since the node did not.",
            ("model", "node"),
            registry=registry,
        )
        self._overruns = Counter(
            "fleetgate_budget_overruns_total",
            "Answers of nodes that had proven to hold budgets, and thought far beyond one.",
            ("node",),
            registry=registry,
        )
        self._routes = Counter(
            "fleetgate_routes_total",
            "Requests by why their node was chosen: home (it has the conversation), moved (another has it), new.",
            ("model", "reason"),
            registry=registry,
        )
        self._expected = Counter(
            "fleetgate_expected_cached_tokens_total",
            "Prompt tokens that were expected in the chosen node's cache; fleetgate_tokens_total has those that were.",
            ("model",),
            registry=registry,
        )
        self._open = Gauge(
            "fleetgate_open_requests",
            "Requests that are being answered by a node now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._fleet = FleetGauges(registry)
        self._redis_up = Gauge(
            "fleetgate_redis_up",
            "1 where Redis answers and takes what is written; with several workers, how many of them see it so.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._redis_outages = Gauge(
            "fleetgate_redis_outages",
            "Times that Redis was lost since the start.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._gateways = Gauge(
            "fleetgate_live_gateways",
            "Gateway processes that live, as Redis last said.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._reservations = Gauge(
            "fleetgate_reservations", "Requests that hold limits now.", registry=registry, multiprocess_mode="livesum"
        )
        self._settlements_waiting = Gauge(
            "fleetgate_settlements_waiting",
            "Requests whose use of limits waits to be settled until Redis is back.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._settlements_dropped = Gauge(
            "fleetgate_settlements_dropped",
            "Requests whose use of limits was given up since the start.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._reloads = Counter(
            "fleetgate_config_reloads_total", "Reloads of the configuration.", ("result",), registry=registry
        )
        self._unwritten = Gauge(
            "fleetgate_usage_records_waiting",
            "Requests that are not in the usage ledger yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._unkept = Counter(
            "fleetgate_usage_records_dropped_total",
            "Usage records that the ledger could not keep; unless Redis refused their batch, the sums have them.",
            registry=registry,
        )
        self._known_unkept = 0

    def request_ended(self, event: RequestEnded) -> None:
        """Count one request; cheaply, since prometheus-client's own counting waits for `settle`."""
        self._ended.append(event)
        if len(self._ended) >= MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Bring the metrics up to date with the requests that ended since. Called for every page and regularly.

        Model and tenant are names that were checked before, so labels cannot grow at will.
        """
        ended, self._ended = self._ended, []
        self.recent.note(ended)
        for kind, sums in add_up(ended).items():
            dialect, model, tenant = kind.dialect, kind.model, kind.tenant
            self._requests.labels(dialect, model, tenant, kind.status, kind.ending).inc(sums.requests)
            self._duration.labels(dialect, model).observe_all(sums.durations)
            self._ttft.labels(dialect, model).observe_all(sums.ttfts)
            if sums.passed:
                self._attempts.labels(kind.node, "passed").inc(sums.passed)
            for name in ("input", "output", "cached", "reasoning"):
                if tokens := getattr(sums, name):
                    self._tokens.labels(model, tenant, name).inc(tokens)
        for event in ended:
            if event.failures or event.retry_refused or event.wasted or event.overran:
                self._count_trouble(event)
        for (model, reason), (requests, expected) in add_up_routes(ended).items():
            self._routes.labels(model, reason).inc(requests)
            self._expected.labels(model).inc(expected)

    def _count_trouble(self, event: RequestEnded) -> None:
        model, node = event.model or NONE, event.node or NONE
        for failure in event.failures:
            self._attempts.labels(*failure).inc()
        if event.retry_refused:
            self._retries_refused.labels(model).inc()
        if event.wasted:
            self._tokens.labels(model, event.tenant or NONE, "wasted").inc(event.wasted)
            self._cuts.labels(model, node).inc()
        if event.overran:
            self._overruns.labels(node).inc()

    def reloaded(self, ok: bool) -> None:
        self._reloads.labels("ok" if ok else "refused").inc()

    def ledger_state(self, waiting: int, dropped: int) -> None:
        """Records that wait for Redis now, and those that were dropped since the start."""
        self._unwritten.set(waiting)
        self._unkept.inc(dropped - self._known_unkept)
        self._known_unkept = dropped

    def fleet_state(self, open_requests: int, nodes: Iterable[NodeFacts]) -> None:
        """Settle, and set the gauges: requests open now, and the facts of every node."""
        self.settle()
        self._open.set(open_requests)
        now = list(nodes)
        self.recent.keep({facts.name for facts in now})
        self._fleet.tell(now)

    def redis_state(self, up: bool, outages: int, gateways: int) -> None:
        self._redis_up.set(int(up))
        self._redis_outages.set(outages)
        self._gateways.set(gateways)

    def limits_state(self, reservations: int, waiting: int, dropped: int) -> None:
        """Reservations that are held now, and settlements that wait for Redis or were given up."""
        self._reservations.set(reservations)
        self._settlements_waiting.set(waiting)
        self._settlements_dropped.set(dropped)

    def page(self) -> bytes:
        """The exposition in Prometheus' text format."""
        self.settle()
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if directory is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def bury_dead_processes(directory: Path) -> None:
    """Drop the live gauges of worker processes that are gone, so that a crashed one does not count for ever."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
