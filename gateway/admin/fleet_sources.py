"""The parts that know the fleet, together: for the admin routes and the console."""

import asyncio
import time
from dataclasses import dataclass

from gateway.admin.fleet_views import state_of
from gateway.admission.queue import RequestQueue
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.fleet.peer_view import PeerView, ViewsByNode
from gateway.core.routing.selection import NOTHING
from gateway.fleet.model_watch import ModelWatch
from gateway.fleet.peer_views import PeerViews
from gateway.pressure.thinking_pressure import ThinkingPressure
from gateway.redis.presence import Presence
from gateway.routing.router import Router
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class FleetSources:
    """`metrics` keeps the latest waits, `router` what is pending, `peer_views` knows what other processes see, `models`
    which can be served, `queue` what waits, `pressure` what is left of thinking budgets, `presence` whether Redis has
    lost its data."""

    router: Router
    metrics: Metrics
    peer_views: PeerViews
    models: ModelWatch
    queue: RequestQueue
    pressure: ThinkingPressure
    presence: Presence

    @property
    def queues(self) -> dict[str, QueueFacts]:
        """By model, as this process sees them."""
        return {facts.model: facts for facts in self.queue.facts()}

    @property
    def redis(self) -> tuple[bool | None, list[str]]:
        """Whether it is up, None where there is none, and what is wrong with it."""
        groups = self.router.groups
        shared = None if groups is None else groups.common.placement
        if shared is None:
            return None, []
        lost = self.presence.trouble(asyncio.get_running_loop().time())
        return shared.up, shared.troubles + ([] if lost is None else [lost])

    def own(self) -> ViewsByNode:
        """What this process sees, also of nodes that have left the fleet and lost answers of late."""
        self.metrics.flush()
        pending, recent = self.router.placement.pending, self.metrics.recent
        now = time.monotonic()
        breaks = self.metrics.breaks.by_node(now)
        views = {
            node.name: PeerView(
                state_of(node, asyncio.get_running_loop().time()),
                node.in_flight,
                pending.get(node.name, NOTHING).tokens,
                recent.waits(node.name, now),
                node.last_error,
                breaks.pop(node.name, ()),
            )
            for node in self.router.fleet.nodes
        }
        return {**{name: PeerView("gone", 0, 0, (), None, lost) for name, lost in breaks.items()}, **views}
