"""A tenant or a key is shut out at once in every gateway, wherever it comes from, and let in again."""

import asyncio
import contextlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from typing import Any

import httpx

from gateway.core.access.api_keys import key_digest, key_id
from tests.flow.test_server_process import PLAIN
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import RedisServer, redis_server

KEYS = {"acme": "fg-acme", "other": "fg-other"}


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    if json.loads(asked.body).get("user") == "slow":
        await asyncio.sleep(3)
    writer.write(answer(PLAIN))


@contextlib.asynccontextmanager
async def two_gateways() -> AsyncIterator[tuple[RunningGateway, RunningGateway, RedisServer]]:
    tenants = [{"name": name, "keys": [{"sha256": key_digest(key).hex()}]} for name, key in KEYS.items()]
    settings: dict[str, Any] = {"tenants": tenants, "access": {"stored": True}}
    async with redis_server() as redis, scripted_node(reply) as node:
        settings["redis"] = redis.settings
        async with running_gateway(node.url, **settings) as one, running_gateway(node.url, **settings) as two:
            yield one, two, redis


async def ask(gateway: RunningGateway, key: str, user: str = "") -> httpx.Response:
    body = {"model": MODEL, "user": user, "messages": [{"role": "user", "content": "x"}]}
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{gateway.url}/v1/chat/completions", json=body, headers={"x-api-key": key})


async def admin(gateway: RunningGateway, path: str, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{gateway.admin_url}/admin/{path}", json=body)


async def comes_to(gateway: RunningGateway, key: str, status: int) -> httpx.Response:
    async with asyncio.timeout(30):
        while (answered := await ask(gateway, key)).status_code != status:
            await asyncio.sleep(0.05)
    return answered


async def test_a_tenant_of_the_file_is_blocked_in_every_gateway_and_let_in_again() -> None:
    async with two_gateways() as (one, two, redis):
        running = asyncio.create_task(ask(one, KEYS["acme"], user="slow"))
        await asyncio.sleep(0.3)
        blocked = await admin(one, "block", tenant="acme", reason="runaway loop")
        assert blocked.status_code == 200
        (told,) = blocked.json()
        assert (told["subject"], told["reason"]) == ("tenant:acme", "runaway loop")
        refused = await ask(one, KEYS["acme"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "blocked")
        assert refused.headers["x-should-retry"] == "false"
        await comes_to(two, KEYS["acme"], 403)
        assert (await ask(two, KEYS["other"])).status_code == 200
        assert (await running).status_code == 200, "what is under way goes on"
        redis.kill()
        assert (await ask(two, KEYS["acme"])).status_code == 403, "what was read last holds"
        redis.restart()
        await comes_to(two, KEYS["acme"], 200)  # it came back empty


async def test_a_key_alone_is_blocked_and_the_audit_has_both() -> None:
    async with two_gateways() as (one, two, _):
        made = (await admin(one, "keys", tenant="acme")).json()
        await comes_to(two, made["key"], 200)
        assert (await admin(one, "block", key=made["id"])).status_code == 200
        await comes_to(two, made["key"], 403)
        assert (await ask(two, KEYS["acme"])).status_code == 200, "another key of the tenant"
        assert (await admin(two, "unblock", key=made["id"])).json() == []
        await comes_to(one, made["key"], 200)
        file_key = key_id(key_digest(KEYS["other"]))
        assert (await admin(one, "block", key=file_key)).status_code == 200
        await comes_to(two, KEYS["other"], 403)
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"{one.admin_url}/admin/audit")).json()
        assert [(line["what"], line["subject"]) for line in lines[:3]] == [
            ("blocked", f"key:{file_key}"),
            ("unblocked", f"key:{made['id']}"),
            ("blocked", f"key:{made['id']}"),
        ]


async def test_what_cannot_be_blocked_is_told() -> None:
    async with two_gateways() as (one, _, _):
        for body, status in (
            ({"tenant": "none"}, 404),
            ({"key": "fg-acme"}, 422),
            ({}, 422),
            ({"tenant": "acme", "key": "key_" + "0" * 16}, 422),
        ):
            assert (await admin(one, "block", **body)).status_code == status, body
        assert (await admin(one, "unblock", tenant="acme")).status_code == 404
    async with scripted_node(reply) as node, running_gateway(node.url) as alone:
        assert (await admin(alone, "block", tenant="default")).status_code == 409
