"""The metrics that Prometheus reads, as `definitions` lists them. No other module names a metric."""

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.fleet.node_facts import NodeFacts
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.cost import NANO
from gateway.telemetry import definitions
from gateway.telemetry.batches import NONE, add_up, add_up_resumes, add_up_routes
from gateway.telemetry.label_names import LabelNames
from gateway.telemetry.model_gauges import ModelGauges
from gateway.telemetry.node_gauges import NodeGauges
from gateway.telemetry.process_facts import ProcessFacts
from gateway.telemetry.queue_gauges import QueueGauges
from gateway.telemetry.recent import RecentBreaks, RecentTtft

TEXT = "text/plain; version=0.0.4"
"""The format for whoever asks for nothing else."""

MAX_UNCOUNTED = 10_000
"""Requests that may wait to be counted."""


_BEGIN_AT_ZERO = (
    (definitions.RELOADS, ("ok", "refused")),
    (definitions.FAILED_OVER, ("local", "open", "closed")),
    (definitions.SHORTAGES, ("EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM")),
)
"""Counters that alerts watch: `increase` does not see the first step of a series that begins with it."""


class LabelBounds(NamedTuple):
    """How many names have series of their own."""

    tenants: int = 200
    models: int = 100
    nodes: int = 1000


USUAL_BOUNDS = LabelBounds()


class Metrics:
    """The metrics of this process, and the page that shows those of all processes of this gateway.

    With several worker processes prometheus-client keeps the values in files below PROMETHEUS_MULTIPROC_DIR
    (set by `server` before anything is imported); whichever process is asked adds them up.
    """

    def __init__(self, bounds: LabelBounds = USUAL_BOUNDS, shared: Path | None = None) -> None:
        """`shared`: the directory of this gateway's processes, None for one process."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series for nothing
        self._registry = CollectorRegistry()
        self._made = definitions.MetricSet(self._registry)
        self._tenants = LabelNames(bounds.tenants, shared and shared / "tenant_labels")
        self._models = LabelNames(bounds.models, shared and shared / "model_labels")
        self._nodes = LabelNames(bounds.nodes, shared and shared / "node_labels")
        self._node_gauges = NodeGauges(self._made, self._nodes)
        self._model_gauges = ModelGauges(self._made, self._models)
        self._queues = QueueGauges(self._made, self._models, self._tenants)
        self._ended: list[RequestStats] = []
        self._cpu_counted = 0.0
        self._limits: set[tuple[str, str]] = set()
        self._totals: dict[tuple[str, ...], int] = {}
        for counter, labels in _BEGIN_AT_ZERO:
            for label in labels:
                self._made[counter].labels(label)
        self.recent = RecentTtft()
        self.breaks = RecentBreaks()
        self.readers: list[Callable[[Sequence[RequestStats]], None]] = []
        """Get the requests that are counted."""

    def request_ended(self, event: RequestStats) -> None:
        """Count one request; cheaply: `flush` adds it to the metrics."""
        self._ended.append(event)
        if len(self._ended) >= MAX_UNCOUNTED:
            self.flush()

    def flush(self) -> None:
        """Bring the metrics up to date with the requests that ended since. Called for every page and regularly.

        Model and tenant are names that were checked before, and bounded here: labels cannot grow at will.
        """
        ended, self._ended = self._ended, []
        self.recent.note(ended, time.monotonic())
        self.breaks.note(ended, time.monotonic())
        for reader in self.readers:
            reader(ended)
        for kind, sums in add_up(ended).items():
            dialect, model, tenant = kind.dialect, self._models.label(kind.model), self._tenants.label(kind.tenant)
            self._made[definitions.REQUESTS].labels(dialect, model, tenant, kind.status, kind.ending).inc(sums.requests)
            stream = "true" if kind.stream else "false"
            durations = [(duration, trace) for duration, _, trace in sums.traced]
            ttfts = [(ttft, trace) for _, ttft, trace in sums.traced if ttft is not None]
            self._made[definitions.DURATION].labels(dialect, model, stream).observe_all(sums.durations, durations)
            self._made[definitions.TTFT].labels(dialect, model, stream).observe_all(sums.ttfts, ttfts)
            if sums.gaps:
                self._made[definitions.TOKEN_GAP].labels(model).observe_all(sums.gaps)
            if sums.passed:
                self._made[definitions.ATTEMPTS].labels(self._nodes.label(kind.node), "passed").inc(sums.passed)
            for name in ("input", "output", "cached", "reasoning"):
                if tokens := getattr(sums, name):
                    self._made[definitions.TOKENS].labels(model, tenant, name).inc(tokens)
            if sums.cost:
                self._made[definitions.COST].labels(model, tenant).inc(sums.cost / NANO)
        for event in ended:
            model = self._model(event)
            if event.failures or event.retry_refused or event.wasted or event.overran or event.lost:
                self._count_failures(event)
            for note in event.loops:
                self._made[definitions.LOOPS].labels(model, note.part).inc()
            if event.counted is not None:
                self._count_prompt(event)
            if event.thinking_ended_early:
                self._made[definitions.ENDED_EARLY].labels(model).inc()
            if event.stored is not None:
                self._count_kept(event, event.stored)
        for (name, reason), (requests, expected) in add_up_routes(ended).items():
            model = self._models.label(name)
            self._made[definitions.ROUTES].labels(model, reason).inc(requests)
            self._made[definitions.EXPECTED_CACHED].labels(model).inc(expected)
        self._count_resumes(ended)
        for event in ended:
            if event.queued is not None:
                self._count_queued(event, event.queued)

    def _model(self, event: RequestStats) -> str:
        return self._models.label(event.model or NONE)

    def _tenant(self, event: RequestStats) -> str:
        return self._tenants.label(event.tenant or NONE)

    def _count_kept(self, event: RequestStats, outcome: str) -> None:
        tenant = self._tenant(event)
        self._made[definitions.KEPT].labels(tenant, outcome).inc()
        if event.evicted:
            self._made[definitions.EVICTED].labels(tenant).inc(event.evicted)

    def _count_queued(self, event: RequestStats, seconds: float) -> None:
        model, tenant, name = self._model(event), self._tenant(event), event.service_class or NONE
        self._made[definitions.QUEUE_WAIT].labels(model, name).observe(seconds)
        ending = "served" if event.attempts else event.ending
        self._made[definitions.QUEUED].labels(model, tenant, name, ending).inc()
        self._made[definitions.QUEUED_SECONDS].labels(model, tenant, name).inc(seconds)

    def _count_failures(self, event: RequestStats) -> None:
        model, node = self._model(event), self._nodes.label(event.node or NONE)
        for failed, outcome in event.failures:
            self._made[definitions.ATTEMPTS].labels(self._nodes.label(failed), outcome).inc()
        if event.retry_refused:
            self._made[definitions.RETRIES_REFUSED].labels(model).inc()
        if event.wasted or event.lost:
            nobodys = event.wasted + event.lost
            self._made[definitions.TOKENS].labels(model, self._tenant(event), "wasted").inc(nobodys)
        if event.wasted and not event.thinking_ended_early:
            self._made[definitions.CUTS].labels(model, node).inc()
        if event.overran:
            self._made[definitions.OVERRUNS].labels(node).inc()

    def _count_resumes(self, ended: Iterable[RequestStats]) -> None:
        for name, sums in add_up_resumes(ended).items():
            model = self._models.label(name)
            for (cause, outcome), resumes in sums.resumes.items():
                self._made[definitions.RESUMES].labels(model, cause, outcome).inc(resumes)
            if sums.pauses:
                self._made[definitions.RESUME_PAUSE].labels(model).observe_all(sums.pauses)
            if sums.recomputed:
                self._made[definitions.RECOMPUTED].labels(model).inc(sums.recomputed)

    def _count_prompt(self, event: RequestStats) -> None:
        how = "exact" if event.counted else "estimated"
        if event.counted and event.usage is not None and event.usage.input not in (0, event.counted):
            how = "wrong"
        self._made[definitions.PROMPTS].labels(self._model(event), how).inc()

    def reloaded(self, ok: bool) -> None:
        self._made[definitions.RELOADS].labels("ok" if ok else "refused").inc()

    def ledger_state(self, waiting: int, dropped: int) -> None:
        """Records that wait for Redis now, and records dropped since the start."""
        self._made[definitions.RECORDS_WAITING].set(waiting)
        self._count_up(definitions.RECORDS_DROPPED, dropped)

    def process_state(self, process: ProcessFacts) -> None:
        """What this process is, and what it uses."""
        self._made[definitions.BUILD_INFO].labels(process.version, process.python, process.build).set(1)
        self._made[definitions.RESIDENT_BYTES].set(process.resident_bytes)
        self._made[definitions.OPEN_FILES].set(process.open_files)
        self._made[definitions.TASKS].set(process.tasks)
        cpu = process.cpu_seconds - self._cpu_counted
        if cpu > 0:
            self._made[definitions.CPU_SECONDS].inc(cpu)
            self._cpu_counted = process.cpu_seconds

    def log_state(self, failed: int, disk: tuple[str, float] | None = None) -> None:
        """Writes to the log that failed since the start; the file that it goes to, and the free part of its disk."""
        self._count_up(definitions.LOG_FAILURES, failed)
        if disk is not None:
            self._made[definitions.LOG_DISK_FREE].labels(disk[0]).set(disk[1])

    def traces_state(self, counts: Mapping[str, int]) -> None:
        """Spans by what became of them, since the start."""
        for result, total in counts.items():
            self._count_up(definitions.SPANS, total, result)

    def memory_state(self, held: int, limit: int) -> None:
        """Bytes held of requests and answers, and their limit."""
        self._made[definitions.MEMORY_HELD].set(held)
        self._made[definitions.MEMORY_LIMIT].set(limit)

    def shortages_state(self, counts: Mapping[str, int]) -> None:
        """How often this machine was short of what, since the start."""
        for cause, total in counts.items():
            self._count_up(definitions.SHORTAGES, total, cause)

    def fleet_state(self, open_requests: int, nodes: Iterable[NodeFacts]) -> None:
        """Flush, and set the gauges: requests open now, and the facts of every node."""
        self.flush()
        self._made[definitions.OPEN].set(open_requests)
        now = list(nodes)
        self.recent.keep({facts.name for facts in now})
        self._node_gauges.set(now)

    def queue_state(self, queues: Iterable[QueueFacts]) -> None:
        """What waits now, by model."""
        self._queues.set(queues)

    def models_state(self, ready: Mapping[str, bool]) -> None:
        """Which models a node can serve; a model that is not among them is removed."""
        for name in ready:
            self._made[definitions.RETRIES_REFUSED].labels(
                self._models.label(name)
            )  # it begins at 0, as `_BEGIN_AT_ZERO`
        self._model_gauges.set_models(ready)

    def failing_state(self, failing: Collection[tuple[str, str]]) -> None:
        """The models and dialects in which everything fails; what is not among them is removed."""
        self._model_gauges.set_failing(failing)

    def pressure_state(self, factors: Mapping[str, float]) -> None:
        """The factor of each model's thinking budgets; a model that is not among them is removed."""
        self._model_gauges.set_factors(factors)

    def redis_refusals(self, calls: int, kinds: int) -> None:
        """Calls that Redis refused since the start, and the kinds of calls that it refuses now."""
        self._count_up(definitions.REDIS_REFUSED, calls)
        self._made[definitions.REDIS_REFUSING].set(kinds)

    def redis_state(self, up: bool, outages: int, gateways: int) -> None:
        self._made[definitions.REDIS_UP].set(int(up))
        self._count_up(definitions.REDIS_OUTAGES, outages)
        self._made[definitions.LIVE_GATEWAYS].set(gateways)

    def limits_left(self, shares: Mapping[tuple[str, str], float]) -> None:
        """What is left of each tenant's limits, 0 to 1, by tenant and limit; one that is not among them is removed.
        (With several processes it can only be set to 1.)"""
        gauge = self._made[definitions.LIMIT_LEFT]
        folded: dict[tuple[str, str], float] = {}
        for (tenant, limit), share in shares.items():
            label = self._tenants.label(tenant), limit
            folded[label] = min(share, folded.get(label, 1.0))
        for place in self._limits - folded.keys():
            gauge.labels(*place).set(1)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(*place)
        for place, share in folded.items():
            gauge.labels(*place).set(share)
        self._limits = set(folded)

    def limits_state(self, reservations: int, waiting: int, dropped: int, failovers: Mapping[str, int]) -> None:
        """Reservations that are held now, settlements that wait for Redis or were given up, and requests whose limits
        were decided without Redis since the start."""
        self._made[definitions.RESERVATIONS].set(reservations)
        self._made[definitions.SETTLEMENTS_WAITING].set(waiting)
        self._count_up(definitions.SETTLEMENTS_DROPPED, dropped)
        for how, total in failovers.items():
            self._count_up(definitions.FAILED_OVER, total, how)

    def _count_up(self, counter: definitions.MetricDefinition[Counter], total: int, *labels: str) -> None:
        """Increase a counter to a total that another part keeps."""
        made = self._made[counter]
        (made.labels(*labels) if labels else made).inc(total - self._totals.get((counter.name, *labels), 0))
        self._totals[(counter.name, *labels)] = total

    def known_tenants(self, names: Iterable[str]) -> None:
        """Tenants of the config file, which have series of their own before all others."""
        self._tenants.reserve(names)

    def page(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return self.exposition(TEXT)[0]

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics, which has exemplars, for those that `accept` it, else
        Prometheus' text format."""
        self.flush()
        return self.encode(accept)

    def encode(self, accept: str) -> tuple[bytes, str]:
        """The same without the requests that ended since `flush`. May be called in another thread: prometheus-client
        copies each metric under its lock."""
        encode, content_type = choose_encoder(accept)
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if directory is None:
            return encode(self._registry), content_type
        # Encoders ask a registry for nothing else.
        return encode(cast(CollectorRegistry, _AllProcesses(directory))), content_type


class _AllProcesses:
    """Adds up the files of all processes. Series that were removed (NaN: `NodeGauges`) are left out."""

    def __init__(self, directory: str) -> None:
        self._files = MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for metric in self._files.collect():  # type: ignore[no-untyped-call]
            metric.samples = [sample for sample in metric.samples if not math.isnan(sample.value)]
            yield metric


def bury_dead_processes(directory: Path) -> None:
    """Drop the live gauges of worker processes that are gone, so that a crashed one does not count for ever."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
