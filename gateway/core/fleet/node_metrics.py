"""What a node says of its own load, read out of vLLM's /metrics page (Prometheus' text format)."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple


class NodeMetrics(NamedTuple):
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

    def sharing(self, before: "NodeMetrics") -> "NodeMetrics":
        """The same, with the objects of an earlier page where it told the same: pages are kept, and most numbers of
        most nodes stand still."""
        return NodeMetrics._make([old if old == new else new for old, new in zip(before, self, strict=True)])

    @property
    def queued(self) -> int | None:
        """Requests in the node's own queue, as far as the page tells them from others that wait."""
        return self.waiting if self.short_of_room is None else self.short_of_room


class NodeRates(NamedTuple):
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

_RUNNING: Final = 0
_WAITING: Final = 1
_SHORT_OF_ROOM: Final = 2
_QUERIES: Final = 3
_HITS: Final = 4
_GENERATED: Final = 5
_ENDED: Final = 6
_PROMPTS: Final = 7
_KV_USE: Final = 8
_STARTED: Final = 9
_CREATED: Final = 10
_CACHE: Final = 11

_PLACES: Final = {
    b"vllm:num_requests_running": _RUNNING,
    b"vllm:num_requests_waiting": _WAITING,
    b"vllm:num_requests_waiting_by_reason": _SHORT_OF_ROOM,
    b"vllm:prefix_cache_queries_total": _QUERIES,
    b"vllm:prefix_cache_hits_total": _HITS,
    b"vllm:generation_tokens_total": _GENERATED,
    b"vllm:request_success_total": _ENDED,
    b"vllm:prompt_tokens_total": _PROMPTS,
    b"vllm:kv_cache_usage_perc": _KV_USE,
    b"process_start_time_seconds": _STARTED,
    b"vllm:generation_tokens_created": _CREATED,
    b"vllm:cache_config_info": _CACHE,
}
"""Before `_KV_USE` lie those of which engines are added up, behind it those of which the most counts."""

READ: Final = tuple(_PLACES)
"""The names of all that is read."""

_BLOCK = re.compile(rb'[{,]block_size="([0-9]{1,7})"')
_BLOCKS = re.compile(rb'[{,]num_gpu_blocks="([0-9]{1,12})"')
_CAPACITY: Final = b'reason="capacity"'
_ABORT: Final = b'finished_reason="abort"'
_LINE = re.compile(rb"\n(vllm:[a-z_]+|process_start_time_seconds)({[^\n]*})? ([^ \n]+)(?=\n|\Z)")

_SHORT: Final = 8192
"""Bytes of a page whose lines are all looked at."""

_Line = tuple[bytes, bytes, bytes]
"""The name, the labels and the value of a line, as they are written."""


def read_node_metrics(page: bytes, now: float) -> NodeMetrics:
    """The load that `page` tells; several engines behind one port are added up (of `kv_use` the fullest counts).

    The lines of a metric are one group in this format, so in a long page each is searched for, and nothing else is
    looked at: 40 µs for 50 KB of histograms, where all lines take 115. A page of little else takes 12.
    """
    found: list[float | None] = [None] * len(READ)
    caches = []
    for name, labels, text in _LINE.findall(b"\n" + page) if len(page) <= _SHORT else _found_lines(page):
        place = _PLACES.get(name)
        if place is None:
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if not 0 <= value <= MOST:  # nor a NaN
            continue
        if place == _CACHE:
            caches.append(labels)
        if (place == _SHORT_OF_ROOM and _CAPACITY not in labels) or (place == _ENDED and _ABORT in labels):
            continue
        before = found[place]
        if before is not None:
            value = before + value if place < _KV_USE else max(before, value)
        found[place] = value
    counts = [None if value is None else int(value) for value in found[:_KV_USE]]
    block, kv_tokens = _cache(caches) if caches else (None, None)
    return NodeMetrics(
        at=now,
        running=counts[_RUNNING],
        waiting=counts[_WAITING],
        kv_use=found[_KV_USE],
        cache_queries=counts[_QUERIES],
        cache_hits=counts[_HITS],
        generated=counts[_GENERATED],
        short_of_room=counts[_SHORT_OF_ROOM],
        ended=counts[_ENDED],
        prompts=counts[_PROMPTS],
        started=found[_STARTED] if found[_STARTED] is not None else found[_CREATED],
        block=block,
        kv_tokens=kv_tokens,
    )


def _cache(caches: Sequence[bytes]) -> tuple[int | None, int | None]:
    """Tokens in a block of its cache, the largest of its engines', and in all of them; None where it does not tell."""
    blocks, tokens = [], 0
    for labels in caches:
        size, count = _BLOCK.search(labels), _BLOCKS.search(labels)
        if size is not None and int(size[1]):
            blocks.append(int(size[1]))
            tokens += int(size[1]) * (0 if count is None else int(count[1]))
    return max(blocks, default=None), tokens or None


def _found_lines(page: bytes) -> list[_Line]:
    """The lines of the metrics that are read."""
    lines: list[_Line] = []
    for name in READ:
        at = _line_of(page, name)
        while at >= 0 and _is_line(page, at, name):
            end = page.find(b"\n", at)
            labels, _, text = page[at + len(name) : end if end >= 0 else len(page)].rpartition(b" ")
            lines.append((name, labels, text))
            at = end + 1 if end >= 0 else -1
    return lines


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
