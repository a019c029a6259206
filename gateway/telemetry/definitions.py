"""Every metric of the gateway: its name, its help text, its labels, and how worker processes are added up.

docs/telemetry.md lists the same ones; a test holds the two together.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
"""The upper bounds of the histograms' buckets, from a cached answer to a long thinking one."""

AddedUp = Literal["livesum", "livemax"]
MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


@dataclass(frozen=True, slots=True, eq=False)
class MetricDefinition(Generic[MetricT]):
    """One row. `make(registry)` makes the metric."""

    name: str
    labels: tuple[str, ...]
    make: Callable[[CollectorRegistry], MetricT]


class BatchHistogram(Histogram):
    """A histogram that takes many values at once, as if each had been observed."""

    def observe_all(self, values: Iterable[float]) -> None:
        counts = [0] * len(self._upper_bounds)
        total = 0.0
        for value in values:
            counts[bisect_left(self._upper_bounds, value)] += 1
            total += value
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class MetricSet:
    """The metrics of one registry, by their definitions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._made: dict[MetricDefinition[Any], MetricWrapperBase] = {each: each.make(registry) for each in METRICS}

    def __getitem__(self, definition: MetricDefinition[MetricT]) -> MetricT:
        return cast(MetricT, self._made[definition])


def _counter(name: str, says: str, *labels: str) -> MetricDefinition[Counter]:
    return MetricDefinition(name, labels, lambda registry: Counter(name, says, labels, registry=registry))


def _seconds(name: str, says: str, *labels: str) -> MetricDefinition[BatchHistogram]:
    return MetricDefinition(
        name, labels, lambda registry: BatchHistogram(name, says, labels, buckets=SECONDS, registry=registry)
    )


def _gauge(name: str, says: str, *labels: str, processes: AddedUp = "livesum") -> MetricDefinition[Gauge]:
    return MetricDefinition(
        name, labels, lambda registry: Gauge(name, says, labels, registry=registry, multiprocess_mode=processes)
    )


METRICS: tuple[MetricDefinition[Any], ...] = (
    REQUESTS := _counter(
        "fleetgate_requests_total",
        "Requests by how they ended: HTTP status seen by the client, and ok, an error code or client_gone.",
        *("dialect", "model", "tenant", "status", "ending"),
    ),
    DURATION := _seconds(
        "fleetgate_request_duration_seconds",
        "From the request's head to the last byte of its answer.",
        *("dialect", "model"),
    ),
    TTFT := _seconds(
        "fleetgate_ttft_seconds",
        "From the request's head to the first byte of the answer; on plain answers that is the whole answer.",
        *("dialect", "model"),
    ),
    TOKENS := _counter(
        "fleetgate_tokens_total",
        "Tokens as they were charged; kind is input, cached (part of input), output, reasoning (part of output) "
        "or wasted (nobody got it: thinking beyond its budget, and by an estimate what failed attempts made; in no "
        "other kind).",
        *("model", "tenant", "kind"),
    ),
    ATTEMPTS := _counter(
        "fleetgate_attempts_total",
        "Tries on nodes, first ones included; passed is one whose answer the client got, whatever it was.",
        *("node", "outcome"),
    ),
    RETRIES_REFUSED := _counter(
        "fleetgate_retries_refused_total",
        "Requests that would have been tried on another node but for the model's retry budget.",
        "model",
    ),
    CUTS := _counter(
        "fleetgate_thinking_cuts_total",
        "Answers whose thinking the gateway ended at its budget, since the node did not.",
        *("model", "node"),
    ),
    OVERRUNS := _counter(
        "fleetgate_budget_overruns_total",
        "Answers of nodes that had proven to hold budgets, and thought far beyond one.",
        "node",
    ),
    ROUTES := _counter(
        "fleetgate_routes_total",
        "Requests by why their node was chosen: home (it has the conversation), moved (another has it), new.",
        *("model", "reason"),
    ),
    PROMPTS := _counter(
        "fleetgate_prompts_counted_total",
        "Prompts of models with a tokenizer: exact, estimated (they could not be counted), or wrong (the node had "
        "another number).",
        "model",
        "how",
    ),
    EXPECTED_CACHED := _counter(
        "fleetgate_expected_cached_tokens_total",
        "Prompt tokens that were expected in the chosen node's cache; fleetgate_tokens_total has those that were.",
        "model",
    ),
    OPEN := _gauge(
        "fleetgate_open_requests",
        "Requests that are being answered by a node now.",
    ),
    MEMORY_HELD := _gauge(
        "fleetgate_memory_held_bytes",
        "What is held of request bodies and of answers now, by an estimate of what they become when they are read.",
    ),
    MEMORY_LIMIT := _gauge(
        "fleetgate_memory_limit_bytes",
        "What may be held of them (requests.memory); beyond it requests are refused with 503.",
    ),
    MODEL_READY := _gauge(
        "fleetgate_model_ready",
        "1 where a node can serve the model; with several workers, how many of them see it so.",
        "model",
    ),
    NODE_READY := _gauge(
        "fleetgate_node_ready",
        "1 where the node gets requests; with several workers, how many of them see it so.",
        "node",
    ),
    NODE_IN_FLIGHT := _gauge(
        "fleetgate_node_in_flight",
        "Requests that this gateway has on the node.",
        "node",
    ),
    NODE_DRAINING := _gauge(
        "fleetgate_node_draining",
        "1 where the node is drained: it gets nothing new.",
        "node",
    ),
    NODE_BREAKER := _gauge(
        "fleetgate_node_breaker",
        "1 for the state of the node's breaker: closed, probation or open.",
        *("node", "state"),
    ),
    NODE_TAKEN_OUT := _counter(
        "fleetgate_node_taken_out_total",
        "How often a node was taken out: it refused connections, failed requests, fell silent or missed probes.",
        *("node", "cause"),
    ),
    REDIS_UP := _gauge(
        "fleetgate_redis_up",
        "1 where Redis answers and takes what is written; with several workers, how many of them see it so.",
    ),
    REDIS_OUTAGES := _gauge(
        "fleetgate_redis_outages",
        "Times that Redis was lost since the start.",
    ),
    REDIS_REFUSED := _counter(
        "fleetgate_redis_refused_total",
        "Calls that Redis answered with an error of their own: a right that its user lacks, a key of another type.",
    ),
    REDIS_REFUSING := _gauge(
        "fleetgate_redis_refusing",
        "Kinds of calls that Redis refuses now; the log and fleetgate status say which, and what to do.",
    ),
    LIVE_GATEWAYS := _gauge(
        "fleetgate_live_gateways",
        "Gateway processes that live, as Redis last said.",
        processes="livemax",
    ),
    RESERVATIONS := _gauge(
        "fleetgate_reservations",
        "Requests that hold limits now.",
    ),
    SETTLEMENTS_WAITING := _gauge(
        "fleetgate_settlements_waiting",
        "Requests whose use of limits waits to be settled until Redis is back.",
    ),
    SETTLEMENTS_DROPPED := _gauge(
        "fleetgate_settlements_dropped",
        "Requests whose use of limits was given up since the start.",
    ),
    RECORDS_WAITING := _gauge(
        "fleetgate_usage_records_waiting",
        "Requests that are not in the usage ledger yet.",
    ),
    RECORDS_DROPPED := _counter(
        "fleetgate_usage_records_dropped_total",
        "Usage records that the ledger could not keep; the sums have them.",
    ),
    LOG_FAILURES := _counter(
        "fleetgate_log_writes_failed_total",
        "Writes to the log that failed, each of one line or of some request lines.",
    ),
    SHORTAGES := _counter(
        "fleetgate_shortages_total",
        "Times that this machine had no connection to give, by what it was short of: EMFILE is open files.",
        "cause",
    ),
    RELOADS := _counter(
        "fleetgate_config_reloads_total",
        "Reloads of the configuration; result is ok or refused.",
        "result",
    ),
)
