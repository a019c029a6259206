"""Reports do not hold up clients: they have a connection of their own, and read in small pieces."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.access.audit import PAGE, Audit, AuditEvent
from gateway.fleet.fleet import Fleet
from gateway.fleet.peer_views import PeerViews
from gateway.redis.client import RedisClient, RedisSettings
from gateway.usage.report import AT_ONCE, FIELDS
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from tests.support.resp import RespProxy, resp_proxy
from workers.fake import FakeSettings, serve_fake

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
MEASURES = ("requests", "errors", "input", "cached", "output", "thinking", "wasted", "cost")
HOURS, KEYS = 24, 500
OPERATORS = (b"HSCAN", b"SMEMBERS", b"XREVRANGE")
"""What listings, reports and audits ask; the ring of keys scans too, at its start only."""


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[tuple[RunningGateway, RedisServer, RespProxy, httpx.AsyncClient, httpx.AsyncClient]]:
    async with redis_server() as redis, resp_proxy(redis) as proxy, serve_fake(FakeSettings()) as node:
        more: dict[str, Any] = {
            "redis": {**redis.settings, "url": proxy.url},
            "limits": {"on_failure": "closed", "default": {"requests_per_minute": 100_000}},
        }
        async with running_gateway(node.url, **more) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=60) as admin:
                    yield gateway, redis, proxy, client, admin


async def test_a_report_that_hangs_is_no_outage_and_limits_nobody_locally() -> None:
    async with house() as (gateway, _, proxy, client, admin):
        hangs, asked = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            asked.set()
            await hangs.wait()

        proxy.meanwhile = lambda command: hang() if command[0] in OPERATORS else None
        reports = [asyncio.create_task(admin.get(f"/admin/{what}")) for what in ("usage", "audit")]
        await asked.wait()
        link: Any = gateway.app.redis
        answers = 0
        while not all(report.done() for report in reports):  # `on_failure` is closed: only Redis lets requests pass
            assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
            answers += 1
        assert {(await report).status_code for report in reports} == {503}
        assert answers > 10 and (link.up, link.outages, link.refusals.count) == (True, 0, 0)
        hangs.set()
        proxy.meanwhile = None
        assert (await admin.get("/admin/usage")).status_code == 200


async def test_a_large_report_is_read_in_small_pieces_and_requests_go_on() -> None:
    async with house() as (gateway, redis, proxy, client, admin):
        now = int(time.time()) // 3600
        with redis.client() as straight:
            straight.sadd("fg1:{usage}:tenants", "acme")
            for hour in range(now - HOURS, now):
                fields = {f"m key_{key} {measure}": 2 for key in range(KEYS) for measure in MEASURES}
                straight.hset(f"fg1:{{usage}}:h:{hour}:acme", mapping=fields)
        proxy.asked.clear()
        since = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime((now - HOURS) * 3600))
        asking = asyncio.create_task(admin.get("/admin/usage", params={"since": since, "per": "hour", "by": "key"}))
        answers = 0
        while not asking.done():
            assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
            answers += 1
        told = (await asking).json()
        rows = {row["key"]: row["requests"] for row in told["rows"] if row["key"] != "-"}
        assert rows == {f"key_{key}": 2 * HOURS for key in range(KEYS)}
        assert told["total"]["input"] >= 2 * HOURS * KEYS
        scans = [command for command in proxy.asked if command[0] == b"HSCAN"]
        pages = KEYS * len(MEASURES) // FIELDS
        assert len(scans) > HOURS * pages and {command[4] for command in scans} == {str(FIELDS).encode()}
        assert not [command for command in proxy.asked if command[0] == b"HGETALL" and b"usage" in command[1]]
        link: Any = gateway.app.redis
        assert answers >= HOURS // AT_ONCE and (link.up, link.outages) == (True, 0)


async def test_views_of_the_fleet_that_hang_are_no_outage() -> None:
    async with redis_server() as redis, resp_proxy(redis) as proxy:
        link = RedisClient(RedisSettings(proxy.url, timeout=5.0, connect_timeout=5.0))
        await link.start()
        hangs = asyncio.Event()

        async def hang() -> None:
            await hangs.wait()

        proxy.meanwhile = lambda command: hang() if b"sights" in b"".join(command) else None
        fleet = Fleet()
        fleet.share_with(2)
        asking = asyncio.create_task(PeerViews(fleet, link, None).exchange({}))
        try:
            while not asking.done():
                assert await link.submit(("GET", "fg1:none")) is None
                await asyncio.sleep(0.01)
            assert await asking == [] and (link.up, link.outages) == (True, 0)
        finally:
            hangs.set()
            asking.cancel()
            await link.stop()


async def test_the_audit_is_read_page_by_page() -> None:
    async with house() as (gateway, _, proxy, _, admin):
        assert gateway.app.redis is not None
        audit = Audit(gateway.app.redis, 10_000)
        for number in range(2 * PAGE + 5):
            await audit.note(AuditEvent("who", "key created", str(number), {}))
        proxy.asked.clear()
        subjects = [line["subject"] for line in (await admin.get("/admin/audit", params={"limit": 10_000})).json()]
        assert subjects == [str(number) for number in reversed(range(2 * PAGE + 5))]
        asked = [int(command[5]) for command in proxy.asked if command[0] == b"XREVRANGE"]
        assert asked == [PAGE] * 3
        newest = (await admin.get("/admin/audit", params={"limit": PAGE + 1})).json()
        assert [line["subject"] for line in newest] == subjects[: PAGE + 1]


@pytest.mark.prove
async def test_a_question_with_too_many_rows_is_refused_with_words() -> None:
    async with house() as (_, redis, _, _, admin):
        now = int(time.time()) // 3600
        redis.do("SADD", "fg1:{usage}:tenants", "acme")
        redis.do(
            "EVAL",
            "for hour = 1, 6 do for key = 1, 9000 do "
            "redis.call('HSET', ARGV[1] .. (ARGV[2] - hour) .. ':acme', 'm key_' .. key .. ' requests', 1) end end",
            *(0, "fg1:{usage}:h:", now),
        )
        since = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime((now - 7) * 3600))
        asked = {"since": since, "per": "hour", "by": ["time", "key"]}
        refused = await admin.get("/admin/usage", params=asked)
        assert refused.status_code == 422 and "fewer columns to group by" in refused.text
        summed = await admin.get("/admin/usage", params={**asked, "by": "model"})
        assert summed.json()["total"]["requests"] == 54_000


async def test_a_report_of_a_redis_that_is_gone_says_so() -> None:
    async with house() as (gateway, redis, _, _, admin):
        redis.kill()
        await eventually(lambda: gateway.app.redis is not None and not gateway.app.redis.up)
        assert (await admin.get("/admin/usage")).status_code == 503
