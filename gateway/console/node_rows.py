"""The fleet as rows: what each node is and does, made in slices so that no stream waits for it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.admin.fleet_views import state_of
from gateway.core.fleet.gpus import gpu_troubles
from gateway.core.fleet.node_metrics import rates_between
from gateway.core.fleet.peer_view import ViewsByNode, quantile, states, together
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node

AT_A_TIME = 50
"""Nodes that are read between two turns of the event loop."""

COLUMNS = (
    *("name", "state", "models", "in_flight", "places", "running", "waiting", "kv", "hits", "tokens", "ttft", "ttft99"),
    *("breaker", "cause", "since", "error", "version", "budgets", "broke_off", "pending", "seen", "weight", "price"),
    *("gpus", "troubles", "url", "labels"),
)
"""`kv` and `hits` in percent, `tokens` a second, `ttft` and `ttft99` in milliseconds, `since` in seconds since 1970."""


async def node_rows(fleet: Fleet, views: Sequence[ViewsByNode], offset: float) -> list[list[Any]]:
    """`views`: those of all processes, this one's first. `offset`: seconds since 1970 less loop time."""
    rows = []
    now = asyncio.get_running_loop().time()
    for number, node in enumerate(fleet.nodes):
        seen = [view[node.name] for view in views if node.name in view]
        if seen:
            rows.append(_row(node, seen, now, offset))
        if number % AT_A_TIME == AT_A_TIME - 1:
            await asyncio.sleep(0)
    return rows


def _row(node: Node, views: Sequence[Any], now: float, offset: float) -> list[Any]:
    load, spec, seen, breaker = node.load, node.spec, together(views), node.breaker
    rates = rates_between(node.loads[0], node.loads[-1]) if node.loads else None
    counted = states(views)
    known = node.capabilities
    return [
        node.name,
        state_of(node, now),
        sorted(node.cards),
        seen.in_flight,
        None if not node.bounded else int(node.bound) * (1 if node.shared else len(views)),
        None if load is None else load.running,
        None if load is None else load.waiting,
        _percent(None if load is None else load.kv_use),
        _percent(None if rates is None else rates.hit_rate),
        None if rates is None or rates.tokens_per_second is None else round(rates.tokens_per_second),
        _milliseconds(quantile(seen.waits, 0.5)),
        _milliseconds(quantile(seen.waits, 0.99)),
        breaker.state.value,
        breaker.cause.value if breaker.is_open else None,
        round(offset + breaker.since) if breaker.since else None,
        seen.error,
        ".".join(map(str, known.version)) if known.version else None,
        known.native_budget,
        sum(each.lost for each in seen.breaks),
        seen.pending,
        counted if len(counted) > 1 else None,
        spec.weight,
        spec.price,
        [[gpu.index, gpu.use, gpu.memory, gpu.watts, gpu.celsius] for gpu in node.gpus],
        gpu_troubles(node.gpus),
        spec.url,
        dict(spec.labels),
    ]


def _percent(share: float | None) -> int | None:
    return None if share is None else round(100 * share)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)
