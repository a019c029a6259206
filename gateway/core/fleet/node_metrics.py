"""What a node says of its own load, read out of vLLM's /metrics page (Prometheus' text format)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeMetrics:
    """A node's load at `at` (seconds of the caller's clock). None: the page did not say.

    `running`, `waiting`: requests of all gateways; `short_of_room`: those that wait since the node runs as many as it
    can, and not for something of their own; `kv_use`: 0 to 1; `ended`: requests that were answered since the node
    began; the others are counted in tokens since then (`cache_queries` of its prefix cache, `prompts` of all requests).
    """

    at: float
    running: int | None = None
    waiting: int | None = None
    kv_use: float | None = None
    cache_queries: int | None = None
    cache_hits: int | None = None
    generated: int | None = None
    short_of_room: int | None = None
    ended: int | None = None
    prompts: int | None = None

    @property
    def queued(self) -> int | None:
        """Requests in the node's own queue, as far as the page tells them from others that wait."""
        return self.waiting if self.short_of_room is None else self.short_of_room


@dataclass(frozen=True, slots=True)
class NodeRates:
    """What happened between two pages of a node's metrics: tokens a second, and the share of prompt tokens that were in
    the prefix cache (0 to 1). None where it cannot be told."""

    tokens_per_second: float | None = None
    hit_rate: float | None = None


def rates_between(first: NodeMetrics, last: NodeMetrics) -> NodeRates:
    """From an earlier page to a later one; nothing where the node has started afresh between them."""
    seconds = last.at - first.at
    made = _grown(first.generated, last.generated)
    asked, hit = _grown(first.cache_queries, last.cache_queries), _grown(first.cache_hits, last.cache_hits)
    return NodeRates(
        tokens_per_second=made / seconds if made is not None and seconds > 0 else None,
        hit_rate=hit / asked if hit is not None and asked else None,
    )


def computed_between(first: NodeMetrics, last: NodeMetrics) -> int:
    """Prompt tokens that were computed, and not found in the prefix cache; 0 where it cannot be told."""
    asked, hit = _grown(first.cache_queries, last.cache_queries), _grown(first.cache_hits, last.cache_hits)
    read = max(asked or 0, _grown(first.prompts, last.prompts) or 0)  # without a cache nothing is asked of it
    return max(0, read - (hit or 0))


def ended_per_second(first: NodeMetrics, last: NodeMetrics) -> float:
    """Requests that ended, a second; 0 where it cannot be told."""
    ended, seconds = _grown(first.ended, last.ended), last.at - first.at
    return ended / seconds if ended is not None and seconds > 0 else 0.0


def _grown(before: int | None, after: int | None) -> int | None:
    return after - before if before is not None and after is not None and after >= before else None


MOST = 1e15
"""A number on the page beyond it is not believed."""

_NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:num_requests_waiting_by_reason": "short_of_room",
    "vllm:kv_cache_usage_perc": "kv_use",
    "vllm:prefix_cache_queries_total": "cache_queries",
    "vllm:prefix_cache_hits_total": "cache_hits",
    "vllm:generation_tokens_total": "generated",
    "vllm:request_success_total": "ended",
    "vllm:prompt_tokens_total": "prompts",
}


_CAPACITY = 'reason="capacity"'
_ABORT = 'finished_reason="abort"'


def read_node_metrics(page: str, now: float) -> NodeMetrics:
    """The load that `page` tells; several engines behind one port are added up (of `kv_use` the fullest counts)."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        if not line.startswith("vllm:"):
            continue
        name, _, labels = line.partition("{")
        field = _NAMES.get(name.partition(" ")[0])
        if field == "short_of_room" and _CAPACITY not in labels:
            continue
        if field == "ended" and _ABORT in labels:
            continue
        if field is None:
            continue
        try:
            value = float(line.rpartition(" ")[2])
        except ValueError:
            continue
        if not 0 <= value <= MOST:  # nor a NaN
            continue
        found[field] = max(found.get(field, 0.0), value) if field == "kv_use" else found.get(field, 0.0) + value
    kv_use = found.pop("kv_use", None)
    counts = {field: int(value) for field, value in found.items()}
    return NodeMetrics(at=now, kv_use=kv_use, **counts)
