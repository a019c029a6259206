"""Requests held between the choice of a node and its lease, and what may become of the node meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.core.fleet.breaker import BreakerRules
from gateway.fleet.node import Node
from gateway.fleet.node_spec import Drain
from tests.support.crowd import Seen, ask, send
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, serve_fake

ENDLESS = FakeSettings(rate=20, answer_tokens=4000)
PENDING, ENTRIES, PLACES = (f"fg1:{{route}}:{name}" for name in ("pending", "entries", "places"))
HEALTH = {"interval": 0.05, "timeout": 30.0, "slow_start": 3000}


@dataclass(slots=True)
class Setting:
    """Some gateways in front of the same nodes, on one Redis where there is one."""

    redis: RedisServer | None
    nodes: Sequence[FakeNode]
    gateways: Sequence[RunningGateway]

    def ask(self, count: int) -> list[asyncio.Task[Seen]]:
        """`count` streams at once, through the gateways in turn."""
        urls = [self.gateways[number % len(self.gateways)].url for number in range(count)]
        return [asyncio.create_task(send(url, ask(f"hello {n}", stream=True))) for n, url in enumerate(urls)]

    async def ask_held_back(self, count: int) -> list[asyncio.Task[Seen]]:
        """As `ask`, once each has chosen a node and waits for a frozen Redis."""
        assert self.redis is not None
        self.redis.freeze()
        asking = self.ask(count)
        await eventually(lambda: sum(map(waiting_for_redis, self.gateways)) == count, 30)
        return asking

    async def ask_around(self, count: int, change: Callable[["Setting"], None]) -> list[asyncio.Task[Seen]]:
        """`count` streams, with `change` while they are being admitted: between their choices and their leases where
        there is a Redis to wait for, else after the first half of them."""
        if self.redis is None:
            asking = self.ask(count // 2)
            await self.decided(asking)
            change(self)
            asking += self.ask(count - count // 2)
        else:
            asking = await self.ask_held_back(count)
            change(self)
            self.thaw()
        await self.decided(asking)
        return asking

    def thaw(self) -> None:
        """Let a frozen Redis answer."""
        assert self.redis is not None
        self.redis.thaw()

    def seen(self, node: int) -> list[Node]:
        """A node as each of the gateways sees it."""
        return [gateway.app.fleet.nodes[node] for gateway in self.gateways]

    def in_flight(self, node: int) -> int:
        """What all gateways have on it."""
        return sum(each.in_flight for each in self.seen(node))

    async def decided(self, asking: Sequence[asyncio.Task[Seen]]) -> None:
        """Until each has a place, or was refused one."""
        places = range(len(self.gateways[0].app.fleet.nodes))
        await eventually(
            lambda: sum(task.done() for task in asking) + sum(map(self.in_flight, places)) == len(asking), 30
        )

    async def nothing_held(self) -> None:
        for gateway in self.gateways:
            await nothing_held(gateway, *self.nodes)
        redis = self.redis
        if redis is not None:
            keys = (PENDING, ENTRIES, PLACES)
            await eventually(lambda: all(redis.do("HLEN", key) == 0 for key in keys))


def waiting_for_redis(gateway: RunningGateway) -> int:
    """Requests whose reservation is asked for."""
    link = gateway.app.redis
    assert link is not None and link.up
    return [call.name for call in link._connections.in_flight()].count("reserve")


@asynccontextmanager
async def setting(
    settings: FakeSettings,
    nodes: int,
    gateways: int = 1,
    bound: int | None = None,
    alone: bool = False,
    max_wait: float = 0.0,
    queue: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Setting]:
    """All nodes are ready in all gateways, and these know of each other. `alone`: there is no Redis.
    `max_wait`, `queue`: of the configuration's `queue`; `more`: further settings."""
    async with AsyncExitStack() as stack:
        redis = None if alone else await stack.enter_async_context(redis_server())
        served = [await stack.enter_async_context(serve_fake(settings)) for _ in range(nodes)]
        listed = [{"url": node.url, "max_concurrency": bound} for node in served]
        shared = {} if redis is None else {"redis": {**redis.settings, "timeout": 5.0}}
        common: dict[str, Any] = {**shared, "nodes": listed, "health": HEALTH, **more}
        common["queue"] = {"max_wait": max_wait, **(queue or {})}
        running = [await stack.enter_async_context(limited_gateway(**common)) for _ in range(gateways)]
        made = Setting(redis, served, running)
        await eventually(lambda: all(node.ready for each in running for node in each.app.fleet.nodes))
        await eventually(lambda: all(each.app.fleet.gateways == gateways for each in running))
        yield made


async def leave(asking: Sequence[asyncio.Task[Seen]]) -> None:
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


def drained(there: Setting) -> None:
    for node in there.seen(0):
        node.drain_for("test", Drain(), asyncio.get_running_loop().time())


def gone(there: Setting) -> None:
    for gateway in there.gateways:
        gateway.app._update_fleet([gateway.app.fleet.nodes[1].spec])


def out(there: Setting) -> None:
    for node in there.seen(0):
        node.breaker.rules = BreakerRules(retrial=3000)
        node.check_failed("it failed its trial", asyncio.get_running_loop().time(), spare=False)


def warming_up(there: Setting) -> None:
    """The first node has come back: it is in slow start."""
    for node in there.seen(0):
        now = asyncio.get_running_loop().time()
        node.refused("it went", now)
        node.answered(now)
        assert (node.ready, node.places) == (True, 1)
