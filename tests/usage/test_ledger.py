"""The usage ledger in a real Redis: nothing lost, nothing twice, and bounded."""

from collections.abc import AsyncIterator

import pytest

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.cost import Price
from gateway.core.usage.ledger import DAY, HOUR, UsagePart, UsageSums
from gateway.core.usage.token_usage import Usage
from gateway.redis.client import RedisClient, RedisSettings
from gateway.usage import ledger as module
from gateway.usage.ledger import Ledger, UsageRetention
from gateway.usage.report import UsageReport, total_of
from tests.support.gateways import eventually
from tests.support.redis import Kind, RedisServer, redis_cluster, redis_server

NOW = 1_700_000_000.0
KEPT = UsageRetention(records=100_000, hours=840, days=400)
PRICES = {"m": Price(1.0, 1.0, 2.0)}


def ended(tenant: str | None = "acme", at: float = NOW, model: str = "m") -> RequestStats:
    usage = Usage(10, 5, 3, 2)
    return RequestStats(
        *("r", "chat", tenant, "key_1", model, "n", False, 200, "ok", 1, 9, usage), at=at, ttft=0.1, duration=0.2
    )


def link_to(redis: RedisServer, timeout: float = 1.0) -> RedisClient:
    return RedisClient(RedisSettings(redis.url, cluster=redis.cluster, timeout=timeout, connect_timeout=2.0))


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


async def total(link: RedisClient, tenant: str = "acme", size: int = DAY) -> UsageSums:
    return (await total_of(await UsageReport(link).rows([tenant], NOW - DAY, NOW + DAY, size))).sums


@pytest.mark.parametrize("kind", ["valkey9", "redis7", "cluster"])
async def test_what_is_written_is_read_back(kind: Kind | str) -> None:
    server = redis_cluster() if kind == "cluster" else redis_server("redis7" if kind == "redis7" else "valkey9")
    async with server as redis:
        link = link_to(redis)
        ledger = Ledger(link, KEPT, PRICES)
        for _ in range(450):
            ledger.request_ended(ended())
        ledger.request_ended(ended("other", NOW + HOUR, "free"))
        ledger.request_ended(ended(None))
        assert await ledger.flush()
        assert ledger.waiting == 0
        report = UsageReport(link)
        assert await report.tenants() == ["acme", "other"]
        rows = await report.rows(["acme", "other"], NOW, NOW + 2 * HOUR, HOUR)
        assert [(row.at % HOUR, row.tenant, row.part, row.sums.requests) for row in rows] == [
            (0, "acme", UsagePart("m", "key_1"), 450),
            (0, "other", UsagePart("free", "key_1"), 1),
        ]
        assert await total(link) == UsageSums(450, 0, 4500, 900, 2250, 1350, 0, 450 * 20_000)
        assert (await total(link, "other")).cost == 0
        await link.stop()


async def test_an_outage_loses_nothing_and_counts_nothing_twice(redis: RedisServer) -> None:
    """A frozen Redis takes the batch when it thaws; the gateway, which had no answer, sends it again."""
    link = link_to(redis, timeout=0.5)
    await link.start()
    ledger = Ledger(link, KEPT, PRICES)
    ledger.start()
    ledger.request_ended(ended())
    await eventually(lambda: ledger.waiting == 0)
    redis.freeze()
    for _ in range(300):
        ledger.request_ended(ended())
    await eventually(lambda: not link.up)
    assert ledger.waiting == 300
    redis.thaw()
    await eventually(lambda: link.up and ledger.waiting == 0)
    assert (await total(link)).requests == 301
    with redis.client() as client:
        assert client.xlen("fg1:{usage}:records") == 301
    await ledger.stop()
    await link.stop()


async def test_a_batch_that_is_sent_twice_counts_once(redis: RedisServer) -> None:
    link = link_to(redis)
    ledger = Ledger(link, KEPT, PRICES)
    ledger.request_ended(ended())
    batch = ledger._next_batch()
    assert batch is not None
    for _ in range(3):
        await ledger._write(batch)
    assert (await total(link)).requests == 1
    await link.stop()


async def test_the_end_of_the_gateway_writes_what_waits(redis: RedisServer) -> None:
    link = link_to(redis)
    ledger = Ledger(link, KEPT, PRICES)
    ledger.start()
    for _ in range(5):
        ledger.request_ended(ended())
    await ledger.stop()
    assert (await total(link)).requests == 5
    await link.stop()


async def test_beyond_the_bound_records_are_dropped_and_counted_but_sums_are_whole(redis: RedisServer) -> None:
    link = link_to(redis)
    ledger = Ledger(link, KEPT, PRICES)
    for _ in range(module.MAX_WAITING + 10):
        ledger.request_ended(ended())
    assert (ledger.waiting, ledger.dropped) == (module.MAX_WAITING, 10)
    assert await ledger.flush()
    assert (await total(link)).requests == module.MAX_WAITING + 10
    with redis.client() as client:
        assert client.xlen("fg1:{usage}:records") == module.MAX_WAITING
    await link.stop()


async def test_what_is_kept_is_bounded(redis: RedisServer) -> None:
    link = link_to(redis)
    ledger = Ledger(link, UsageRetention(records=100, hours=2, days=3), PRICES)
    for _ in range(1000):
        ledger.request_ended(ended())
    assert await ledger.flush()
    with redis.client() as client:
        assert client.xlen("fg1:{usage}:records") <= 300, "about 100: streams are cut in blocks"
        hours = client.ttl(f"fg1:{{usage}}:h:{int(NOW // HOUR)}:acme")
        days = client.ttl(f"fg1:{{usage}}:d:{int(NOW // DAY)}:acme")
    assert 2 * HOUR - 60 < hours <= 2 * HOUR and 3 * DAY - 60 < days <= 3 * DAY
    await link.stop()


async def test_a_redis_that_forgot_the_script_is_told_it_again(redis: RedisServer) -> None:
    link = link_to(redis)
    ledger = Ledger(link, KEPT, PRICES)
    for _ in range(2):
        ledger.request_ended(ended())
        assert await ledger.flush()
        redis.forget_scripts()
    assert (await total(link)).requests == 2
    await link.stop()


async def test_a_key_of_another_type_stops_only_what_belongs_there_and_counts_once_when_it_is_gone(
    redis: RedisServer,
) -> None:
    link = link_to(redis, timeout=5.0)
    ledger = Ledger(link, KEPT, PRICES)
    broken = f"fg1:{{usage}}:h:{int(NOW // HOUR)}:acme"
    redis.do("SET", broken, "not a hash")
    for _ in range(3):
        for tenant in ("acme", "other"):
            for _ in range(250):
                ledger.request_ended(ended(tenant))
        assert not await ledger.flush(), "a part of it waits"
        assert ledger.waiting == 0, "the records are written"
    assert (await total(link, "other", HOUR)).requests == 750
    assert (await total(link, "acme", DAY)).requests == 750
    assert [str(told) for told in link.refusals.standing.values() if "WRONGTYPE" in told.reason]
    redis.do("DEL", broken)
    assert await ledger.flush()
    assert (await total(link, "acme", HOUR)).requests == (await total(link, "acme", DAY)).requests == 750
    with redis.client() as client:
        assert client.xlen("fg1:{usage}:records") == 1500
    assert ledger.dropped == 0 and not link.refusals.standing
    await link.stop()
