"""Limits over several gateways: processes of their own, one tenant, many clients at once."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeSettings, serve_fake

CHAT = "/v1/chat/completions"


def chat(max_tokens: int, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "hello"}]
    return {"model": MODEL, "messages": turns, "max_tokens": max_tokens, "ignore_eos": True, **more}


@contextlib.asynccontextmanager
async def gateways(
    count: int, folder: Path, redis: RedisServer, node: FakeSettings, lease: float = 60.0, **limits: Any
) -> AsyncIterator[list[GatewayProcess]]:
    """Processes that share `redis`, and `limits` for their only tenant."""
    async with contextlib.AsyncExitStack() as stack:
        fake = await stack.enter_async_context(serve_fake(node))
        config = folder / "fleetgate.yaml"
        settings = {
            "nodes": [{"url": fake.url}],
            "budgets": {"canary": False},
            "redis": redis.settings,
            "limits": {"lease": lease, "default": limits},
        }
        config.write_text(json.dumps(settings))
        yield await asyncio.gather(*[stack.enter_async_context(gateway_process("-c", config)) for _ in range(count)])


def field(redis: RedisServer, name: str) -> int:
    value = redis.do("HGET", "fg1:{default}:t", name)
    return 0 if value is None else int(value)


async def test_two_gateways_have_one_number_of_places_and_a_killed_one_keeps_none(tmp_path: Path) -> None:
    """Lease 2 s; the places of the gateway that dies by SIGKILL come back by themselves, those of the other stay."""
    node = FakeSettings(rate=20)
    async with redis_server() as redis, gateways(2, tmp_path, redis, node, lease=2.0, concurrent_requests=6) as two:
        async with httpx.AsyncClient(timeout=60) as client:

            async def hold(gateway: GatewayProcess) -> int:
                try:
                    async with client.stream("POST", gateway.url + CHAT, json=chat(2000, stream=True)) as stream:
                        if stream.status_code == 200:
                            async for _ in stream.aiter_bytes():
                                pass
                        return stream.status_code
                except httpx.TransportError:
                    return 0

            streams = [asyncio.create_task(hold(gateway)) for gateway in two for _ in range(3)]
            await eventually(lambda: field(redis, "live") == 6, 30)
            refused = [await client.post(gateway.url + CHAT, json=chat(1)) for gateway in two]
            assert [answer.status_code for answer in refused] == [429, 429]

            two[0].signal(signal.SIGKILL)
            await two[0].ended()

            async def passes() -> bool:
                return (await client.post(two[1].url + CHAT, json=chat(1))).status_code == 200

            async with asyncio.timeout(20):
                while not await passes():
                    await asyncio.sleep(0.1)
            await eventually(lambda: field(redis, "live") == 3, 30)
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            await eventually(lambda: field(redis, "live") == 0)


async def test_two_gateways_without_redis_admit_the_limit_together(tmp_path: Path) -> None:
    """Each its half, and when Redis is back what was used is settled there."""
    limit = 40
    async with redis_server() as redis, gateways(2, tmp_path, redis, FakeSettings(), requests_per_minute=limit) as two:
        async with httpx.AsyncClient(timeout=60) as client:
            for gateway in two:
                async with asyncio.timeout(20):
                    while "fleetgate_live_gateways 2.0" not in (await client.get(gateway.admin_url + "/metrics")).text:
                        await asyncio.sleep(0.1)
            began = time.monotonic()
            redis.kill()
            answers = await asyncio.gather(
                *[client.post(two[n % 2].url + CHAT, json=chat(1)) for n in range(2 * limit)]
            )
            refilled = limit / 60 * (time.monotonic() - began)
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) == {200, 429}
            passed = statuses.count(200)
            assert limit - 2 <= passed <= limit + refilled + 1
            for half in (statuses[::2], statuses[1::2]):
                assert half.count(200) >= limit // 2 - 1, "neither takes the other's share"

            redis.restart()
            settled = (limit - passed + 1) * 60_000_000

            def left() -> int | None:
                level = redis.do("HGET", "fg1:{default}:t", "rpm")
                return None if level is None else int(level)

            await eventually(lambda: (level := left()) is not None and level <= settled + 5 * limit * 1_000_000, 20)
            for gateway in two:
                assert gateway.events("redis_lost") and not gateway.events("settlements_lost")


@pytest.mark.prove
@pytest.mark.timeout(300)
async def test_four_gateways_and_two_hundred_clients(tmp_path: Path) -> None:
    """For ten seconds 200 clients ask 4 processes as fast as they can. Every request uses what it reserved, so in every
    window of the run what was admitted is at most what the bucket holds and what flows in meanwhile."""
    per_minute, burst, tokens = 60_000, 5, 50
    capacity = per_minute * burst // 60
    admitted: list[tuple[float, float, int]] = []
    refused = 0
    async with redis_server() as redis:
        limits = {"output_tokens_per_minute": per_minute, "burst_seconds": burst}
        async with gateways(4, tmp_path, redis, FakeSettings(), **limits) as four:
            pool = httpx.Limits(max_connections=50, max_keepalive_connections=50)
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=pool))
                    for gateway in four
                ]
                end = time.monotonic() + 10

                async def ask(client: httpx.AsyncClient) -> None:
                    nonlocal refused
                    while (began := time.monotonic()) < end:
                        answer = await client.post(CHAT, json=chat(tokens))
                        if answer.status_code == 200:
                            assert answer.json()["usage"]["completion_tokens"] == tokens
                            admitted.append((began, time.monotonic(), tokens))
                        else:
                            assert answer.status_code == 429
                            refused += 1

                await asyncio.gather(*[ask(client) for client in clients for _ in range(50)])
            worst = _worst_window(admitted, per_minute / 60, capacity)
            total, seconds = sum(item[2] for item in admitted), max(item[1] for item in admitted) - admitted[0][0]
            print(
                f"\nadmitted {total} tokens in {seconds:.2f} s, refused {refused} requests; bound {capacity} + 1000/s;"
            )
            print(f"fullest window: {worst:.3f} of its bound")
            assert refused > 0 and total >= capacity
            assert worst <= 1.0
            await eventually(lambda: _full(redis, capacity, per_minute), 30)


def _worst_window(admitted: list[tuple[float, float, int]], rate: float, capacity: float) -> float:
    """The largest share of its bound that any window admitted. A request counts for a window that surely holds the
    moment of its admission, which lies between its beginning and its end."""
    by_end = sorted(admitted, key=lambda item: item[1])
    worst = 0.0
    for start in sorted({item[0] for item in admitted})[:: max(1, len(admitted) // 300)]:
        total = 0
        for began, ended, tokens in by_end:
            if began >= start:
                total += tokens
                worst = max(worst, total / (capacity + rate * (ended - start)))
    return worst


def _full(redis: RedisServer, capacity: int, per_minute: int) -> bool:
    """Whether the bucket is back at its brim, by what is written down and the time since."""
    level, at = field(redis, "opm"), field(redis, "opm@")
    now_s, now_us = redis.do("TIME")
    return level + (int(now_s) * 1_000_000 + int(now_us) - at) * per_minute >= capacity * 60_000_000


@pytest.mark.prove
async def test_a_hundred_at_once_on_ten_places_of_four_gateways(tmp_path: Path) -> None:
    async with redis_server() as redis:
        async with gateways(4, tmp_path, redis, FakeSettings(rate=10), concurrent_requests=10) as four:
            async with httpx.AsyncClient(timeout=60) as client:
                for _ in range(5):
                    answers = await asyncio.gather(
                        *[client.post(four[n % 4].url + CHAT, json=chat(20)) for n in range(100)]
                    )
                    assert [answer.status_code for answer in answers].count(200) == 10
                    await eventually(lambda: field(redis, "live") == 0)
