"""A real vLLM that schedules by priority, and one that does not: both take the classes' priorities."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.core.access.api_keys import key_digest
from tests.real.conftest import ready
from tests.real.killable import KillableNode
from tests.real.processes import running, wait_for
from tests.real.transparency_cases import CHAT, MODEL
from workers.cpu_node import free_port

pytestmark = [pytest.mark.real, pytest.mark.prove]


@contextlib.asynccontextmanager
async def one_at_a_time(folder: Path, config: pytest.Config, policy: str) -> AsyncIterator[str]:
    """A gateway's URL, in front of a node that runs one request at a time: the others wait there."""
    node = KillableNode(folder, config, "--scheduling-policy", policy, "--max-num-seqs", "1")
    node.up()
    try:
        tenants = [
            {"name": name, "service_class": name, "keys": [{"sha256": key_digest(f"fg-{name}").hex()}]}
            for name in ("interactive", "batch")
        ]
        settings = {"nodes": [{"url": node.url}], "tenants": tenants, "queue": {"find_concurrency": False}}
        (folder / "fleetgate.yaml").write_text(yaml.safe_dump(settings))
        log = folder / "gateway.log"
        port, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
        url = f"http://127.0.0.1:{port}"
        command = ["fleetgate", "serve", "-c", str(folder / "fleetgate.yaml"), "--port", str(port)]
        with running([*command, "--admin-port", str(admin)], log) as process:
            wait_for(lambda: ready(url), process, log, 120.0)
            wait_for(lambda: "node_canary_finished" in log.read_text() or None, process, log, 120.0)
            yield url
    finally:
        node.end()


@pytest.mark.parametrize(("policy", "place"), [("priority", 1), ("fcfs", 4)])
async def test_interactive_requests_overtake_in_the_node(
    policy: str, place: int, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    ended: list[str] = []
    async with one_at_a_time(tmp_path, pytestconfig, policy) as url, httpx.AsyncClient(timeout=300) as client:

        async def one(name: str, number: int) -> None:
            body: dict[str, Any] = {"model": MODEL, "max_tokens": 60, "ignore_eos": True}
            body["messages"] = [{"role": "user", "content": f"Count to {number}."}]
            got = await client.post(url + CHAT, json=body, headers={"authorization": f"Bearer fg-{name}"})
            assert got.status_code == 200, got.text
            ended.append(name)

        asking = []
        for number in range(4):
            asking.append(asyncio.create_task(one("batch", number)))
            await asyncio.sleep(0.05)
        asking.append(asyncio.create_task(one("interactive", 4)))
        await asyncio.gather(*asking)
    assert ended.index("interactive") == place, ended
