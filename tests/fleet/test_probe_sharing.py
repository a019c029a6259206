"""Several gateways: one of them asks a node, all of them know, and each believes its own eyes first."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.prober import Prober
from gateway.telemetry.shortages import ResourceShortages
from tests.support.gateways import eventually
from tests.support.quiet_fleet import QuietNode, quiet_fleet
from tests.support.redis import RedisServer, linked, redis_server

INTERVAL = 0.8
"""Seconds: turns are long enough for a machine that is busy with other tests."""

SETTINGS = ProbeSettings(interval=INTERVAL, timeout=5.0, failure_threshold=2, canary=False)


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


class Sharing:
    """One gateway's part in this."""

    def __init__(self, fleet: Fleet, prober: Prober) -> None:
        self.fleet = fleet
        self.prober = prober
        self.task = asyncio.create_task(prober.share())

    @property
    def node(self) -> Node:
        return self.fleet.nodes[0]

    async def die(self) -> None:
        """As a process that is killed: nobody is told."""
        self.task.cancel()
        for probes in self.prober._probes.values():
            probes.close()
        self.prober._probes.clear()

    @property
    def others(self) -> int:
        return len(self.prober.sharing._names) - 1


@contextlib.asynccontextmanager
async def gateways(
    redis: RedisServer, count: int, urls: list[str], settings: ProbeSettings = SETTINGS
) -> AsyncIterator[list[Sharing]]:
    """So many gateways that know of each other, and see all nodes ready."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            link = await stack.enter_async_context(linked(redis))
            fleet = Fleet([NodeSpec(url) for url in urls])
            fleet.share_with(count)
            prober = Prober(fleet, settings, ResourceShortages(), link)
            prober.sync()
            each = Sharing(fleet, prober)
            stack.push_async_callback(prober.stop)
            stack.callback(each.task.cancel)
            made.append(each)
        await eventually(lambda: all(node.ready for each in made for node in each.fleet.nodes))
        await eventually(lambda: all(each.others == count - 1 for each in made))
        yield made


def health(nodes: list[QuietNode]) -> int:
    return sum(node.asked["/health"] for node in nodes)


async def test_one_of_several_gateways_asks_a_node_and_all_of_them_know(redis: RedisServer) -> None:
    async with quiet_fleet(8) as nodes, gateways(redis, 4, [node.url for node in nodes]) as each:
        await asyncio.sleep(2 * INTERVAL)  # the first rounds were everybody's
        before, seconds = health(nodes), 6 * INTERVAL
        await asyncio.sleep(seconds)
        rounds = (health(nodes) - before) / len(nodes)
        assert 3 <= rounds <= 12, "four gateways alone would have made 24"
        assert all(node.ready for gateway in each for node in gateway.fleet.nodes)
        assert all(node.load is not None for gateway in each for node in gateway.fleet.nodes)


async def test_a_gateway_that_dies_costs_its_nodes_no_more_than_an_interval(redis: RedisServer) -> None:
    async with quiet_fleet(4) as nodes, gateways(redis, 2, [node.url for node in nodes]) as [one, other]:
        await asyncio.sleep(INTERVAL)
        await one.die()
        before = [node.asked["/health"] for node in nodes]
        await eventually(lambda: all(n.asked["/health"] > seen + 2 for n, seen in zip(nodes, before, strict=True)))
        assert all(node.ready for node in other.fleet.nodes)


async def test_a_node_that_only_one_gateway_reaches_is_in_for_that_one(redis: RedisServer) -> None:
    """What others find does not outweigh a gateway's own bad sign, in either direction."""
    async with quiet_fleet(1) as [node], gateways(redis, 2, [node.url]) as [split, other]:
        port = split.prober._by_url[node.url]._client
        port._port = 1  # from now on it finds no connection
        port.close()
        port.closed = False
        split.node.refused("a request found no connection", asyncio.get_running_loop().time())
        for _ in range(4):
            seen = node.asked["/health"]
            await eventually(lambda: node.asked["/health"] > seen + 1)  # noqa: B023
            assert not split.node.ready
            assert other.node.ready
        port._port = node.port
        await eventually(lambda: split.node.ready)


async def test_a_node_that_dies_is_out_for_all_that_find_it_so(redis: RedisServer) -> None:
    async with quiet_fleet(1) as [node], gateways(redis, 3, [node.url]) as each:
        node.die()
        await eventually(lambda: not any(gateway.node.ready for gateway in each))
        await node.listen()
        await eventually(lambda: all(gateway.node.ready for gateway in each))


async def test_another_process_at_the_address_is_noticed_by_all(redis: RedisServer) -> None:
    async with quiet_fleet(1) as [node], gateways(redis, 3, [node.url]) as each:
        await node.replace("another")
        await eventually(lambda: all("another" in gateway.node.cards for gateway in each))


async def test_without_redis_each_asks_for_itself_and_later_they_share_again(redis: RedisServer) -> None:
    async with quiet_fleet(2) as nodes, gateways(redis, 2, [node.url for node in nodes]) as each:
        redis.kill()
        await eventually(lambda: not any(gateway.prober.sharing.shares for gateway in each))
        begun = health(nodes)
        await eventually(lambda: health(nodes) > begun + 12)
        assert all(node.ready for gateway in each for node in gateway.fleet.nodes)
        redis.restart()
        await eventually(lambda: all(gateway.others == 1 for gateway in each))
        assert all(node.ready for gateway in each for node in gateway.fleet.nodes)


async def test_tokens_that_one_gateway_sees_spare_all_of_them_the_probes(redis: RedisServer) -> None:
    async with quiet_fleet(2) as nodes, gateways(redis, 2, [node.url for node in nodes]) as [one, other]:
        await asyncio.sleep(2 * INTERVAL)
        before = [node.asked["/health"] for node in nodes]
        loop = asyncio.get_running_loop()
        while nodes[1].asked["/health"] - before[1] < 6:
            one.node.heard_at = loop.time()
            await asyncio.sleep(0.02)
        assert nodes[0].asked["/health"] - before[0] <= 4
        assert other.node.ready


async def test_what_one_had_a_node_prove_is_known_to_all(redis: RedisServer) -> None:
    settings = ProbeSettings(interval=0.2, timeout=5.0, failure_threshold=2)
    async with quiet_fleet(3) as nodes, gateways(redis, 3, [], settings) as each:
        for gateway in each:
            gateway.fleet.update([NodeSpec(node.url) for node in nodes])
            gateway.prober.sync()
        await eventually(
            lambda: all(
                node.capabilities.native_budget is False and node.ready
                for gateway in each
                for node in gateway.fleet.nodes
            )
        )
        chats = [node.asked["/v1/chat/completions"] for node in nodes]
        assert len(set(chats)) == 1 and chats[0] <= 4, "as many as one canary asks for"
        assert len(redis.do("KEYS", "fg1:{probes}:proven:*")) == 3
        # A gateway that comes later has none of them proven again.
        async with linked(redis) as link:
            fleet = Fleet([NodeSpec(node.url) for node in nodes])
            fleet.share_with(4)
            prober = Prober(fleet, settings, ResourceShortages(), link)
            sharing = asyncio.create_task(prober.share())
            await eventually(lambda: prober.sharing.shares)
            prober.sync()
            await eventually(lambda: all(node.capabilities.native_budget is False for node in fleet.nodes))
            assert [node.asked["/v1/chat/completions"] for node in nodes] == chats
            await nodes[0].replace("nemotron-3-ultra")
            await eventually(lambda: nodes[0].asked["/v1/chat/completions"] > chats[0])
            sharing.cancel()
            await prober.stop()


async def test_what_lies_in_redis_is_bounded_and_leaves(redis: RedisServer) -> None:
    async with quiet_fleet(1) as [node], gateways(redis, 2, [node.url]):
        for _ in range(200):
            redis.do("XADD", "fg1:{probes}:found", f"{_ + 1}-0", "g", "x", "n", _ + 1, "b", "[]")
        await eventually(lambda: redis.do("XLEN", "fg1:{probes}:found") < 100)
        for key in ("fg1:{probes}:found", "fg1:{probes}:gateways"):
            assert 0 < redis.do("PTTL", key) <= 60_000
    assert redis.do("ZCARD", "fg1:{probes}:gateways") == 0
