"""Makes what the admin routes tell of nodes and models out of what the parts know of them."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from math import inf
from typing import Literal

from gateway.admin.fleet_schemas import FailingView, GpuView, LaunchView, ModelView, NodeView
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.fleet.failing_dialects import FailingDialect
from gateway.core.fleet.gpus import gpu_troubles
from gateway.core.fleet.node_metrics import rates_between
from gateway.core.fleet.peer_view import AnswerBreaks, PeerView, ViewsByNode, quantile, states, together
from gateway.fleet.model_watch import ModelState
from gateway.fleet.node import Node


def breaks_of(views: Iterable[ViewsByNode]) -> Iterator[AnswerBreaks]:
    """The answers that broke off, of each process and node."""
    return (each for view in views for node in view.values() for each in node.breaks)


def model_view(
    state: ModelState,
    breaks: AnswerBreaks | None,
    queue: QueueFacts | None,
    factor: float | None,
    failing: Sequence[FailingDialect],
) -> ModelView:
    """`breaks` of all processes, `queue` as this one sees it, None where it has none of the model; `factor` of its
    thinking budgets."""
    return ModelView(
        name=state.name,
        ready=state.ready,
        nodes=state.nodes,
        error=state.error,
        thinking_factor=factor,
        resumed=breaks.resumed if breaks else 0,
        not_resumed=breaks.not_resumed if breaks else 0,
        waiting={name: count for name, count in queue.waiting.items() if count} if queue else {},
        waiting_elsewhere=queue.elsewhere if queue else 0,
        expected_wait=None if queue is None or queue.expected_wait == inf else queue.expected_wait,
        failing=[
            FailingView(
                dialect=each.dialect,
                requests=each.requests,
                seconds=round(each.seconds, 1),
                error=each.error,
                tenant=each.tenant,
            )
            for each in failing
        ],
    )


def node_view(node: Node, views: Sequence[PeerView]) -> NodeView:
    """`views` of the node, the answering process's first."""
    load, spec, seen = node.load, node.spec, together(views)
    rates = rates_between(node.loads[0], node.loads[-1]) if node.loads else None
    return NodeView(
        name=node.name,
        url=spec.url,
        models=sorted(node.cards),
        state=state_of(node, asyncio.get_running_loop().time()),
        seen=states(views),
        breaker=node.breaker.state.value,
        cause=node.breaker.cause.value if node.breaker.is_open else None,
        since=round(asyncio.get_running_loop().time() - node.breaker.since, 1) if node.breaker.since else None,
        last_error=seen.error,
        version=".".join(map(str, node.capabilities.version)) if node.capabilities.version else None,
        holds_budgets=node.capabilities.native_budget,
        in_flight=seen.in_flight,
        places=None if not node.bounded else int(node.bound) * (1 if node.shared else len(views)),
        running=load.running if load else None,
        waiting=load.waiting if load else None,
        kv_use=load.kv_use if load else None,
        hit_rate=rates.hit_rate if rates else None,
        tokens_per_second=rates.tokens_per_second if rates else None,
        pending_tokens=seen.pending,
        prefill_speed=None if node.speed.pace is None else 1 / node.speed.pace,
        ttft_p50=quantile(seen.waits, 0.5),
        ttft_p99=quantile(seen.waits, 0.99),
        broke_off=sum(each.lost for each in seen.breaks),
        weight=spec.weight,
        price=spec.price,
        labels=dict(spec.labels),
        launch=None if node.launch is None else LaunchView(**asdict(node.launch)),
        gpus=[GpuView(**asdict(gpu)) for gpu in node.gpus],
        gpu_troubles=gpu_troubles(node.gpus),
    )


def state_of(node: Node, now: float) -> Literal["ready", "warming up", "failing", "draining", "out", "unknown"]:
    """In one word, at loop time `now`."""
    if node.drain is not None:
        return "draining"
    if not node.ready:
        return "out" if node.cards else "unknown"
    if node.failing is not None:
        return "failing"
    return "warming up" if node.breaker.share(now) < 1 else "ready"
