"""The admin routes that show the fleet: what the nodes say of themselves, and what gateways have seen of them."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from math import inf
from typing import ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.admission.queue import RequestQueue
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.fleet.failing_dialects import FailingDialect
from gateway.core.fleet.gpus import gpu_troubles
from gateway.core.fleet.node_metrics import rates_between
from gateway.core.fleet.peer_view import AnswerBreaks, PeerView, ViewsByNode, add_up, quantile, states, together
from gateway.core.routing.selection import NOTHING
from gateway.fleet.model_watch import ModelState, ModelWatch
from gateway.fleet.node import Node
from gateway.fleet.peer_views import PeerViews
from gateway.pressure.thinking_pressure import ThinkingPressure
from gateway.routing.router import Router
from gateway.telemetry.metrics import Metrics


class NodeStatus(BaseModel):
    """A node as the answering gateway process sees it."""

    name: str
    url: str
    ready: bool
    models: list[str]
    in_flight: int
    last_error: str | None


class LaunchView(BaseModel):
    """How a node was started, as its record tells it; null: it does not. `max_model_len` in tokens, `price_kind`
    on_demand, reserved or spot; `warm_up` and `thinking_budget` are what its launcher found before it was ready."""

    profile: str | None
    vllm_version: str | None
    price_kind: str | None
    max_model_len: int | None
    warm_up: bool | None
    thinking_budget: str | None


class GpuView(BaseModel):
    """One GPU, as the node's record tells it; null: it does not. `use` (over the last half minute) and `memory` are 0
    to 1; `xid` is the number of its last Xid error; `lost`: its driver does not reach it."""

    index: int
    use: float | None
    memory: float | None
    watts: float | None
    celsius: float | None
    xid: int | None
    ecc_uncorrected: int | None
    lost: bool


class NodeView(BaseModel):
    """One node. `running`, `waiting`, `kv_use` (0 to 1), `tokens_per_second` and `hit_rate` (0 to 1, of prompt
    tokens) are the node's own, of all gateways together, over the last half minute; null where it does not say. Over
    all `views`: `in_flight` requests of `places`, `pending_tokens` of prompts whose first byte has not come,
    `ttft_p50` and `ttft_p99` in seconds over the latest streams and `broke_off` answers, both of the last ten
    minutes, and `seen`, how many processes see it in which state. The rest is as the answering process sees it,
    `prefill_speed` in tokens a second; `last_error` is another's where it has none; `cause` is why its breaker is
    open, and `since` the seconds for which the breaker is as it is, null before the first probe. `version` is vLLM's,
    `holds_budgets` whether its canary showed that it ends thinking at a budget; null: not known. `launch` is null for
    a node that did not register. `gpus` are those of its record, none where it tells none, and `gpu_troubles` says
    what is wrong with them."""

    name: str
    url: str
    models: list[str]
    state: Literal["ready", "warming up", "failing", "draining", "out", "unknown"]
    seen: dict[str, int]
    breaker: str
    cause: str | None
    since: float | None
    last_error: str | None
    version: str | None
    holds_budgets: bool | None
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
    broke_off: int
    weight: float
    price: float | None
    labels: dict[str, str]
    launch: LaunchView | None
    gpus: list[GpuView]
    gpu_troubles: list[str]


class FailingView(BaseModel):
    """A dialect in which `requests` in a row have failed over `seconds`, and none was answered."""

    dialect: str
    requests: int
    seconds: float
    error: str


class ModelView(BaseModel):
    """A model as the answering process sees it: whether a node can serve it, how many have said that they do, and what
    was last wrong where none can. `thinking_factor` is that of its thinking budgets, null while pressure is off. Over
    all `views` and the last ten minutes: how often an answer that broke off was `resumed`, and how many ended with an
    error instead. `waiting`: requests that wait for a place in the answering process, by class, `waiting_elsewhere` in
    others, as far as it hears of them; `expected_wait` in seconds, null where it is not known. `failing`: dialects in
    which all requests fail on it, though its nodes pass for ready."""

    name: str
    ready: bool
    nodes: int
    error: str | None
    thinking_factor: float | None
    resumed: int
    not_resumed: int
    waiting: dict[str, int]
    waiting_elsewhere: int
    expected_wait: float | None
    failing: list[FailingView]


class UnservedView(BaseModel):
    """A tenant of the config file that names a model which no node has served since the start; `meant`: one alike."""

    tenant: str
    model: str
    meant: str | None


class FleetView(BaseModel):
    """The fleet. `process` is the id of the one that answers, `gateways` how many processes share the nodes, and
    `views` how many of them this is the view of: fewer while Redis is away, or one has just begun. `redis_troubles`
    says why Redis is down, or which calls it refuses and what to do, as the answering process knows it."""

    process: int
    gateways: int
    views: int
    redis: bool | None
    redis_troubles: list[str]
    models: list[ModelView]
    nodes: list[NodeView]
    unserved: list[UnservedView]


class FleetRoutes:
    """`metrics` keeps the latest waits, `router` what is pending, `peer_views` knows what other processes see, `models`
    which can be served, `queue` what waits, `pressure` what is left of thinking budgets."""

    tag: ClassVar[str] = "fleet"
    about: ClassVar[str] = "The nodes and models as all gateways see them."

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        peer_views: PeerViews,
        models: ModelWatch,
        queue: RequestQueue,
        pressure: ThinkingPressure,
    ) -> None:
        self._router = router
        self._queue = queue
        self._models = models
        self._metrics = metrics
        self._peer_views = peer_views
        self._pressure = pressure

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
        """Every node with its state and load, as all gateway processes together see it."""
        own = self.own()
        views = [own, *await self._peer_views.exchange(own)]
        fleet, groups = self._router.fleet, self._router.groups
        shared = None if groups is None else groups.common.placement
        breaks = {each.model: each for each in add_up(_breaks(views))}
        queues = {facts.model: facts for facts in self._queue.facts()}
        factors = self._pressure.factors
        failing = self._models.dialects.failing()
        return FleetView(
            process=os.getpid(),
            gateways=max(fleet.gateways, len(views)),
            views=len(views),
            redis=None if shared is None else shared.up,
            redis_troubles=[] if shared is None else shared.troubles,
            models=[
                _model_view(
                    each,
                    breaks.get(each.name),
                    queues.get(each.name),
                    factors.get(each.name),
                    [found for found in failing if found.model == each.name],
                )
                for each in self._models.states()
            ],
            nodes=[
                _view(node, [view[node.name] for view in views if node.name in view])
                for node in fleet.nodes
                if node.name in own
            ],
            unserved=[UnservedView(**each._asdict()) for each in self._models.named.unserved()],
        )

    def own(self) -> ViewsByNode:
        """What this process sees, also of nodes that have left the fleet and lost answers of late."""
        self._metrics.flush()
        pending, recent = self._router.placement.pending, self._metrics.recent
        now = time.monotonic()
        breaks = self._metrics.breaks.by_node(now)
        views = {
            node.name: PeerView(
                state_of(node, asyncio.get_running_loop().time()),
                node.in_flight,
                pending.get(node.name, NOTHING).tokens,
                recent.waits(node.name, now),
                node.last_error,
                breaks.pop(node.name, ()),
            )
            for node in self._router.fleet.nodes
        }
        return {**{name: PeerView("gone", 0, 0, (), None, lost) for name, lost in breaks.items()}, **views}


def _breaks(views: Iterable[ViewsByNode]) -> Iterator[AnswerBreaks]:
    return (each for view in views for node in view.values() for each in node.breaks)


def _model_view(
    state: ModelState,
    breaks: AnswerBreaks | None,
    queue: QueueFacts | None,
    factor: float | None,
    failing: Sequence[FailingDialect],
) -> ModelView:
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
            FailingView(dialect=each.dialect, requests=each.requests, seconds=round(each.seconds, 1), error=each.error)
            for each in failing
        ],
    )


def _view(node: Node, views: Sequence[PeerView]) -> NodeView:
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
