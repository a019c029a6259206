"""The admin routes that show the fleet: what the nodes say of themselves, and what this process has seen of them."""

import asyncio
import os
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.core.load import rates_between
from gateway.core.routing.selection import NOTHING
from gateway.fleet.node import Node
from gateway.fleet.router import Router
from gateway.telemetry.metrics import Metrics


class NodeStatus(BaseModel):
    """A node as the answering gateway process sees it."""

    name: str
    url: str
    ready: bool
    models: list[str]
    in_flight: int
    last_error: str | None


class NodeView(BaseModel):
    """One node. `running`, `waiting`, `kv_use` (0 to 1), `tokens_per_second` and `hit_rate` (0 to 1, of prompt tokens)
    are the node's own, of all gateways together, over the last half minute; null where it does not say. The rest is
    as the answering process sees it: `in_flight` requests, `pending_tokens` of prompts whose first byte has not come,
    `ttft_p50` and `ttft_p99` in seconds over its latest streams, `prefill_speed` in tokens a second."""

    name: str
    url: str
    models: list[str]
    state: Literal["ready", "warming up", "draining", "out", "unknown"]
    breaker: str
    last_error: str | None
    in_flight: int
    places: int | None
    running: int | None
    waiting: int | None
    kv_use: float | None
    hit_rate: float | None
    tokens_per_second: float | None
    pending_tokens: int
    prefill_speed: float | None
    ttft_p50: float | None
    ttft_p99: float | None
    weight: float
    price: float | None
    labels: dict[str, str]


class FleetView(BaseModel):
    """The fleet as one gateway process sees it: `process` is its id, `gateways` how many of them share the nodes."""

    process: int
    gateways: int
    redis: bool | None
    nodes: list[NodeView]


class FleetRoutes:
    """`metrics` keeps the latest waits, `router` what is pending."""

    def __init__(self, router: Router, metrics: Metrics) -> None:
        self._router = router
        self._metrics = metrics

    def add_to(self, router: APIRouter) -> None:
        router.get("/nodes")(self.nodes)
        router.get("/fleet")(self.fleet)

    async def nodes(self) -> list[NodeStatus]:
        """Every node in short: whether it gets requests, and what was last wrong with it."""
        return [
            NodeStatus(
                name=node.name,
                url=node.spec.url,
                ready=node.ready,
                models=sorted(node.cards),
                in_flight=node.in_flight,
                last_error=node.last_error,
            )
            for node in self._router.fleet.nodes
        ]

    async def fleet(self) -> FleetView:
        """Every node with its state and load. With several processes each answers for itself."""
        self._metrics.settle()
        fleet, shared = self._router.fleet, self._router.shared
        return FleetView(
            process=os.getpid(),
            gateways=fleet.gateways,
            redis=None if shared is None else shared.up,
            nodes=[self._view(node) for node in fleet.nodes],
        )

    def _view(self, node: Node) -> NodeView:
        load, spec, recent = node.load, node.spec, self._metrics.recent
        rates = rates_between(node.loads[0], node.loads[-1]) if node.loads else None
        return NodeView(
            name=node.name,
            url=spec.url,
            models=sorted(node.cards),
            state=_state(node),
            breaker=node.breaker.state.value,
            last_error=node.last_error,
            in_flight=node.in_flight,
            places=None if spec.max_concurrency is None else int(node.bound),
            running=load.running if load else None,
            waiting=load.waiting if load else None,
            kv_use=load.kv_use if load else None,
            hit_rate=rates.hit_rate if rates else None,
            tokens_per_second=rates.tokens_per_second if rates else None,
            pending_tokens=self._router.placement.pending.get(node.name, NOTHING).tokens,
            prefill_speed=None if node.speed.pace is None else 1 / node.speed.pace,
            ttft_p50=recent.quantile(node.name, 0.5),
            ttft_p99=recent.quantile(node.name, 0.99),
            weight=spec.weight,
            price=spec.price,
            labels=dict(spec.labels),
        )


def _state(node: Node) -> Literal["ready", "warming up", "draining", "out", "unknown"]:
    if node.drain is not None:
        return "draining"
    if not node.ready:
        return "out" if node.cards else "unknown"
    return "warming up" if node.breaker.share(asyncio.get_running_loop().time()) < 1 else "ready"
