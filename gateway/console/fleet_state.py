"""The fleet as all processes see it, for the console: nodes, models, and what is wrong with Redis."""

import asyncio
import os
import time
from collections.abc import Sequence
from math import inf
from typing import Any, ClassVar

from gateway.admin.fleet_sources import FleetSources
from gateway.console.node_rows import node_rows
from gateway.core.fleet.peer_view import ViewsByNode

PEER_SECONDS = 2.0
"""How old the views of other processes may be: they publish them as often."""


class FleetState:
    """Read once a second while a console is open."""

    MODEL_COLUMNS: ClassVar[Sequence[str]] = (
        *("name", "ready", "nodes", "error", "factor", "waiting", "elsewhere", "expected_wait"),
    )
    """`factor`: that of its thinking budgets, null while pressure is off; `expected_wait` in seconds."""

    def __init__(self, sources: FleetSources) -> None:
        self._sources = sources
        self._peers: list[ViewsByNode] = []
        self._heard_at = 0.0
        self._offset = 0.0
        """Seconds since 1970 less loop time."""

    async def node_rows(self) -> list[list[Any]]:
        own = self._sources.own()
        now = time.monotonic()
        if now >= self._heard_at + PEER_SECONDS:
            self._heard_at = now
            self._offset = self._offset or time.time() - asyncio.get_running_loop().time()
            self._peers = await self._sources.peer_views.exchange(own)
        return await node_rows(self._sources.router.fleet, [own, *self._peers], self._offset)

    def waiting(self) -> dict[str, int]:
        """By model: the requests of this process that wait for a place."""
        return {facts.model: sum(facts.waiting.values()) for facts in self._sources.queue.facts()}

    def model_rows(self) -> list[list[Any]]:
        queues, factors = self._sources.queues, self._sources.pressure.factors
        rows: list[list[Any]] = []
        for state in self._sources.models.states():
            queue = queues.get(state.name)
            wait = None if queue is None or queue.expected_wait == inf else round(queue.expected_wait, 1)
            waiting = 0 if queue is None else sum(queue.waiting.values())
            elsewhere = 0 if queue is None else queue.elsewhere
            factor = factors.get(state.name)
            rows.append([state.name, state.ready, state.nodes, state.error, factor, waiting, elsewhere, wait])
        return rows

    def facts(self) -> dict[str, Any]:
        """Who sees this, and how Redis is."""
        redis, redis_troubles = self._sources.redis
        views = 1 + len(self._peers)
        return {
            "process": os.getpid(),
            "gateways": max(self._sources.router.fleet.gateways, views),
            "views": views,
            "redis": redis,
            "redis_troubles": redis_troubles,
        }
