"""The fleet as all processes see it, for the console: nodes, models, and what is wrong with Redis."""

import asyncio
import os
import time
from collections.abc import Sequence
from math import inf
from typing import Any, ClassVar

from gateway.admin.fleet import FleetRoutes
from gateway.admission.queue import RequestQueue
from gateway.console.node_rows import node_rows
from gateway.core.fleet.peer_view import ViewsByNode
from gateway.fleet.model_watch import ModelWatch
from gateway.fleet.peer_views import PeerViews
from gateway.pressure.thinking_pressure import ThinkingPressure
from gateway.routing.router import Router

PEER_SECONDS = 2.0
"""How old the views of other processes may be: they publish them as often."""


class FleetState:
    """Read once a second while a console is open."""

    MODEL_COLUMNS: ClassVar[Sequence[str]] = (
        *("name", "ready", "nodes", "error", "factor", "waiting", "elsewhere", "expected_wait"),
    )
    """`factor`: that of its thinking budgets, null while pressure is off; `expected_wait` in seconds."""

    def __init__(
        self,
        router: Router,
        routes: FleetRoutes,
        peer_views: PeerViews,
        models: ModelWatch,
        queue: RequestQueue,
        pressure: ThinkingPressure,
    ) -> None:
        self._router = router
        self._routes = routes
        self._peer_views = peer_views
        self._models = models
        self._queue = queue
        self._pressure = pressure
        self._peers: list[ViewsByNode] = []
        self._heard_at = 0.0
        self._offset = 0.0
        """Seconds since 1970 less loop time."""

    async def node_rows(self) -> list[list[Any]]:
        own = self._routes.own()
        now = time.monotonic()
        if now >= self._heard_at + PEER_SECONDS:
            self._heard_at = now
            self._offset = self._offset or time.time() - asyncio.get_running_loop().time()
            self._peers = await self._peer_views.exchange(own)
        return await node_rows(self._router.fleet, [own, *self._peers], self._offset)

    def waiting(self) -> dict[str, int]:
        """By model: the requests of this process that wait for a place."""
        return {facts.model: sum(facts.waiting.values()) for facts in self._queue.facts()}

    def model_rows(self) -> list[list[Any]]:
        queues = {facts.model: facts for facts in self._queue.facts()}
        factors = self._pressure.factors
        rows: list[list[Any]] = []
        for state in self._models.states():
            queue = queues.get(state.name)
            wait = None if queue is None or queue.expected_wait == inf else round(queue.expected_wait, 1)
            waiting = 0 if queue is None else sum(queue.waiting.values())
            elsewhere = 0 if queue is None else queue.elsewhere
            factor = factors.get(state.name)
            rows.append([state.name, state.ready, state.nodes, state.error, factor, waiting, elsewhere, wait])
        return rows

    def facts(self) -> dict[str, Any]:
        """Who sees this, and how Redis is."""
        fleet, groups = self._router.fleet, self._router.groups
        shared = None if groups is None else groups.common.placement
        views = 1 + len(self._peers)
        return {
            "process": os.getpid(),
            "gateways": max(fleet.gateways, views),
            "views": views,
            "redis": None if shared is None else shared.up,
            "redis_troubles": [] if shared is None else shared.troubles,
        }
