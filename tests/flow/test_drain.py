"""Drains: no new work, what runs may finish, a deadline ends the rest clearly, and every process knows."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.crowd import crowd, lost
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateway_process import gateway_process
from tests.support.gateways import RunningGateway, eventually
from tests.support.redis import redis_server
from workers.fake import FakeNode, FakeSettings, serve_fake

CHATS = "/v1/chat/completions"
PACED = FakeSettings(rate=50, answer_tokens=30)
ENDLESS = FakeSettings(rate=20, answer_tokens=4000)
IN_TURN = {"policy": "round_robin"}
"""Each node has its half."""
FLEETGATE = Path(sys.executable).parent / "fleetgate"


async def admin(gateway: RunningGateway, path: str, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(gateway.admin_url + path, json=body)


async def fleetgate(*arguments: str) -> tuple[int, str]:
    """The command as an operator types it: exit status and all it said."""
    process = await asyncio.create_subprocess_exec(
        FLEETGATE,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@asynccontextmanager
async def two_nodes(settings: FakeSettings, **config: Any) -> AsyncIterator[tuple[FakeNode, FakeNode, RunningGateway]]:
    async with serve_fake(settings) as a, serve_fake(settings) as b:
        async with limited_gateway(a.url, b.url, routing=IN_TURN, **config) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            yield a, b, gateway


async def test_a_drained_node_finishes_what_it_has_and_gets_nothing_new() -> None:
    async with two_nodes(PACED) as (a, b, gateway):
        asking = asyncio.create_task(crowd(gateway.url, 6, stream=True))
        await eventually(lambda: a.running == 3)
        assert (await admin(gateway, "/admin/drain", node=a.url)).json()["draining"]
        asked = a.stats.requests[CHATS]
        assert lost(await crowd(gateway.url, 6, stream=True, text="later")) == []
        assert lost(await asking) == []
        assert a.stats.requests[CHATS] == asked
        await admin(gateway, "/admin/undrain", node=gateway.app.fleet.nodes[0].name)
        assert lost(await crowd(gateway.url, 6, text="again")) == []
        assert a.stats.requests[CHATS] == asked + 3
        await nothing_held(gateway, a, b)


async def test_what_has_not_finished_by_the_deadline_ends_with_a_clear_error() -> None:
    """A spot notice, and streams that cannot go on elsewhere: what waits can (`test_moves` has those that can)."""
    async with two_nodes(ENDLESS, resume={"enabled": False}) as (a, b, gateway):
        asking = asyncio.create_task(crowd(gateway.url, 2, stream=True))
        await eventually(lambda: all(node.running for node in (a, b)))
        await eventually(lambda: all(lease.heard for lease in gateway.app.fleet.nodes[0].leases))
        await admin(gateway, "/admin/drain", node=a.url, deadline=0.2)
        await eventually(lambda: a.running == 0)
        await admin(gateway, "/admin/drain", node=b.url, deadline=0.2)
        assert lost(await asking) == [(200, "node_drained")] * 2
        await nothing_held(gateway, a, b)


async def test_what_still_waits_at_the_deadline_goes_elsewhere() -> None:
    slow = FakeSettings(prefill_rate=5)
    async with serve_fake(slow) as a, serve_fake(FakeSettings()) as b:
        async with limited_gateway(a.url, b.url, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            asking = asyncio.create_task(crowd(gateway.url, 4, stream=True))
            await eventually(lambda: gateway.app.fleet.nodes[0].in_flight == 2)
            await admin(gateway, "/admin/drain", node=a.url, deadline=0.1)
            assert lost(await asking) == []
            await nothing_held(gateway, a, b)


async def test_the_command_waits_until_the_node_is_empty() -> None:
    async with two_nodes(PACED) as (a, _, gateway):
        asking = asyncio.create_task(crowd(gateway.url, 4, stream=True))
        await eventually(lambda: a.running == 2)
        status, said = await fleetgate("drain", a.url, "--admin", gateway.admin_url)
        assert status == 0 and f"127.0.0.1:{a.port} has no running requests: it can be stopped" in said
        assert a.running == 0
        assert lost(await asking) == []
        status, said = await fleetgate("undrain", f"127.0.0.1:{a.port}", "--admin", gateway.admin_url)
        assert status == 0 and "is undrained" in said


def draining(gateway: RunningGateway) -> bool:
    return gateway.app.fleet.nodes[0].drain is not None


async def test_a_person_is_asked_before_the_last_node_of_a_model_goes() -> None:
    """At a terminal; a program, such as a spot notice's hook, is warned and obeyed."""
    async with serve_fake() as node, limited_gateway(node.url) as gateway:
        await eventually(lambda: gateway.app.fleet.nodes[0].ready)
        ours, its = os.openpty()
        words = ("drain", node.url, "--admin", gateway.admin_url)
        process = await asyncio.create_subprocess_exec(
            FLEETGATE, *words, stdin=its, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        os.write(ours, b"n\n")
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        os.close(ours)
        os.close(its)
        assert process.returncode == 1 and b"is the last ready node of" in said
        assert not draining(gateway), "nobody said yes"
        status, told = await fleetgate(*words)
        assert status == 0 and "warning: " in told and draining(gateway)
        status, told = await fleetgate(*words, "--yes")
        assert status == 0 and "warning" not in told


async def test_a_node_that_nobody_knows_is_told_by_name() -> None:
    async with serve_fake() as node, limited_gateway(node.url) as gateway:
        status, said = await fleetgate("drain", "http://10.9.9.9:1", "--admin", gateway.admin_url)
        assert status == 1 and f"known: 127.0.0.1:{node.port}" in said
        status, said = await fleetgate("drain", node.url, "--admin", "http://127.0.0.1:1")
        assert status == 1 and "--admin" in said


async def test_all_worker_processes_know_of_a_drain() -> None:
    async with serve_fake() as a, serve_fake() as b:
        async with gateway_process("--node", a.url, "--node", b.url, "--workers", "3") as gateway:
            status, _ = await fleetgate("drain", a.url, "--admin", gateway.admin_url)
            assert status == 0
            asked = a.stats.requests[CHATS]
            assert lost(await crowd(gateway.url, 30)) == []
            assert a.stats.requests[CHATS] == asked


async def test_all_gateways_on_one_redis_know_of_a_drain_also_those_that_start_later() -> None:
    async with redis_server() as redis, serve_fake() as a, serve_fake() as b:
        settings: dict[str, Any] = {"redis": redis.settings}
        async with limited_gateway(a.url, b.url, **settings) as one, limited_gateway(a.url, b.url, **settings) as two:
            await admin(one, "/admin/drain", node=a.url)
            await eventually(lambda: two.app.fleet.nodes[0].drain is not None)
            redis.kill()
            await eventually(lambda: not one.app.drains.synced)
            assert all(gateway.app.fleet.nodes[0].drain for gateway in (one, two)), "what was known stays"
            redis.restart()  # with nothing in it
            await eventually(lambda: one.app.drains.synced)
        async with limited_gateway(a.url, b.url, **settings) as three:
            await eventually(lambda: three.app.fleet.nodes[0].drain is not None)
            await admin(three, "/admin/undrain", node=a.url)
            await eventually(lambda: three.app.fleet.nodes[0].ready)


async def test_a_node_that_is_drained_keeps_what_it_stores_readable_and_takes_no_new_work() -> None:
    async with serve_fake() as only, limited_gateway(only.url) as gateway:
        await admin(gateway, "/admin/drain", node=only.url)
        (seen,) = await crowd(gateway.url, 1)
        assert (seen.status, seen.code) == (503, "no_node_ready")
        assert seen.headers["retry-after"] == "2"


@pytest.mark.parametrize("body", [{}, {"node": "x", "deadlin": 3}, {"node": "x", "deadline": -1}])
async def test_a_drain_that_is_not_understood_is_refused(body: dict[str, Any]) -> None:
    async with serve_fake() as only, limited_gateway(only.url) as gateway:
        assert (await admin(gateway, "/admin/drain", **body)).status_code in (400, 422)
