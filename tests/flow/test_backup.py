"""docs/upgrade.md: what a backup of Redis brings back, and that a restored Redis needs no restart of gateways."""

import asyncio
import shutil
from asyncio.subprocess import DEVNULL
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.fake_process import fake_process
from tests.support.gateway_process import gateway_process
from tests.support.redis import redis_server

TOKEN = "the-admin-token-of-a-test"


async def test_a_backup_brings_back_tenants_and_keys(tmp_path: Path) -> None:
    """A key revoked since the backup is valid again, and one made since is gone, as the page says."""
    if shutil.which("redis-cli") is None:
        pytest.skip("there is no redis-cli on this machine")
    async with redis_server("redis7") as redis, fake_process() as node:
        config = {
            "nodes": [{"url": node.url}],
            "redis": redis.settings,
            "access": {"stored": True, "wrong_keys_per_minute": 100_000},
            "admin": {"token": TOKEN},
        }
        file = tmp_path / "fleetgate.yaml"
        file.write_text(yaml.safe_dump(config))
        async with gateway_process("-c", file) as gateway, httpx.AsyncClient(timeout=30) as client:
            admin = {"authorization": f"Bearer {TOKEN}"}

            async def make(path: str, **body: str) -> dict[str, str]:
                answered = await client.post(f"{gateway.admin_url}/admin/{path}", json=body, headers=admin)
                assert answered.status_code == 201, answered.text
                made: dict[str, str] = answered.json()
                return made

            async def status(key: str) -> int:
                headers = {"authorization": f"Bearer {key}"}
                return (await client.get(f"{gateway.url}/v1/models", headers=headers)).status_code

            async def becomes(key: str, expected: int) -> None:
                while await status(key) != expected:
                    await asyncio.sleep(0.05)

            await make("tenants", name="acme")
            kept, revoked = await make("keys", tenant="acme"), await make("keys", tenant="acme")
            backup = redis.folder / "dump.rdb"
            copied = await asyncio.create_subprocess_exec("redis-cli", "-u", redis.url, "--rdb", backup, stderr=DEVNULL)
            assert await copied.wait() == 0 and backup.exists()
            late = await make("keys", tenant="acme")
            gone = await client.delete(f"{gateway.admin_url}/admin/keys/{revoked['id']}", headers=admin)
            assert gone.status_code == 200
            await becomes(revoked["key"], 401)
            redis.kill()
            redis.restart()
            await becomes(revoked["key"], 200)
            await becomes(late["key"], 401)
            assert await status(kept["key"]) == 200
