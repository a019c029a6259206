"""Every metric of the gateway: its name, its help text, its labels, and how worker processes are added up.

docs/telemetry.md lists the same ones; a test holds the two together.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
"""The upper bounds of the histograms' buckets, from a cached answer to a long thinking one."""

TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
"""The same between two tokens."""

AddedUp = Literal["livesum", "livemax", "livemin"]
MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


@dataclass(frozen=True, slots=True, eq=False)
class MetricDefinition(Generic[MetricT]):
    """One row. `make(registry)` makes the metric."""

    name: str
    labels: tuple[str, ...]
    make: Callable[[CollectorRegistry], MetricT]


class BatchHistogram(Histogram):
    """A histogram that takes many values at once, as if each had been observed.

    `exemplars`: those of the values that have a trace, with its id; each bucket shows its last one. With several worker
    processes prometheus-client drops them: its files have no place for exemplars.
    """

    def observe_all(self, values: Iterable[float], exemplars: Iterable[tuple[float, str]] = ()) -> None:
        counts = [0] * len(self._upper_bounds)
        total = 0.0
        for value in values:
            counts[bisect_left(self._upper_bounds, value)] += 1
            total += value
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        for value, trace in exemplars:
            bucket = self._buckets[bisect_left(self._upper_bounds, value)]
            bucket.set_exemplar(Exemplar({"trace_id": trace}, value, time.time()))


Series = Iterable[tuple[tuple[str, ...], float]]
"""The labels and the value of each series of a metric."""


class ReadGauge(Gauge):
    """A gauge whose series are read from `read` for each page, where that is set, and never kept."""

    read: Callable[[], Series] | None = None

    def collect(self) -> Iterable[Metric]:
        return super().collect() if self.read is None else [_page(self, self._labelnames, self.read())]


class ReadCounter(Counter):
    """The same for a counter."""

    read: Callable[[], Series] | None = None

    def collect(self) -> Iterable[Metric]:
        return super().collect() if self.read is None else [_page(self, self._labelnames, self.read())]


def _page(made: MetricWrapperBase, names: Sequence[str], series: Series) -> Metric:
    """`names`: of the labels."""
    [metric] = made.describe()
    sample = f"{metric.name}_total" if metric.type == "counter" else metric.name
    for labels, value in series:
        metric.add_sample(sample, dict(zip(names, labels, strict=True)), value)
    return metric


class MetricSet:
    """The metrics of one registry, by their definitions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._made: dict[MetricDefinition[Any], MetricWrapperBase] = {each: each.make(registry) for each in METRICS}

    def __getitem__(self, definition: MetricDefinition[MetricT]) -> MetricT:
        return cast(MetricT, self._made[definition])


def _counter(name: str, says: str, *labels: str) -> MetricDefinition[Counter]:
    return MetricDefinition(name, labels, lambda registry: Counter(name, says, labels, registry=registry))


def _seconds(
    name: str, says: str, *labels: str, buckets: tuple[float, ...] = SECONDS
) -> MetricDefinition[BatchHistogram]:
    return MetricDefinition(
        name, labels, lambda registry: BatchHistogram(name, says, labels, buckets=buckets, registry=registry)
    )


def _gauge(name: str, says: str, *labels: str, processes: AddedUp = "livesum") -> MetricDefinition[Gauge]:
    return MetricDefinition(
        name, labels, lambda registry: Gauge(name, says, labels, registry=registry, multiprocess_mode=processes)
    )


def _node_gauge(name: str, says: str, *labels: str, processes: AddedUp = "livesum") -> MetricDefinition[ReadGauge]:
    return MetricDefinition(
        name,
        ("node", *labels),
        lambda registry: ReadGauge(name, says, ("node", *labels), registry=registry, multiprocess_mode=processes),
    )


def _node_counter(name: str, says: str, *labels: str) -> MetricDefinition[ReadCounter]:
    return MetricDefinition(
        name, ("node", *labels), lambda registry: ReadCounter(name, says, ("node", *labels), registry=registry)
    )


METRICS: tuple[MetricDefinition[Any], ...] = (
    REQUESTS := _counter(
        "fleetgate_requests_total",
        "Requests by HTTP status (499: the client left before) and by ending: ok, an error code or client_gone.",
        *("dialect", "model", "tenant", "status", "ending"),
    ),
    DURATION := _seconds(
        "fleetgate_request_duration_seconds",
        "From the request's head to the last byte of its answer.",
        *("dialect", "model", "stream"),
    ),
    TTFT := _seconds(
        "fleetgate_ttft_seconds",
        "From the request's head to the first byte of the answer; on plain answers that is the whole answer.",
        *("dialect", "model", "stream"),
    ),
    TOKEN_GAP := _seconds(
        "fleetgate_inter_token_seconds",
        "Mean time between two tokens of a streamed answer, behind its first byte.",
        "model",
        buckets=TOKEN_SECONDS,
    ),
    TOKENS := _counter(
        "fleetgate_tokens_total",
        "Tokens as charged; kind is input, cached (part of input), output, reasoning (part of output) "
        "or wasted (generated and not delivered: thinking beyond its budget, failed attempts by an estimate; in no "
        "other kind).",
        *("model", "tenant", "kind"),
    ),
    COST := _counter(
        "fleetgate_cost_usd_total",
        "What the tokens cost, in US dollars, of models that have a price.",
        *("model", "tenant"),
    ),
    ATTEMPTS := _counter(
        "fleetgate_attempts_total",
        "Attempts on nodes, first ones included; passed means that the client got the answer.",
        *("node", "outcome"),
    ),
    RETRIES_REFUSED := _counter(
        "fleetgate_retries_refused_total",
        "Retries on another node that the model's retry budget did not allow.",
        "model",
    ),
    RESUMES := _counter(
        "fleetgate_resumes_total",
        "Answers that broke off, by the attempt's outcome; outcome is resumed (on another node), broken (again, before "
        "a token came) or refused (no other node went on).",
        *("model", "cause", "outcome"),
    ),
    RESUME_PAUSE := _seconds(
        "fleetgate_resume_pause_seconds",
        "From the break to the next token of a resumed answer.",
        "model",
    ),
    RECOMPUTED := _counter(
        "fleetgate_recomputed_tokens_total",
        "Tokens that nodes computed again to resume answers, of prompts and answers so far; charged to nobody.",
        "model",
    ),
    CUTS := _counter(
        "fleetgate_thinking_cuts_total",
        "Answers whose thinking the gateway cut at its budget because the node did not.",
        *("model", "node"),
    ),
    LOOPS := _counter(
        "fleetgate_loops_ended_total",
        "Loops of the same few tokens that were ended; part is reasoning (the answer followed) or answer (it ended).",
        *("model", "part"),
    ),
    OVERRUNS := _counter(
        "fleetgate_budget_overruns_total",
        "Answers far over their budget, from nodes that had passed the canary.",
        "node",
    ),
    ENDED_EARLY := _counter(
        "fleetgate_thinking_ended_early_total",
        "Answers whose thinking pressure ended before its budget.",
        "model",
    ),
    FACTOR := _gauge(
        "fleetgate_thinking_factor",
        "The factor of thinking budgets under pressure, 1 for none; of several workers' the smallest. No series while "
        "pressure is off.",
        "model",
        processes="livemin",
    ),
    ROUTES := _counter(
        "fleetgate_routes_total",
        "Requests by the reason for their node: home (it has the conversation), moved (another has it), new.",
        *("model", "reason"),
    ),
    PROMPTS := _counter(
        "fleetgate_prompts_counted_total",
        "Prompts of models with a tokenizer: exact, estimated (could not be counted), or wrong (the node reported "
        "another number).",
        "model",
        "how",
    ),
    EXPECTED_CACHED := _counter(
        "fleetgate_expected_cached_tokens_total",
        "Prompt tokens expected in the chosen node's cache; fleetgate_tokens_total has the actual ones.",
        "model",
    ),
    KEPT := _counter(
        "fleetgate_kept_responses_total",
        "Responses that the gateway was to keep; outcome is stored, or why not: too_large, no_room, gone, "
        "redis_unavailable, failed.",
        *("tenant", "outcome"),
    ),
    EVICTED := _counter(
        "fleetgate_evicted_conversations_total",
        "Conversations of a tenant that were dropped to make room for newer ones (responses.tenant_bytes).",
        "tenant",
    ),
    QUEUE_WAIT := _seconds(
        "fleetgate_queue_wait_seconds",
        "Time that requests waited for a place on a node; those that got one at once are not counted.",
        *("model", "service_class"),
    ),
    QUEUED := _counter(
        "fleetgate_queued_requests_total",
        "Requests that waited for a place on a node; ending is served, or an error code or client_gone.",
        *("model", "tenant", "service_class", "ending"),
    ),
    QUEUED_SECONDS := _counter(
        "fleetgate_queued_seconds_total",
        "Time that the requests of a tenant waited for a place, in all.",
        *("model", "tenant", "service_class"),
    ),
    WAITING := _gauge(
        "fleetgate_waiting_requests",
        "Requests that wait for a place on a node now.",
        *("model", "service_class"),
    ),
    EXPECTED_WAIT := _gauge(
        "fleetgate_expected_wait_seconds",
        "How long a request that came now would wait for a place, by how long places are held; 0 while none "
        "waits, -1 where too little is known.",
        "model",
        processes="livemax",
    ),
    TURN_COUNTER := _gauge(
        "fleetgate_turn_counter",
        "The virtual counter of a tenant that waits: tokens served, at their cost, over its share.",
        *("model", "service_class", "tenant"),
        processes="livemax",
    ),
    OPEN := _gauge(
        "fleetgate_open_requests",
        "Requests that a node is answering now.",
    ),
    MEMORY_HELD := _gauge(
        "fleetgate_memory_held_bytes",
        "Memory held by request bodies and answers, estimated as parsed.",
    ),
    MEMORY_LIMIT := _gauge(
        "fleetgate_memory_limit_bytes",
        "The most that may be held (requests.memory); beyond it requests are refused with 503.",
    ),
    MODEL_READY := _gauge(
        "fleetgate_model_ready",
        "1 where a node can serve the model; with several workers, how many of them see it so.",
        "model",
    ),
    MODEL_FAILING := _gauge(
        "fleetgate_model_failing",
        "1 where all requests of a dialect fail on a model whose nodes pass for ready; with several workers, how many "
        "of them see it so.",
        "model",
        "dialect",
    ),
    NODE_READY := _node_gauge(
        "fleetgate_node_ready",
        "1 where the node gets requests; with several workers, how many of them see it so.",
    ),
    NODE_IN_FLIGHT := _node_gauge(
        "fleetgate_node_in_flight",
        "Requests that this gateway has on the node.",
    ),
    NODE_MAX_CONCURRENCY := _node_gauge(
        "fleetgate_node_max_concurrency",
        "Requests at once that all gateways may have on the node, as configured or found; 0 where nothing bounds them.",
        processes="livemax",
    ),
    NODE_DRAINING := _node_gauge(
        "fleetgate_node_draining",
        "1 where the node is drained: it gets nothing new.",
    ),
    NODE_BREAKER := _node_gauge(
        "fleetgate_node_breaker",
        "1 for the state of the node's breaker: closed, probation or open.",
        "state",
    ),
    NODE_TAKEN_OUT := _node_counter(
        "fleetgate_node_taken_out_total",
        "Times that a node was taken out of service: it refused connections, failed requests, hung or missed probes.",
        "cause",
    ),
    NODE_KV_USE := _node_gauge(
        "fleetgate_node_kv_cache_used_ratio",
        "The part of the node's KV cache that is in use, 0 to 1, as the node's metrics tell it.",
        processes="livemax",
    ),
    NODE_WAITING := _node_gauge(
        "fleetgate_node_waiting_requests",
        "Requests in the node's own queue, of all gateways, as the node's metrics tell it.",
        processes="livemax",
    ),
    NODE_HOLDS_BUDGETS := _node_gauge(
        "fleetgate_node_holds_budgets",
        "1 where the node holds thinking budgets itself, 0 where the gateway has to; of several workers' the smallest.",
        processes="livemin",
    ),
    CANARIES := _node_counter(
        "fleetgate_canaries_total",
        "Runs of a node's canary; result is passed, weak (the gateway has to hold its budgets) or failed (no answer).",
        "result",
    ),
    REDIS_UP := _gauge(
        "fleetgate_redis_up",
        "1 while Redis answers and accepts writes; with several workers, how many of them see it so.",
    ),
    REDIS_OUTAGES := _counter(
        "fleetgate_redis_outages_total",
        "Times that Redis was lost since the start.",
    ),
    REDIS_REFUSED := _counter(
        "fleetgate_redis_refused_total",
        "Calls that Redis refused: its user lacks a right, a key has another type.",
    ),
    REDIS_REFUSING := _gauge(
        "fleetgate_redis_refusing",
        "Kinds of calls that Redis refuses now; the log and fleetgate status have the remedy.",
    ),
    LIVE_GATEWAYS := _gauge(
        "fleetgate_live_gateways",
        "Live gateway processes, as last read from Redis.",
        processes="livemax",
    ),
    RESERVATIONS := _gauge(
        "fleetgate_reservations",
        "Requests that hold limits now.",
    ),
    LIMIT_LEFT := _gauge(
        "fleetgate_limit_left_ratio",
        "What was left of a tenant's limit at its last request of the last minute, 0 to 1.",
        *("tenant", "limit"),
        processes="livemin",
    ),
    FAILED_OVER := _counter(
        "fleetgate_limits_failed_over_total",
        "Requests whose limits were decided without Redis; how is limits.on_failure: local, open or closed.",
        "how",
    ),
    SETTLEMENTS_WAITING := _gauge(
        "fleetgate_settlements_waiting",
        "Requests whose settlement waits for Redis.",
    ),
    SETTLEMENTS_DROPPED := _counter(
        "fleetgate_settlements_dropped_total",
        "Requests whose settlement was given up since the start.",
    ),
    RECORDS_WAITING := _gauge(
        "fleetgate_usage_records_waiting",
        "Requests not yet in the usage ledger.",
    ),
    RECORDS_DROPPED := _counter(
        "fleetgate_usage_records_dropped_total",
        "Usage records that the ledger dropped; the sums have them.",
    ),
    LOG_FAILURES := _counter(
        "fleetgate_log_writes_failed_total",
        "Writes to the log that failed, each of one line or of some request lines.",
    ),
    LOG_DISK_FREE := _gauge(
        "fleetgate_log_disk_free_ratio",
        "The part of the disk under the log that is free, 0 to 1. No series where standard error is no file.",
        "file",
        processes="livemin",
    ),
    SPANS := _counter(
        "fleetgate_spans_total",
        "Spans of recorded requests; result is exported, failed (the collector did not take them) or dropped (too many "
        "waited).",
        "result",
    ),
    SHORTAGES := _counter(
        "fleetgate_shortages_total",
        "Connections that this machine could not open, by what ran out: EMFILE is open files.",
        "cause",
    ),
    BUILD_INFO := _gauge(
        "fleetgate_build_info",
        "1 for the gateway's version, the version of Python, and its build: plain or compiled.",
        *("version", "python", "build"),
        processes="livemax",
    ),
    CPU_SECONDS := _counter(
        "fleetgate_process_cpu_seconds_total",
        "CPU time of all worker processes.",
    ),
    RESIDENT_BYTES := _gauge(
        "fleetgate_process_resident_bytes",
        "Memory of all worker processes.",
    ),
    OPEN_FILES := _gauge(
        "fleetgate_process_open_files",
        "Open files of all worker processes, sockets among them.",
    ),
    TASKS := _gauge(
        "fleetgate_process_tasks",
        "Tasks of all worker processes' event loops.",
    ),
    RELOADS := _counter(
        "fleetgate_config_reloads_total",
        "Reloads of the configuration; result is ok or refused.",
        "result",
    ),
)
