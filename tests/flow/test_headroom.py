"""What is left of a tenant's limits: by the admin route and in the metrics, with Redis and without it."""

import contextlib
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
import pytest

from gateway.core.access.api_keys import key_digest
from tests.flow.test_server_process import PLAIN
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import redis_server

KEY = "fg-headroom"


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(PLAIN))


@pytest.mark.parametrize("shared", [False, True])
async def test_what_is_left_is_shown_and_looking_takes_nothing(shared: bool) -> None:
    tenant = {
        "name": "acme",
        "keys": [{"sha256": key_digest(KEY).hex()}],
        "limits": {"tokens_per_day": 100, "concurrent_requests": 2},
        "per_model": [{"model": MODEL, "limits": {"tokens_per_day": 50}}],
    }
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(scripted_node(reply))
        settings: dict[str, Any] = {"tenants": [tenant]}
        if shared:
            settings["redis"] = (await stack.enter_async_context(redis_server())).settings
        gateway = await stack.enter_async_context(running_gateway(node.url, **settings))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=30))

        async def left(name: str) -> dict[str, float]:
            found = (await client.get(f"{gateway.admin_url}/admin/limits/{name}")).raise_for_status().json()
            return {each["limit"]: each["left"] for each in found}

        whole = {"tenant.tokens_per_day": 100, "tenant.concurrent_requests": 2, "per_model.tokens_per_day": 50}
        assert await left("acme") == whole
        body = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]}
        for _ in range(2):
            sent = await client.post(f"{gateway.url}/v1/chat/completions", json=body, headers={"x-api-key": KEY})
            assert sent.status_code == 200
        used = 2 * (11 + 7)
        expected = {**whole, "tenant.tokens_per_day": 100 - used, "per_model.tokens_per_day": 50 - used}
        for _ in range(100):  # the last settlement is on its way
            if await left("acme") == expected:
                break
        assert await left("acme") == expected
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
        (line,) = [
            each
            for each in page.splitlines()
            if each.startswith('fleetgate_limit_left_ratio{limit="tokens_per_day",tenant="acme"}')
        ]
        assert 0 < float(line.rpartition(" ")[2]) < 1
        assert (await client.get(f"{gateway.admin_url}/admin/limits/none")).status_code == 404
