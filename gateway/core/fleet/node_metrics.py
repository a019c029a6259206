"""What a node says of its own load, read out of vLLM's /metrics page (Prometheus' text format)."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeMetrics:
    """A node's load at `at` (seconds of the caller's clock). None: the page did not say.

    `running`, `waiting`: requests of all gateways; `short_of_room`: those that wait since the node runs as many as it
    can, and not for something of their own; `kv_use`: 0 to 1; `ended`: requests that were answered since the node
    began; the others are counted in tokens since then (`cache_queries` of its prefix cache, `prompts` of all requests).
    `block`: tokens in a block of its cache, as a prefix is kept there; `kv_tokens`: tokens that its cache has room for.
    `started`: when its process began, by its own clock in seconds since 1970: another one is another process.
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
    started: float | None = None
    block: int | None = None
    kv_tokens: int | None = None

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


def began_anew(before: NodeMetrics, after: NodeMetrics) -> bool:
    """Whether `after` is of another process than `before`, an earlier page of the same address."""
    if before.started is not None and after.started is not None and before.started != after.started:
        return True
    return (after.generated or 0) < (before.generated or 0)


def ended_per_second(first: NodeMetrics, last: NodeMetrics) -> float:
    """Requests that ended, a second; 0 where it cannot be told."""
    ended, seconds = _grown(first.ended, last.ended), last.at - first.at
    return ended / seconds if ended is not None and seconds > 0 else 0.0


def _grown(before: int | None, after: int | None) -> int | None:
    return after - before if before is not None and after is not None and after >= before else None


MOST = 1e15
"""A number on the page beyond it is not believed."""

_NAMES = {
    b"vllm:num_requests_running": "running",
    b"vllm:num_requests_waiting": "waiting",
    b"vllm:num_requests_waiting_by_reason": "short_of_room",
    b"vllm:kv_cache_usage_perc": "kv_use",
    b"vllm:prefix_cache_queries_total": "cache_queries",
    b"vllm:prefix_cache_hits_total": "cache_hits",
    b"vllm:generation_tokens_total": "generated",
    b"vllm:request_success_total": "ended",
    b"vllm:prompt_tokens_total": "prompts",
}

_CACHE = b"vllm:cache_config_info"
_BLOCK = re.compile(rb'[{,]block_size="([0-9]{1,7})"')
_BLOCKS = re.compile(rb'[{,]num_gpu_blocks="([0-9]{1,12})"')

_CAPACITY = b'reason="capacity"'
_ABORT = b'finished_reason="abort"'
_STARTED = b"process_start_time_seconds"
_CREATED = b"vllm:generation_tokens_created"


def read_node_metrics(page: bytes, now: float) -> NodeMetrics:
    """The load that `page` tells; several engines behind one port are added up (of `kv_use` the fullest counts).

    The lines of a metric are one group in this format, so each is searched for, and nothing else of the page is looked
    at: 30 µs for 50 KB of histograms, where all lines take 115.
    """
    found: dict[str, float] = {}
    for name, field in _NAMES.items():
        for labels, value in _samples(page, name):
            if (field == "short_of_room" and _CAPACITY not in labels) or (field == "ended" and _ABORT in labels):
                continue
            if not 0 <= value <= MOST:  # nor a NaN
                continue
            found[field] = max(found.get(field, 0.0), value) if field == "kv_use" else found.get(field, 0.0) + value
    kv_use = found.pop("kv_use", None)
    counts = {field: int(value) for field, value in found.items()}
    block, kv_tokens = _cache(page)
    return NodeMetrics(at=now, kv_use=kv_use, started=_started(page), block=block, kv_tokens=kv_tokens, **counts)


def _cache(page: bytes) -> tuple[int | None, int | None]:
    """Tokens in a block of its cache, the largest of its engines', and in all of them; None where it does not tell."""
    blocks, tokens = [], 0
    for labels, _ in _samples(page, _CACHE):
        size, count = _BLOCK.search(labels), _BLOCKS.search(labels)
        if size is not None and int(size[1]):
            blocks.append(int(size[1]))
            tokens += int(size[1]) * (0 if count is None else int(count[1]))
    return max(blocks, default=None), tokens or None


def _started(page: bytes) -> float | None:
    """When its process began: any engine's word for it, as long as it is the same on every page."""
    for name in (_STARTED, _CREATED):
        told = [value for _, value in _samples(page, name) if 0 <= value <= MOST]
        if told:
            return max(told)
    return None


def _samples(page: bytes, name: bytes) -> list[tuple[bytes, float]]:
    """The labels and values of the metric of that name."""
    samples: list[tuple[bytes, float]] = []
    at = _line_of(page, name)
    while at >= 0 and _is_line(page, at, name):
        end = page.find(b"\n", at)
        line = page[at + len(name) : end if end >= 0 else len(page)]
        labels, _, text = line.rpartition(b" ")
        value = _number(text)
        if value is not None:
            samples.append((labels, value))
        at = end + 1 if end >= 0 else -1
    return samples


def _number(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _line_of(page: bytes, name: bytes) -> int:
    """Where the metric's first line begins; below 0 where it has none."""
    if _is_line(page, 0, name):
        return 0
    at = page.find(b"\n" + name)
    while at >= 0 and not _is_line(page, at + 1, name):
        at = page.find(b"\n" + name, at + 1)
    return at + 1 if at >= 0 else -1


def _is_line(page: bytes, at: int, name: bytes) -> bool:
    return page.startswith(name, at) and page[at + len(name) : at + len(name) + 1] in (b"{", b" ")
