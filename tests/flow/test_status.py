"""What the fleet's state looks like from outside: the admin route and the table."""

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from typer.testing import CliRunner

from gateway.cli import app
from gateway.status import render_fleet
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeSettings, serve_fake

MODEL = "nemotron-3-ultra"


async def view(gateway: RunningGateway) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.admin_url}/admin/fleet")
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


async def ask(gateway: RunningGateway, text: str) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    async with httpx.AsyncClient() as client:
        (await client.post(f"{gateway.url}/v1/chat/completions", json=body)).raise_for_status()


async def status(*options: str) -> str:
    """What the command prints, run as an operator runs it."""
    program = Path(sys.executable).with_name("fleetgate")
    process = await asyncio.create_subprocess_exec(program, "status", *options, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def test_the_fleet_is_shown_with_what_nodes_and_requests_tell() -> None:
    async with serve_fake(FakeSettings()) as one, serve_fake(FakeSettings()) as two:
        nodes = [{"url": one.url, "max_concurrency": 8, "price": 30.5, "labels": {"zone": "a"}}, {"url": two.url}]
        async with running_gateway(nodes=nodes) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for number in range(12):
                await ask(gateway, f"question {number}")
            loads = [node.loads for node in gateway.app.fleet.nodes]
            await eventually(lambda: sum(pages[-1].generated or 0 for pages in loads) > 12 * 20)
            shown = await view(gateway)
            assert (shown["gateways"], shown["redis"]) == (1, None)
            first, second = shown["nodes"]
            assert (first["state"], first["breaker"], first["in_flight"], first["places"]) == ("ready", "closed", 0, 8)
            assert (first["price"], first["labels"], first["models"]) == (30.5, {"zone": "a"}, [MODEL])
            assert second["places"] is None
            assert first["running"] == first["waiting"] == 0
            assert any(node["tokens_per_second"] for node in (first, second))
            for node in (first, second):
                assert 0 < node["ttft_p50"] <= node["ttft_p99"] < 10
            one.crash()
            await eventually(lambda: not gateway.app.fleet.nodes[0].ready)
            dead = (await view(gateway))["nodes"][0]
            assert (dead["state"], dead["breaker"]) == ("out", "open")
            assert "connection" in dead["last_error"]


async def test_the_table_has_a_row_for_each_node() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        await ask(gateway, "hello")
        page = io.StringIO()
        Console(file=page, width=200).print(render_fleet(await view(gateway)))
        assert node.url.removeprefix("http://") in page.getvalue()
        assert "ready" in page.getvalue()
        assert "no Redis" in page.getvalue()


def test_the_table_fits_a_small_terminal() -> None:
    """Nothing of it is cut off in 80 columns, however much is wrong."""
    error = "takes no connection: All connection attempts failed"
    numbers = {"in_flight": 200, "places": 256, "running": 200, "waiting": 30, "kv_use": 1.0, "hit_rate": 0.813}
    numbers |= {"tokens_per_second": 12345.6, "ttft_p50": 0.334, "ttft_p99": 12.25}
    nodes = [
        {"name": "gpu-1.eu:8000", "state": "warming up", "breaker": "probation", "last_error": None, **numbers},
        {"name": "gpu-2.eu:8000", "state": "out", "breaker": "open", "last_error": error, **numbers},
    ]
    page = io.StringIO()
    view = {"process": 1, "gateways": 2, "redis": True, "nodes": nodes}
    Console(file=page, width=80).print(render_fleet(view))
    assert "…" not in page.getvalue()
    for word in ("gpu-1.eu:8000", "warming up", "out", "200/256", "100%", "81%", "12346", "0.33s", "12.2s"):
        assert word in page.getvalue()
    assert f"gpu-2.eu:8000: {error}" in page.getvalue()


async def test_the_command_prints_it_as_a_table_or_as_json() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        told = json.loads(await status("--admin", gateway.admin_url, "--json"))
        assert told == {**(await view(gateway)), "nodes": told["nodes"]}
        assert [shown["url"] for shown in told["nodes"]] == [node.url]
        assert "TTFT" in await status("--admin", gateway.admin_url, "--once")


def test_a_gateway_that_is_not_there_is_told_in_a_line() -> None:
    result = CliRunner().invoke(app, ["status", "--once", "--admin", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "no gateway answers on http://127.0.0.1:9" in result.output
