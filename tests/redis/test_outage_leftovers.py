"""Outages of Redis leave nothing in a gateway, also where the garbage collector never runs.

`server` has it run once in 50,000 new objects, so what an outage leaves in reference cycles stays for days.
"""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from ssl import SSLContext
from types import FrameType, TracebackType
from typing import Any

import hiredis
import httpx
import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.client import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.redis.client import RedisClient
from gateway.redis.connection import RedisCall, RedisConnection
from gateway.redis.plain_client import PlainClient
from gateway.redis.script import RedisUnavailable
from gateway.redis.settings import RedisSettings
from tests.support.certificates import self_signed
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, linked, redis_cluster, redis_server
from workers.fake import FakeSettings, serve_fake

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}

KINDS = (
    *(FrameType, TracebackType, RedisError, RedisUnavailable),
    *(RedisCluster, ClusterNode, SSLContext),
    *(Redis, AbstractConnection, asyncio.StreamReader, hiredis.Reader, RedisConnection, RedisCall),
)
"""What an outage makes: errors with the frames they were raised in, and connections."""


def made() -> Counter[str]:
    """What there is of `KINDS`, a cycle that nobody refers to any more included."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def collector_resting() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what other tests of this run keep
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Scene:
    """A gateway that settles with Redis, and its client."""

    def __init__(self, redis: RedisServer, gateway: RunningGateway, client: httpx.AsyncClient) -> None:
        self.redis, self.gateway, self.client = redis, gateway, client

    async def outage(
        self,
        strike: Callable[[RedisServer], object],
        mend: Callable[[RedisServer], object],
        lasts: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Strike, ask before it is noticed and behind that, wait for `lasts`, mend, and ask again."""
        link, limiter = self.gateway.app.redis, self.gateway.app.limiter
        assert link is not None and limiter is not None
        strike(self.redis)
        await self._ask()
        await eventually(lambda: not link.up)
        await self._ask()
        if lasts is not None:
            await lasts()
        mend(self.redis)
        await eventually(lambda: link.up)
        await self._ask()
        await eventually(lambda: not limiter.live and not limiter.waiting)

    async def _ask(self) -> None:
        answers = await asyncio.gather(*[self.client.post("/v1/chat/completions", json=BODY) for _ in range(3)])
        assert [answer.status_code for answer in answers] == [200, 200, 200]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    settings: dict[str, Any] = {"limits": {"on_failure": "local", "default": {"requests_per_minute": 1_000_000}}}
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        async with running_gateway(node.url, redis=redis.settings, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
                yield Scene(redis, gateway, client)


async def killed(there: Scene) -> None:
    await there.outage(RedisServer.kill, RedisServer.restart)


async def full(there: Scene) -> None:
    """It lasts until a probe is refused too."""

    def fill(redis: RedisServer) -> None:
        redis.do("CONFIG", "RESETSTAT")
        redis.do("CONFIG", "SET", "maxmemory", 1)

    def refused() -> int:
        return int(there.redis.do("INFO", "errorstats").get("errorstat_OOM", {}).get("count", 0))

    async def probed() -> None:
        already = refused()
        await eventually(lambda: refused() > already)

    await there.outage(fill, lambda redis: redis.do("CONFIG", "SET", "maxmemory", 0), probed)


@pytest.mark.parametrize(("outage", "count"), [(killed, 30), (full, 10)])
async def test_outages_leave_nothing(outage: Callable[[Scene], Awaitable[None]], count: int) -> None:
    async with scene() as there:
        for _ in range(2):  # what is made once: pools, caches
            await outage(there)
        with collector_resting():
            before, files, tasks = made(), open_files(), len(asyncio.all_tasks())
            for _ in range(count):
                await outage(there)
            left = made() - before
            assert left.total() < count, left
            assert open_files() - files < count
            assert len(asyncio.all_tasks()) - tasks < count


@asynccontextmanager
async def over_tls(folder: Path) -> AsyncIterator[tuple[RedisServer, RedisClient]]:
    made = self_signed(folder)
    options = ("--tls-cert-file", str(made.cert), "--tls-key-file", str(made.key), "--tls-auth-clients", "no")
    async with redis_server("redis7", *options, tls=True) as redis, linked(redis, ca_file=made.cert) as link:
        yield redis, link


@asynccontextmanager
async def in_a_cluster(folder: Path) -> AsyncIterator[tuple[RedisServer, RedisClient]]:
    async with redis_cluster() as redis, linked(redis) as link:
        yield redis, link


@pytest.mark.parametrize("kind", [over_tls, in_a_cluster])
async def test_probes_of_a_redis_that_stays_away_leave_nothing(kind: Any, tmp_path: Path) -> None:
    async with kind(tmp_path) as (redis, link):
        await eventually(lambda: link.up)
        redis.kill()
        await eventually(lambda: not link.up)
        for _ in range(2):
            await link._probe()
        with collector_resting():
            before, files = made(), open_files()
            for _ in range(20):
                await link._probe()
            assert (made() - before).total() < 20, made() - before
            assert open_files() - files < 20
        redis.restart()
        await eventually(lambda: link.up)


async def test_certificates_that_were_written_anew_are_read(tmp_path: Path) -> None:
    made = self_signed(tmp_path)
    plain = PlainClient(RedisSettings("rediss://127.0.0.1:1", ca_file=made.cert, connect_timeout=1.0))

    async def after_a_probe() -> Any:
        with pytest.raises(RedisError):
            await plain.run(lambda client: client.execute_command("PING"))
        await plain.close(1.0)
        return plain._client

    first = await after_a_probe()
    assert first is not None
    assert await after_a_probe() is first
    os.utime(made.cert, (1, 1))
    assert await after_a_probe() not in (None, first)
