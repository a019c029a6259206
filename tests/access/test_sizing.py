"""What a tenant costs in Redis: the figures of docs/redis.md.

pytest -m prove -s tests/access/test_sizing.py
"""

from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections import Counter
from typing import Any

import httpx
import pytest

from gateway.access.directory import Directory
from gateway.access.new_keys import make_key
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import RedisServer, redis_server

TENANTS = 300
LIMITS = {
    "requests_per_minute": 600,
    "input_tokens_per_minute": 1_000_000,
    "output_tokens_per_minute": 100_000,
    "tokens_per_minute": 1_000_000,
    "reasoning_tokens_per_minute": 100_000,
    "concurrent_requests": 50,
    "tokens_per_day": 100_000_000,
    "usd_per_day": 100,
    "usd_per_month": 1000,
}
PARTS = {
    "tenant and key": "fg1:{access}:[tku]*",
    "audit line": "fg1:{access}:audit",
    "usage record": "fg1:{usage}:records",
    "usage, an hour of one model and key": "fg1:{usage}:h:*",
    "usage, a day of one model and key": "fg1:{usage}:d:*",
}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b'{"usage":{"prompt_tokens":1000,"completion_tokens":200}}'))


def bytes_of(redis: RedisServer, pattern: str) -> int:
    with redis.client() as client:
        return sum(client.memory_usage(name, samples=0) or 0 for name in client.scan_iter(pattern))


@pytest.mark.prove
async def test_bytes_per_tenant() -> None:
    settings: dict[str, Any] = {
        "access": {"stored": True},
        "models": [{"name": MODEL, "price": {"input": 1, "output": 2}}],
    }
    async with scripted_node(plain) as node, redis_server() as redis:
        async with running_gateway(node.url, redis=redis.settings, **settings) as gateway:
            assert gateway.app.redis is not None and gateway.app.ledger is not None
            directory = Directory(gateway.app.redis, 10_000)
            async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
                for number in range(TENANTS):
                    name = f"tenant-{number:04}"
                    await directory.create_tenant("test", name, {"limits": LIMITS})
                    key, digest = make_key()
                    await directory.create_key("test", name, bytes.fromhex(digest), {"label": "one"}, in_file=False)
                    headers = {"authorization": f"Bearer {key}"}
                    got = await client.post("/v1/chat/completions", json={"model": MODEL}, headers=headers)
                    assert got.status_code == 200
            ledger = gateway.app.ledger
            await eventually(lambda: ledger.waiting == 0)
            found = Counter({part: bytes_of(redis, pattern) for part, pattern in PARTS.items()})
            found["audit line"] //= 2  # two changes for each tenant
            everything = bytes_of(redis, "fg1:*")
            found["all limits of a tenant"] = everything - sum(bytes_of(redis, p) for p in PARTS.values())
    for part, size in found.items():
        print(f"{part}: {size / TENANTS:.0f} bytes")
    assert all(0 < size / TENANTS < 4096 for size in found.values())
