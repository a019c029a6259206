"""A cluster fails over; the server that dies may be the one that the URL names."""

import asyncio

import pytest

from gateway.redis.client import RedisClient, RedisUnavailable, Script
from tests.support.redis import linked, redis_cluster, replica_of

ADD = Script.of("add", "return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[1]}")
KEYS = [f"k{number}" for number in range(20)]
"""On all servers."""


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
