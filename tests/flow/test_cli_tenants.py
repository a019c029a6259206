"""The command line as an operator uses it, against gateways that are processes of their own, with a real Redis."""

import asyncio
import json
import os
import re
import signal
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from anthropic import AsyncAnthropic, AuthenticationError
from openai import AsyncOpenAI
from openai import AuthenticationError as OpenAIAuthenticationError

from tests.support.gateway_process import FLEETGATE, GatewayProcess, gateway_process
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import RedisServer, redis_server

TOKEN = "the-admin-token"
CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1000, "output_tokens": 100},
}


async def node_reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(json.dumps(MESSAGE if asked.path == "/v1/messages" else CHAT).encode()))


@dataclass
class Fleet:
    """Two gateways that share a Redis, and what an operator types."""

    gateways: list[GatewayProcess]
    redis: RedisServer

    async def run(self, *words: str, status: int = 0, gateway: int = 0, token: str = TOKEN) -> str:
        """What the command says: its standard output, or its standard error where it is to fail."""
        process = await asyncio.create_subprocess_exec(
            FLEETGATE,
            *(*words, "--admin", self.gateways[gateway].admin_url),
            env={**os.environ, "FLEETGATE_ADMIN__TOKEN": token, "COLUMNS": "200"},
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == status, (out, err)
        assert b"Traceback" not in err
        return (err if status else out).decode().strip()

    async def made(self, path: str, gateway: int = 0, **body: Any) -> Any:
        """What the commands do, without the second that each process takes."""
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=20) as admin:
            return (await admin.post(f"{self.gateways[gateway].admin_url}/admin/{path}", json=body)).json()

    async def status(self, key: str, gateway: int = 0) -> int:
        async with httpx.AsyncClient(timeout=20) as client:
            headers = {"authorization": f"Bearer {key}"}
            url = f"{self.gateways[gateway].url}/v1/chat/completions"
            return (await client.post(url, json={"model": MODEL}, headers=headers)).status_code

    async def comes_to(self, key: str, status: int, gateway: int) -> float:
        """Seconds until a request with `key` has that answer."""
        began = time.monotonic()
        async with asyncio.timeout(20):
            while await self.status(key, gateway) != status:
                await asyncio.sleep(0.02)
        return time.monotonic() - began


@asynccontextmanager
async def fleet(folder: Path, gateways: int = 2) -> AsyncIterator[Fleet]:
    async with redis_server() as redis, scripted_node(node_reply) as node:
        file = folder / "fleetgate.yaml"
        settings: dict[str, Any] = {
            "nodes": [{"url": node.url}],
            "models": [{"name": MODEL, "price": {"input": 1.0, "output": 10.0}}],
            "redis": redis.settings,
            "access": {"stored": True},
            "admin": {"token": TOKEN},
        }
        file.write_text(yaml.safe_dump(settings))
        async with gateway_process("-c", file) as one:
            if gateways == 1:
                yield Fleet([one], redis)
                return
            async with gateway_process("-c", file) as two:
                yield Fleet([one, two], redis)


async def test_from_a_tenant_to_its_bill(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as at, AsyncExitStack() as clients:
        await at.run("tenants", "create", "acme", "limits.requests_per_minute=600", "cache_salt=true")
        assert "cache_salt: true, limits.requests_per_minute: 600" in await at.run("tenants", "list")
        assert "not a setting" in await at.run("tenants", "create", "b", "limits.request_per_minute=1", status=1)
        key = await at.run("keys", "create", "acme", "--label", "Ada's laptop", "--expires", "30d")
        url = at.gateways[0].url
        openai = await clients.enter_async_context(AsyncOpenAI(base_url=f"{url}/v1", api_key=key))
        anthropic = await clients.enter_async_context(AsyncAnthropic(base_url=url, api_key=key))
        hello: Any = [{"role": "user", "content": "hello"}]
        chat = await openai.chat.completions.create(model=MODEL, messages=hello)
        message = await anthropic.messages.create(model=MODEL, messages=hello, max_tokens=100)
        assert chat.choices[0].message.content == "hi"
        assert message.content[0].type == "text" and message.content[0].text == "hi"
        used = await _usage(at, requests=2)
        assert used["total"] | {"cost_usd": 0} == used["rows"][0] | {"cost_usd": 0, "tenant": None, "model": None}
        assert (used["total"]["input"], used["total"]["output"]) == (2000, 200)
        assert used["total"]["cost_usd"] == pytest.approx(0.004)
        lines = (await at.run("usage", "--csv", "--by", "tenant,model")).splitlines()
        assert lines[0].startswith("tenant,model,requests") and lines[1].startswith(f"acme,{MODEL},2,0,2000,0,200,")
        listed = json.loads(await at.run("keys", "list", "--json"))
        assert [(one["label"], one["state"]) for one in listed] == [("Ada's laptop", "active")]
        await at.run("keys", "revoke", listed[0]["id"])
        await at.comes_to(key, 401, 0)
        with pytest.raises(OpenAIAuthenticationError):
            await openai.chat.completions.create(model=MODEL, messages=hello)
        with pytest.raises(AuthenticationError):
            await anthropic.messages.create(model=MODEL, messages=hello, max_tokens=100)
        audit = await at.run("audit")
        assert all(what in audit for what in ("tenant created", "key created", "key revoked"))
        assert "admin@127.0.0.1" in audit and key not in audit
        assert at.gateways[0].events("admin_change")[0]["what"] == "tenant created"
        assert "token" in await at.run("audit", status=1, token="wrong")


async def test_a_key_that_is_revoked_on_one_gateway_is_refused_on_the_other(tmp_path: Path) -> None:
    async with fleet(tmp_path) as at:
        await at.made("tenants", name="acme")
        made = await at.made("keys", tenant="acme")
        assert await at.status(made["key"], 0) == await at.status(made["key"], 1) == 200
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as admin:
            await admin.delete(f"{at.gateways[0].admin_url}/admin/keys/{made['id']}")
        await at.comes_to(made["key"], 401, 1)
        # Rotated on the second: the first knows the new key at once, and the end of the old one in time.
        old = await at.made("keys", 1, tenant="acme")
        assert await at.status(old["key"], 0) == 200
        new = await at.made(f"keys/{old['id']}/rotate", 1, grace_seconds=0)
        assert await at.status(new["key"], 0) == 200
        await at.comes_to(old["key"], 401, 0)


@pytest.mark.prove
async def test_revocations_are_known_everywhere_within_two_seconds(tmp_path: Path) -> None:
    """Twenty keys, revoked on one gateway; the slowest that the other still let in."""
    async with fleet(tmp_path) as at:
        await at.made("tenants", name="acme")
        slowest = 0.0
        for _ in range(20):
            made = await at.made("keys", tenant="acme")
            assert await at.status(made["key"], 1) == 200
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as admin:
                await admin.delete(f"{at.gateways[0].admin_url}/admin/keys/{made['id']}")
            slowest = max(slowest, await at.comes_to(made["key"], 401, 1))
        print(f"slowest revocation: {slowest:.2f} s")
        assert slowest < 2


async def test_a_gateway_that_is_killed_takes_no_key_with_it_and_little_usage(tmp_path: Path) -> None:
    """Records wait a second at the most; what was written is there, and a gateway that ends well writes all."""
    async with fleet(tmp_path) as at:
        await at.made("tenants", name="acme")
        key = (await at.made("keys", tenant="acme"))["key"]
        for _ in range(5):
            assert await at.status(key, 0) == 200
        await _usage(at, requests=5, gateway=1)
        at.gateways[0].signal(signal.SIGKILL)
        await at.gateways[0].ended()
        assert await at.status(key, 1) == 200
        at.gateways[1].signal(signal.SIGTERM)
        await at.gateways[1].ended()
        with at.redis.client() as client:
            (bucket,) = client.keys("fg1:{usage}:d:*:acme")
            sums = {name.decode().split(" ")[2]: int(value) for name, value in client.hgetall(bucket).items()}
        assert sums["requests"] == 6


async def test_a_frozen_redis_stops_no_known_key_and_is_told(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as at:
        await at.made("tenants", name="acme")
        key = (await at.made("keys", tenant="acme"))["key"]
        assert await at.status(key) == 200
        at.redis.freeze()
        assert await at.status(key) == 200
        assert "Redis" in await at.run("keys", "create", "acme", status=1)
        assert await at.status(key) == 200
        at.redis.thaw()
        await _usage(at, requests=3)


async def test_without_redis_the_audit_says_where_changes_are() -> None:
    async with scripted_node(node_reply) as node, gateway_process("--node", node.url) as gateway:
        process = await asyncio.create_subprocess_exec(
            FLEETGATE, "audit", "--admin", gateway.admin_url, stdout=PIPE, stderr=PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0 and b"the log alone: `admin_change`" in err


async def test_what_is_left_of_a_tenants_limits(tmp_path: Path) -> None:
    """Looking takes nothing."""
    async with fleet(tmp_path, 1) as at:
        limits = {"requests_per_minute": 100, "usd_per_day": 1.0, "concurrent_requests": 3}
        of_model = {"model": MODEL, "limits": {"tokens_per_day": 5000}}
        await at.made("tenants", name="acme", limits=limits, per_model=[of_model])
        key = (await at.made("keys", tenant="acme"))["key"]
        assert await at.status(key) == 200
        await _usage(at, requests=1)
        for _ in range(3):
            found = {each["limit"]: each for each in json.loads(await at.run("tenants", "limits", "acme", "--json"))}
            assert {name: each["of"] for name, each in found.items()} == {
                "tenant.requests_per_minute": 100,
                "tenant.usd_per_day": 1.0,
                "tenant.concurrent_requests": 3,
                "per_model.tokens_per_day": 5000,
            }
            assert 99 <= found["tenant.requests_per_minute"]["left"] <= 100
            assert found["tenant.usd_per_day"]["left"] == pytest.approx(1.0 - 0.002)
            assert found["tenant.concurrent_requests"]["left"] == 3
            assert (found["per_model.tokens_per_day"]["left"], found["per_model.tokens_per_day"]["model"]) == (
                3900,
                MODEL,
            )
        assert "78%" in await at.run("tenants", "limits", "acme")
        assert "Unknown tenant 'none'" in await at.run("tenants", "limits", "none", status=1)


async def test_a_request_is_found_by_its_id(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as at:
        key = (await at.made("tenants", name="acme")) and (await at.made("keys", tenant="acme"))["key"]
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}", "x-request-id": "mine-1"}) as client:
            for model in (MODEL, "none"):
                answer = await client.post(f"{at.gateways[0].url}/v1/chat/completions", json={"model": model})
        sent = answer.headers["x-request-id"]
        await _usage(at, requests=2)
        found = json.loads(await at.run("request", sent, "--json"))
        assert [(each["status"], each["tenant"]) for each in found] == [(404, "acme"), (200, "acme")], "newest first"
        assert (found[1]["input"], found[1]["output"]) == (1000, 100)
        told = await at.run("request", sent)
        assert "acme" in told and "1,000 tokens" in told and " UTC" in told and "0.002000 US dollars" in told
        assert re.search(r"duration +[0-9.]+ s\b", told), told
        assert "No record of 'req_none'" in await at.run("request", "req_none", status=1)


async def _usage(at: Fleet, requests: int, gateway: int = 0) -> Any:
    """The usage as soon as so many requests are in it."""
    async with asyncio.timeout(20):
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as admin:
            while True:
                found = (await admin.get(f"{at.gateways[gateway].admin_url}/admin/usage")).json()
                if found.get("total", {}).get("requests") == requests:
                    return found
                await asyncio.sleep(0.05)
