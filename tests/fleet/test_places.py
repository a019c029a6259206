"""A node's places are shared by the gateways that are there, and by no others."""

from typing import Any

from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import serve_fake


def places(gateway: RunningGateway) -> float:
    return gateway.app.fleet.nodes[0].bound


async def test_gateways_that_cannot_be_counted_keep_their_places() -> None:
    async with redis_server() as redis, serve_fake() as node:
        settings: dict[str, Any] = {"redis": redis.settings, "nodes": [{"url": node.url, "max_concurrency": 9}]}
        async with running_gateway(**settings) as one:
            async with running_gateway(**settings) as two:
                await eventually(lambda: one.app.fleet.gateways == two.app.fleet.gateways == 2)
                assert (places(one), places(two)) == (9, 9), "all gateways count together what a node has"
                redis.kill()
                await eventually(lambda: one.app.redis is not None and not one.app.redis.up)
                assert places(one) == 4, "to forget the others would give every node twice what it can take"
                redis.restart()
                await eventually(lambda: one.app.redis is not None and one.app.redis.up)
            await eventually(lambda: places(one) == 9)


async def test_without_redis_a_gateways_own_processes_are_counted() -> None:
    async with serve_fake() as node:
        nodes = [{"url": node.url, "max_concurrency": 9}]
        async with running_gateway(nodes=nodes, workers=2) as gateway:
            await eventually(lambda: places(gateway) == 4)
