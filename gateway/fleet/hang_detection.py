"""Hang detection: tells a node that hangs from one that is slow to begin.

A long prompt keeps one request waiting for minutes, and a full node queues requests for longer, while its other answers
go on. A node hangs where all of it is silent: no byte of any answer, and no token by its own count, for `base` seconds
and the time that its waiting prompts may need.

A plain answer has no byte before it is whole. While one is running, only the node's own count of tokens shows progress;
without a fresh count or an open breaker, the node does not count as hanging.
"""

import math

from gateway.fleet.node import Node

FRESH_SECONDS = 10.0
"""How old a node's count of tokens may be."""

BEGUN_SECONDS = 10.0
"""How long a prompt may be on its way into a node's engine that has room for it."""


def silent_at(node: Node, now: float, base: float, per_1k: float) -> float:
    """The loop time at which `node` has been silent for too long, going by what is known `now`; infinite where that
    cannot be told. `base` in seconds, `per_1k` in seconds for a thousand tokens of prompt."""
    leases = node.leases
    if not leases or not (node.breaker.is_open or all(lease.stream for lease in leases) or _counts(node, now)):
        return math.inf
    began = max(node.heard_at, min(lease.began for lease in leases))
    waiting = sum(lease.tokens for lease in leases if not lease.heard)
    return began + base + per_1k * waiting / 1000


def hold_up(node: Node, since: float, per_1k: float) -> float:
    """Seconds that waiting prompts may hold up the answers that have begun on `node`, which is silent since then. One
    that was sent long before does not count where the node has said in its silence that its queue is empty: it was
    begun, and answers went on."""
    load = node.load
    begun = load is not None and load.waiting == 0 and load.at >= since
    earliest = since - BEGUN_SECONDS if begun else -math.inf
    return per_1k * sum(lease.tokens for lease in node.leases if not lease.heard and lease.began >= earliest) / 1000


def stands_still(node: Node, now: float, seconds: float) -> bool:
    """Whether the node's own count of tokens confirms that it is silent: it did not grow for `seconds` up to its last
    page, and no prompts wait there of which only other gateways know how long they are."""
    load = node.load
    if load is None or not _counts(node, now) or load.at < node.heard_at + seconds:
        return False
    if len(node.loads) < 2 or node.loads[-2].generated != load.generated:
        return False
    return (load.waiting or 0) <= sum(not lease.heard for lease in node.leases)


def _counts(node: Node, now: float) -> bool:
    load = node.load
    return load is not None and load.generated is not None and now - load.at < FRESH_SECONDS
