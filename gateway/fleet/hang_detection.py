"""Telling a node that hangs from one that is only slow to begin.

A long prompt keeps a request waiting for minutes, and a full node queues it for longer; meanwhile the other answers
go on. So what counts is the silence of the whole node: no byte of any answer, and no token by its own count, for
`base` seconds and the time that the prompts it has not answered yet may need.

A plain answer says nothing until it is whole. Where one is under way, only the node's own count of tokens can tell;
without a fresh one, or a breaker that is open, nothing is concluded.
"""

import math

from gateway.fleet.node import Node

FRESH_SECONDS = 10.0
"""How old a page of metrics may be to be believed in this."""


def silent_at(node: Node, now: float, base: float, per_1k: float) -> float:
    """The loop time at which `node` has been silent for too long, going by what is known `now`; infinite where that
    cannot be told. `base` in seconds, `per_1k` in seconds for a thousand tokens of prompt."""
    leases = node.leases
    if not leases or not (node.breaker.is_open or all(lease.stream for lease in leases) or _counts(node, now)):
        return math.inf
    began = max(node.heard_at, min(lease.began for lease in leases))
    waiting = sum(lease.tokens for lease in leases if not lease.heard)
    return began + base + per_1k * waiting / 1000


def _counts(node: Node, now: float) -> bool:
    load = node.load
    return load is not None and load.generated is not None and now - load.at < FRESH_SECONDS
