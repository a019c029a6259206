"""A Redis that has lost its data is told by every gateway, once; one that was only away is not."""

import asyncio

import httpx

from gateway.redis.client import RedisClient, RedisSettings
from gateway.redis.data_mark import TOLD_SECONDS, TOLERATED, DataMark
from tests.flow.test_server_process import Stage
from tests.support.gateway_process import gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import scripted_node
from tests.support.redis import RedisServer, redis_server


async def looks(redis: RedisServer, *marks: DataMark) -> list[bool]:
    return [await mark.check() for mark in marks]


async def test_each_gateway_notices_once_whoever_marks_first() -> None:
    async with redis_server() as redis:
        clients = [RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0)) for _ in range(2)]
        first, second = (DataMark(client) for client in clients)
        try:
            assert await looks(redis, first, second, first) == [False, False, False], "a new Redis is none that lost"
            redis.flush()
            now = asyncio.get_running_loop().time()
            assert first.trouble(now) is None
            assert await looks(redis, second, first, second, first) == [True, True, False, False]
            lost_at = asyncio.get_running_loop().time()
            assert "lost its data 5 min ago: limits" in str(first.trouble(lost_at + 300.0))
            assert first.trouble(lost_at + TOLD_SECONDS + 1.0) is None
            redis.do("SET", "fg1:mark", "an older copy")
            assert await looks(redis, first, first) == [True, False]
            redis.kill()
            assert await looks(redis, first) == [False], "away is not empty"
            redis.restart()
            async with asyncio.timeout(30):
                while not await first.check():
                    await asyncio.sleep(0.05)
        finally:
            for client in clients:
                await client.reports.close()


async def test_each_gateway_notices_an_older_copy() -> None:
    async with redis_server() as redis:
        clients = [RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0)) for _ in range(2)]
        marks = [DataMark(client) for client in clients]
        try:
            assert [await mark.check(2) for _ in range(3) for mark in marks] == [False] * 6
            copy = redis.do("DUMP", "fg1:looks")
            assert [await mark.check(2) for _ in range(2 * TOLERATED) for mark in marks] == [False] * 4 * TOLERATED
            redis.do("RESTORE", "fg1:looks", 0, copy, "REPLACE")
            assert [await mark.check(2) for _ in range(2) for mark in marks] == [True, True, False, False]
            assert "revoked" in str(marks[1].trouble(asyncio.get_running_loop().time()))
        finally:
            for client in clients:
                await client.reports.close()


async def test_the_last_seconds_that_a_crash_takes_are_not_told() -> None:
    """An append-only file that is written once a second lacks them."""
    async with redis_server() as redis:
        client = RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0))
        mark = DataMark(client)
        try:
            assert [await mark.check() for _ in range(10)] == [False] * 10
            redis.do("HINCRBY", "fg1:looks", "n", -2)
            assert not await mark.check()
            assert [await mark.check(10) for _ in range(10)] == [False] * 10
            redis.do("HINCRBY", "fg1:looks", "n", -20)
            assert not await mark.check(1), "the others do not count as there: Redis was away for longer than they do"
            redis.do("DEL", "fg1:looks")
            redis.do("SET", "fg1:looks", "of another type")
            assert not await mark.check()
            redis.do("SET", "fg1:mark", "another")
            assert await mark.check(), "a count that is refused hides no other sign"
            redis.do("DEL", "fg1:looks")
            assert not await mark.check(), "nor is what it told told again, as an older copy"
        finally:
            await client.reports.close()


async def test_the_log_tells_of_a_snapshot_that_was_restored() -> None:
    async with redis_server() as redis, scripted_node(Stage().reply) as node:
        async with gateway_process("--node", node.url, FLEETGATE_REDIS__URL=redis.url) as gateway:
            redis.do("SAVE")
            older = (redis.folder / "dump.rdb").read_bytes()
            redis.do("HINCRBY", "fg1:looks", "n", 1000)  # half an hour later
            beyond = int(redis.do("HGET", "fg1:looks", "n"))
            await eventually(lambda: int(redis.do("HGET", "fg1:looks", "n")) > beyond)
            redis.kill()
            (redis.folder / "dump.rdb").write_bytes(older)
            redis.restart()
            await eventually(lambda: gateway.events("redis_data_lost"))
            (line,) = gateway.events("redis_data_lost")
            assert "keys that were revoked" in line["remedy"]


async def test_log_and_status_tell_of_a_redis_that_came_back_empty() -> None:
    async with redis_server() as redis, scripted_node(Stage().reply) as node:
        async with gateway_process("--node", node.url, FLEETGATE_REDIS__URL=redis.url) as gateway:
            assert gateway.events("redis_data_lost") == []
            redis.kill()
            await eventually(lambda: gateway.events("redis_lost"))
            redis.restart()
            await eventually(lambda: gateway.events("redis_recovered") and gateway.events("redis_data_lost"))
            (line,) = gateway.events("redis_data_lost")
            assert line["level"] == "error" and "tenants and keys" in line["remedy"]
            async with httpx.AsyncClient() as admin:
                view = (await admin.get(f"{gateway.admin_url}/admin/fleet")).json()
            assert view["redis"] is True
            assert [trouble for trouble in view["redis_troubles"] if "lost its data 0 min ago" in trouble]
        async with gateway_process("--node", node.url, FLEETGATE_REDIS__URL=redis.url) as gateway:
            await asyncio.sleep(0)
            assert gateway.events("redis_data_lost") == [], "a new gateway knows no data that were lost"
