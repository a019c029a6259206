"""A gateway that serves as the Redis user of docs/redis.md: it needs no further command, and so asks for none."""

import hashlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.gateway_process import gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import Kind, redis_server
from tests.support.rights import documented, give

RIGHTS = documented("rights")
TOKEN = "the-admin-token-of-a-test"
OPTIONAL = {b"client|setname", b"client|setinfo"}
"""What the page lists as optional: both only name a connection, and nothing comes of their refusal."""
KEY = "a-key-of-the-file-000001"
BODY = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


async def node_reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    writer.write(
        answer(
            json.dumps(
                {"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}
            ).encode()
        )
    )


@pytest.mark.parametrize("kind", ["valkey9", "redis7"])
async def test_a_gateway_needs_no_command_that_the_page_does_not_list(kind: Kind, tmp_path: Path) -> None:
    async with redis_server(kind) as redis, scripted_node(node_reply) as node, scripted_node(node_reply) as other:
        config = {
            "nodes": [{"url": each.url, "max_concurrency": 4} for each in (node, other)],
            "redis": {"url": give(redis, "gate", RIGHTS), "timeout": 5, "connect_timeout": 5},
            "admin": {"token": TOKEN},
            "access": {"stored": True},
            "pressure": {"enabled": True},
            "discovery": {"registrations": {"networks": ["10.0.0.0/8"]}},
            "tenants": [
                {
                    "name": "acme",
                    "keys": [{"sha256": hashlib.sha256(KEY.encode()).hexdigest()}],
                    "limits": {"requests_per_minute": 2, "usd_per_day": 5, "concurrent_requests": 9},
                }
            ],
        }
        file = tmp_path / "fleetgate.yaml"
        file.write_text(yaml.safe_dump(config))
        async with gateway_process("-c", file) as gateway, httpx.AsyncClient(timeout=30) as client:

            async def asked(key: str) -> httpx.Response:
                url = f"{gateway.url}/v1/chat/completions"
                return await client.post(url, json=BODY, headers={"authorization": f"Bearer {key}"})

            async def admin(method: str, path: str, **body: object) -> object:
                headers = {"authorization": f"Bearer {TOKEN}"}
                answered = await client.request(
                    method, f"{gateway.admin_url}/admin/{path}", json=body or None, headers=headers
                )
                assert answered.is_success, (path, answered.text)
                return answered.json()

            assert [(await asked(KEY)).status_code for _ in range(3)] == [200, 200, 429]
            await admin("POST", "tenants", name="made")
            made = await admin("POST", "keys", tenant="made")
            assert isinstance(made, dict)
            served = await asked(made["key"])
            assert served.status_code == 200
            request_id = served.headers["x-request-id"]
            await eventually(lambda: bool(redis.do("KEYS", "fg1:*usage*")))
            await admin("POST", f"keys/{made['id']}/rotate")
            await admin("POST", "block", tenant="made")
            await admin("POST", "unblock", tenant="made")
            await admin("GET", "limits/acme")
            await admin("GET", "fleet")
            await admin("POST", "drain", node=node.url.partition("://")[2], deadline=1)
            await admin("POST", "undrain", node=node.url.partition("://")[2])
            await admin("DELETE", "tenants/made")
            for path in ("usage", "audit", "tenants", "keys", "blocks", f"requests/{request_id}"):
                await admin("GET", path)
            assert gateway.events("redis_refused") == []
            refused = {each[b"object"] for each in redis.do("ACL", "LOG")}
            assert refused <= OPTIONAL
