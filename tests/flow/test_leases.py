"""A node that was chosen before Redis answered is looked at again after: others came, and it may be drained or gone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.fleet.breaker import BreakerRules
from gateway.fleet.node import Drain, Node
from tests.support.crowd import Seen, ask, lost, send
from tests.support.faults import broken_network, limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, serve_fake

CHATS = "/v1/chat/completions"
ENDLESS = FakeSettings(rate=20, answer_tokens=4000)
PENDING, ENTRIES = "fg1:{route}:pending", "fg1:{route}:entries"
HEALTH = {"interval": 0.05, "timeout": 30.0, "slow_start": 3000}


@dataclass(slots=True)
class Setting:
    """Some gateways on one Redis, in front of the same nodes."""

    redis: RedisServer
    nodes: Sequence[FakeNode]
    gateways: Sequence[RunningGateway]

    async def ask_held_back(self, count: int) -> list[asyncio.Task[Seen]]:
        """`count` streams through the gateways in turn, each of which has chosen and waits for a frozen Redis."""
        self.redis.freeze()
        asking = []
        for number in range(count):
            url = self.gateways[number % len(self.gateways)].url
            asking.append(asyncio.create_task(send(url, ask(f"hello {number}", stream=True))))
        await eventually(lambda: sum(map(waiting_for_redis, self.gateways)) == count)
        return asking

    def seen(self, node: int) -> list[Node]:
        """A node as each of the gateways sees it."""
        return [gateway.app.fleet.nodes[node] for gateway in self.gateways]

    def in_flight(self, node: int) -> int:
        """What all gateways have on it."""
        return sum(each.in_flight for each in self.seen(node))

    async def decided(self, asking: Sequence[asyncio.Task[Seen]]) -> None:
        """Until each has a place, or was refused one."""
        places = range(len(self.gateways[0].app.fleet.nodes))
        await eventually(lambda: sum(task.done() for task in asking) + sum(map(self.in_flight, places)) == len(asking))

    async def nothing_held(self) -> None:
        for gateway in self.gateways:
            await nothing_held(gateway, *self.nodes)
        await eventually(lambda: self.redis.do("HLEN", PENDING) == self.redis.do("HLEN", ENTRIES) == 0)


def waiting_for_redis(gateway: RunningGateway) -> int:
    """Requests whose reservation is asked for."""
    link = gateway.app.redis
    assert link is not None and link.up
    return [call.name for call in link._wires.under_way()].count("reserve")


@asynccontextmanager
async def setting(
    settings: FakeSettings, nodes: int, gateways: int = 1, bound: int | None = None
) -> AsyncIterator[Setting]:
    """All nodes are ready in all gateways, and these know of each other."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        served = [await stack.enter_async_context(serve_fake(settings)) for _ in range(nodes)]
        listed = [{"url": node.url, "max_concurrency": bound} for node in served]
        common: dict[str, Any] = {"redis": {**redis.settings, "timeout": 5.0}, "nodes": listed, "health": HEALTH}
        running = [await stack.enter_async_context(limited_gateway(**common)) for _ in range(gateways)]
        made = Setting(redis, served, running)
        await eventually(lambda: all(node.ready for each in running for node in each.app.fleet.nodes))
        await eventually(lambda: all(each.app.fleet.gateways == gateways for each in running))
        yield made


async def leave(asking: Sequence[asyncio.Task[Seen]]) -> None:
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.parametrize(("nodes", "gateways"), [(1, 1), (2, 1), (2, 2)])
async def test_no_node_has_more_than_its_bound_however_many_chose_it_at_once(nodes: int, gateways: int) -> None:
    async with setting(ENDLESS, nodes, gateways, bound=2 * gateways) as there:
        asking = await there.ask_held_back(20)
        there.redis.thaw()
        await there.decided(asking)
        assert [there.in_flight(node) for node in range(nodes)] == [2 * gateways] * nodes
        refused = [task.result() for task in asking if task.done()]
        assert {(seen.status, seen.code) for seen in refused} == {(503, "fleet_full")}
        await leave(asking)
        await there.nothing_held()


async def test_a_node_that_warms_up_is_given_no_crowd() -> None:
    async with setting(ENDLESS, 2, gateways=2) as there:
        for node in there.seen(0):
            now = asyncio.get_running_loop().time()
            node.refused("it went", now)
            node.answered(now)
            assert (node.ready, node.places) == (True, 1)
        asking = await there.ask_held_back(20)
        there.redis.thaw()
        await there.decided(asking)
        assert there.in_flight(0) <= 2, "one from each gateway"
        assert there.in_flight(1) == 20 - there.in_flight(0)
        await leave(asking)
        await there.nothing_held()


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


@pytest.mark.parametrize("change", [drained, gone, out])
async def test_what_became_of_a_node_meanwhile_is_heeded(change: Callable[[Setting], None]) -> None:
    async with setting(FakeSettings(), 2, gateways=2) as there:
        asking = await there.ask_held_back(10)
        change(there)
        there.redis.thaw()
        assert lost(await asyncio.gather(*asking)) == []
        assert [node.stats.requests[CHATS] for node in there.nodes] == [0, 10]
        await there.nothing_held()


async def test_the_only_node_drained_meanwhile_is_told_as_none_ready() -> None:
    async with setting(FakeSettings(), 1) as there:
        asking = await there.ask_held_back(3)
        drained(there)
        there.redis.thaw()
        seen = await asyncio.gather(*asking)
        assert [(one.status, one.code) for one in seen] == [(503, "no_node_ready")] * 3
        assert there.nodes[0].stats.requests[CHATS] == 0
        await there.nothing_held()


@pytest.mark.parametrize("end", ["left", "lost"])
async def test_who_left_and_what_redis_lost_between_choice_and_place_hold_nothing(end: str) -> None:
    async with setting(ENDLESS, 2, bound=2) as there:
        asking = await there.ask_held_back(20)
        if end == "left":
            await leave(asking)
            await asyncio.sleep(0.05)
            there.redis.thaw()
        else:
            there.redis.kill()
            await there.decided(asking)
            assert [there.in_flight(node) for node in (0, 1)] == [2, 2]
            there.redis.restart()
            await leave(asking)
        await there.nothing_held()


@pytest.mark.parametrize("change", [drained, gone])
async def test_a_node_that_is_drained_while_it_is_connected_to_gets_nothing(change: Callable[[Setting], None]) -> None:
    async with serve_fake() as a, serve_fake() as b, broken_network(a.port) as network:
        async with limited_gateway(network.url, b.url, routing={"policy": "round_robin"}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            node = gateway.app.fleet.nodes[0]
            await network.partition()
            asking = [asyncio.create_task(send(gateway.url, ask(f"hello {number}"))) for number in range(2)]
            await eventually(lambda: b.stats.requests[CHATS] == 1 and node.in_flight == 1)
            change(Setting(None, [a, b], [gateway]))  # type: ignore[arg-type]  # there is no Redis here
            await network.heal()
            assert lost(await asyncio.gather(*asking)) == []
            assert (a.stats.requests[CHATS], b.stats.requests[CHATS]) == (0, 2)
            await eventually(lambda: node.in_flight == 0)
            assert (node.access in gateway.app.relay._pools) is (change is drained), "nobody would ever close it"
