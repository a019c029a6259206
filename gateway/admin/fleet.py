"""The admin routes that show the fleet: what the nodes say of themselves, and what gateways have seen of them."""

import os
from typing import ClassVar

from fastapi import APIRouter

from gateway.admin.fleet_schemas import FleetView, NodeStatus, UnservedView
from gateway.admin.fleet_sources import FleetSources
from gateway.admin.fleet_views import breaks_of, model_view, node_view
from gateway.core.fleet.peer_view import add_up


class FleetRoutes:
    """Shows what `sources` know."""

    tag: ClassVar[str] = "fleet"
    about: ClassVar[str] = "The nodes and models as all gateways see them."

    def __init__(self, sources: FleetSources) -> None:
        self._sources = sources

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
            for node in self._sources.router.fleet.nodes
        ]

    async def fleet(self) -> FleetView:
        """Every node with its state and load, as all gateway processes together see it."""
        sources = self._sources
        own = sources.own()
        views = [own, *await sources.peer_views.exchange(own)]
        fleet = sources.router.fleet
        redis, redis_troubles = sources.redis
        breaks = {each.model: each for each in add_up(breaks_of(views))}
        queues, factors = sources.queues, sources.pressure.factors
        failing = sources.models.dialects.failing()
        return FleetView(
            process=os.getpid(),
            gateways=max(fleet.gateways, len(views)),
            views=len(views),
            redis=redis,
            redis_troubles=redis_troubles,
            models=[
                model_view(
                    each,
                    breaks.get(each.name),
                    queues.get(each.name),
                    factors.get(each.name),
                    [found for found in failing if found.model == each.name],
                )
                for each in sources.models.states()
            ],
            nodes=[
                node_view(node, [view[node.name] for view in views if node.name in view])
                for node in fleet.nodes
                if node.name in own
            ],
            unserved=[UnservedView(**each._asdict()) for each in sources.models.named.unserved()],
        )
