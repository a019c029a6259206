"""A cluster fails over; the server that dies may be the one that the URL names."""

import asyncio
import contextlib
import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisError

from gateway.core.routing.grouping import APART
from gateway.redis.client import RedisClient, RedisUnavailable, Script
from tests.support.admission import HEALTH
from tests.support.crowd import Seen, ask, lost, send
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import eventually
from tests.support.redis import RedisServer, linked, redis_cluster, replica_of
from workers.fake import FakeSettings, serve_fake

ADD = Script.of("add", "return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[1]}")
KEYS = [f"k{number}" for number in range(20)]
"""On all servers."""

BOUND = 4
MODELS = [{"name": "ultra", "routing_group": "ultra"}, {"name": "nano", "routing_group": "nano"}]
QUICK = FakeSettings(rate=200, thinking_tokens=4, answer_tokens=20)


async def answered(link: RedisClient) -> bool:
    replies = await asyncio.gather(*[link.run(ADD, [key], [1]) for key in KEYS], return_exceptions=True)
    assert all(isinstance(reply, list | RedisUnavailable) for reply in replies), replies
    return all(isinstance(reply, list) for reply in replies)


@pytest.mark.parametrize("dies", [0, 1])
async def test_a_cluster_that_has_failed_over_is_found_by_any_of_its_servers(dies: int) -> None:
    async with redis_cluster() as cluster, replica_of(cluster.nodes[dies]) as replica:
        async with linked(cluster, timeout=1.0, connect_timeout=2.0) as link:
            async with asyncio.timeout(30):
                while not await answered(link):
                    await asyncio.sleep(0.05)
            cluster.nodes[dies].kill()
            replica.do("CLUSTER", "FAILOVER", "TAKEOVER")
            async with asyncio.timeout(60):
                while not await answered(link):
                    await asyncio.sleep(0.05)
            assert link.up
            assert await link.reports.command("GET", KEYS[0]) is not None


async def test_a_cluster_that_is_away_leaves_no_connection_open() -> None:
    """Each failed probe makes a client of redis-py, which reaches some of the servers, and wants to look anew."""
    async with redis_cluster() as cluster, linked(cluster) as link:
        await eventually(lambda: link.up)
        cluster.nodes[0].kill()
        await eventually(lambda: not link.up)
        await asyncio.sleep(3)  # some probes
    assert not [node for node in gc.get_objects() if type(node) is ClusterNode and connected(node)]


def connected(node: Any) -> bool:
    return any(connection.is_connected for connection in node._connections)


@pytest.mark.prove
@pytest.mark.parametrize("killed", ["{route}", "{route:ultra}", "{route:nano}"])
async def test_requests_go_on_while_a_replica_takes_over(killed: str) -> None:
    """Two gateways under load. What a primary had is known again, and nothing of any request is held in the end."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_cluster())
        replicas = [await stack.enter_async_context(replica_of(node)) for node in redis.nodes]
        served = [("ultra",), ("ultra",), ("nano",)]
        nodes = [await stack.enter_async_context(serve_fake(replace(QUICK, models=models))) for models in served]
        gateways = [
            await stack.enter_async_context(
                limited_gateway(
                    redis=redis.settings,
                    nodes=[{"url": node.url, "max_concurrency": BOUND} for node in nodes],
                    models=MODELS,
                    health=HEALTH,
                    queue={"max_wait": 30.0},
                )
            )
            for _ in range(2)
        ]
        for gateway in gateways:
            await eventually(lambda app=gateway.app: app.fleet.shared and app.router.groups.phase == APART)
        seen: list[Seen] = []
        stop = asyncio.Event()

        async def client(number: int) -> None:
            while not stop.is_set():
                model = ("ultra", "nano")[number % 3 == 0]
                body = ask(f"{number} {len(seen)}", stream=True, model=model)
                seen.append(await send(gateways[number % 2].url, body))

        async def served_more(count: int) -> None:
            goal = len(seen) + count
            await eventually(lambda: len(seen) >= goal)

        clients = [asyncio.create_task(client(number)) for number in range(12)]
        await served_more(50)
        links = [gateway.app.redis for gateway in gateways if gateway.app.redis is not None]
        redis.server_of(killed).kill()
        await eventually(lambda: not any(link.up for link in links))
        await served_more(50)
        await eventually(lambda: all(link.up for link in links))
        await eventually(lambda: all(gateway.app.fleet.shared for gateway in gateways))
        await served_more(200)  # of those that were chosen by each gateway for itself, none is left
        most = 0
        for _ in range(100):
            most = max(most, *[sum(each.app.fleet.nodes[at].in_flight for each in gateways) for at in range(3)])
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*clients)
        assert lost(seen) == []
        assert most <= BOUND
        assert all(link.outages <= 3 for link in links)
        for gateway in gateways:
            await nothing_held(gateway, *nodes)
        for group in ("{route}", "{route:ultra}", "{route:nano}"):
            await eventually(lambda key=f"fg1:{group}:places": not read((*redis.nodes, *replicas), key))


def read(servers: Sequence[RedisServer], key: str) -> Any:
    """The hash of that name, at whoever has its slot now."""
    for server in servers:
        with contextlib.suppress(RedisError):
            if server.do("ROLE")[0] == b"master":
                return server.do("HGETALL", key)  # else it says where the slot is
    raise AssertionError(f"nobody has the slot of {key}")
