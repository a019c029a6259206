"""Admin routes that take nodes out of work and back, and say when nothing runs on them any more."""

import asyncio
from typing import Annotated, ClassVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.audit import Audit, AuditEvent
from gateway.admin.auth import Who
from gateway.admin.problems import AdminError
from gateway.fleet.drains import SYNC_SECONDS, Drains
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node

SETTLED_SECONDS = 4 * SYNC_SECONDS
"""How long after a drain every process is taken to know of it."""


class DrainRequest(BaseModel):
    """Which node (its name, host:port, or its URL), and after how many seconds what still runs there is ended; what
    can go on on another node is moved there before that."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"node": "node-1:8000", "deadline": 600}]}
    )

    node: str
    deadline: Annotated[float, Field(ge=0, le=86_400)] | None = None


class NodeName(BaseModel):
    """Which node: its name, host:port, or its URL."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"node": "node-1:8000"}]})

    node: str


class DrainState(BaseModel):
    """`in_flight`: requests that the answering process has on it. `running`: all of them, as the node itself counts;
    null where it does not say. `empty`: nothing runs there and no process can send anything any more. `told`: other
    gateways know; false while Redis is away, and then they will be told."""

    node: str
    draining: bool
    in_flight: int
    running: int | None
    empty: bool
    told: bool


class DrainRoutes:
    """`drains` knows how to tell the other processes."""

    tag: ClassVar[str] = "drains"
    about: ClassVar[str] = "Taking nodes out of work, and back."

    def __init__(self, fleet: Fleet, drains: Drains, audit: Audit) -> None:
        self._fleet = fleet
        self._drains = drains
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.post("/drain")(self.drain)
        router.post("/undrain")(self.undrain)
        router.get("/drain/{name:path}")(self.state)

    async def drain(self, order: DrainRequest, who: Who) -> DrainState:
        """No new work for a node; what runs there may finish, or has until the deadline. Known to all processes of
        all gateways that share Redis within two seconds."""
        node = self._named(order.node)
        await self._drains.drain(node.name, order.deadline)
        await self._audit.note(AuditEvent(who, "node drained", node.name, {"deadline": order.deadline}))
        return self._state(node)

    async def undrain(self, order: NodeName, who: Who) -> DrainState:
        """Give a node work again, once it answers."""
        node = self._named(order.node)
        await self._drains.undrain(node.name)
        await self._audit.note(AuditEvent(who, "node undrained", node.name, {}))
        return self._state(node)

    async def state(self, name: str) -> DrainState:
        """Whether a node is drained, and empty."""
        return self._state(self._named(name))

    def _named(self, name: str) -> Node:
        wanted = name.partition("://")[2].rstrip("/") if "://" in name else name
        for node in self._fleet.nodes:
            if node.name == wanted:
                return node
        known = ", ".join(node.name for node in self._fleet.nodes) or "none"
        raise AdminError(404, f"Unknown node {name!r}", f"known: {known}", field="node")

    def _state(self, node: Node) -> DrainState:
        drain, load = node.drain, node.load
        now = asyncio.get_running_loop().time()
        settled = None if drain is None else drain.since + SETTLED_SECONDS
        running = None
        if load is not None and load.running is not None and settled is not None and load.at > settled:
            running = load.running + (load.waiting or 0)
        empty = settled is not None and now > settled and node.in_flight == 0
        if load is not None and node.ready_but_for_drain:  # it counts itself: its word is awaited
            empty = empty and running == 0
        return DrainState(
            node=node.name,
            draining=drain is not None,
            in_flight=node.in_flight,
            running=running,
            empty=empty,
            told=self._drains.synced,
        )
