"""One console over several processes: it sees the requests of all of them, ends them wherever they run, and adds up."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.console.chromium import TOKEN
from tests.console.operators import Seen, operator, watching
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.gateways import eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import FakeSettings, serve_fake

CHAT: dict[str, Any] = {
    "model": "nemotron-3-ultra",
    "stream": True,
    "messages": [{"role": "user", "content": "x"}],
}
SLOW = FakeSettings(rate=20, thinking_tokens=300, answer_tokens=300)


async def ask(url: str, **fields: Any) -> str:
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        return (await client.post(f"{url}/v1/chat/completions", json={**CHAT, **fields})).text


async def end_all(client: httpx.AsyncClient, seen: Seen, count: int) -> set[str]:
    """End every request that a console sees, once it sees `count`; the names of the processes that had them."""
    await eventually(lambda: len(seen.tables.get("requests", {})) == count)
    rows = list(seen.tables["requests"].values())
    for row in rows:
        got = await client.delete(f"/admin/requests/{row['id']}")
        assert got.status_code == 200, got.text
    return {row["process"] for row in rows}


async def test_two_gateways_on_one_redis() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(serve_fake(SLOW))
        redis = await stack.enter_async_context(redis_server())
        settings: dict[str, Any] = {"redis": redis.settings, "admin": {"token": TOKEN, "hosts": []}}
        one = await stack.enter_async_context(running_gateway(node.url, **settings))
        two = await stack.enter_async_context(running_gateway(node.url, **settings))
        await eventually(lambda: one.app.fleet.gateways == two.app.fleet.gateways == 2)
        client = await stack.enter_async_context(operator(one.admin_url))
        seen = await stack.enter_async_context(watching(client))
        short = await asyncio.gather(*(ask(each.url, max_tokens=3) for each in (one, two)))
        assert all("[DONE]" in text for text in short)
        await eventually(lambda: seen.steps and seen.total("requests") == 2)
        assert seen.tables["tenants"]["default"]["requests"] in (0, 2)
        tasks = [asyncio.create_task(ask(each.url)) for each in (one, two)]
        assert len(await end_all(client, seen, 2)) == 2
        assert all("ended_by_operator" in text for text in await asyncio.gather(*tasks))
        assert seen.facts["gateways"] == 2
        lines = (await client.get("/admin/audit")).json()
        assert [line["what"] for line in lines] == ["request ended"] * 2
        assert {line["who"] for line in lines} == {"Ada (admin)@127.0.0.1"}
        await eventually(lambda: not seen.tables["requests"])


@pytest.mark.timeout(240)
async def test_two_workers_of_one_gateway(tmp_path: Path) -> None:
    async with serve_fake(SLOW) as node:
        command = ("--node", node.url, "--workers", "2")
        async with gateway_process(*command, FLEETGATE_ADMIN__TOKEN=TOKEN) as gateway:
            await _both_know(gateway, 2)
            async with operator(gateway.admin_url) as client, watching(client) as seen:
                tasks = [asyncio.create_task(ask(gateway.url)) for _ in range(12)]
                processes = await end_all(client, seen, 12)
                assert len(processes) == 2, "the kernel spreads connections over both"
                texts = await asyncio.gather(*tasks)
                assert all("ended_by_operator" in text for text in texts)
                await eventually(lambda: seen.total("requests") == 12)


async def _both_know(gateway: GatewayProcess, workers: int) -> None:
    await eventually(lambda: len(gateway.events("node_ready")) >= workers)
