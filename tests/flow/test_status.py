"""What the fleet's state looks like from outside: the admin route and the table."""

import asyncio
import contextlib
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.cli.status import render_fleet, render_nodes
from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import redis_server
from tests.support.registrations import record
from workers.fake import FakeSettings, serve_fake
from workers.registration import GpuState
from workers.registry import RedisRegistry

MODEL = "nemotron-3-ultra"


async def view(gateway: RunningGateway | GatewayProcess) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.admin_url}/admin/fleet")
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


async def ask(gateway: RunningGateway, text: str) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    async with httpx.AsyncClient() as client:
        (await client.post(f"{gateway.url}/v1/chat/completions", json=body)).raise_for_status()


def printed(shown: dict[str, Any], width: int = 200) -> str:
    page = io.StringIO()
    Console(file=page, width=width).print(render_fleet(shown))
    return page.getvalue()


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
            await eventually(lambda: not any(pages[-1].running or pages[-1].waiting for pages in loads))
            shown = await view(gateway)
            assert (shown["gateways"], shown["views"], shown["redis"]) == (1, 1, None)
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
            assert (dead["cause"], first["cause"]) == ("refused", None)
            assert dead["since"] >= 0 and second["since"] >= 0
            page = printed(await view(gateway))
            assert f"{dead['name']}: out for " in page and "(refused): connection failed" in " ".join(page.split())


async def test_what_each_node_is_is_shown_on_demand() -> None:
    """`--wide`: models, version, breaker and since when, and who holds budgets."""
    settings = FakeSettings()
    async with serve_fake(settings) as node, running_gateway(node.url, budgets={"canary": True}) as gateway:
        await until(gateway, lambda found: found["nodes"][0]["holds_budgets"] is not None)
        (shown,) = (await view(gateway))["nodes"]
        assert shown["version"] and shown["models"] == [MODEL]
        console = Console(width=140, record=True, file=io.StringIO())
        console.print(render_nodes(await view(gateway)))
        page = console.export_text()
        held = "held by the node" if shown["holds_budgets"] else "held here"
        for word in (shown["name"], shown["version"], "closed", held, MODEL):
            assert word in page


async def test_the_table_has_a_row_for_each_node() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        await ask(gateway, "hello")
        page = printed(await view(gateway))
        assert node.url.removeprefix("http://") in page
        assert "ready" in page
        assert f"process {os.getpid()} sees them, the only one" in page
        assert "no Redis" in page


def test_the_table_fits_a_small_terminal() -> None:
    """Nothing of it is cut off in 80 columns, however much is wrong."""
    error = "connection failed: All connection attempts failed"
    numbers = {"in_flight": 200, "places": 256, "running": 200, "waiting": 30, "kv_use": 1.0, "hit_rate": 0.813}
    numbers |= {"tokens_per_second": 12345.6, "ttft_p50": 0.334, "ttft_p99": 12.25}
    nodes: list[dict[str, Any]] = [
        {"name": "gpu-1.eu:8000", "state": "warming up", "breaker": "probation", "last_error": None, **numbers},
        {"name": "gpu-2.eu:8000", "state": "out", "breaker": "open", "last_error": error, **numbers},
    ]
    for node, seen in zip(nodes, ({"warming up": 4}, {"out": 3, "ready": 1}), strict=True):
        node["seen"] = seen
    nodes[1]["broke_off"] = 12
    models = [{"name": MODEL, "ready": True, "nodes": 2, "error": None, "resumed": 11, "not_resumed": 1}]
    shown = {"process": 1, "gateways": 4, "views": 4, "redis": True, "models": models, "nodes": nodes}
    page = printed(shown, width=80)
    assert "…" not in page
    for word in (
        "gpu-1.eu:8000",
        "warming up",
        "3 out",
        "1 ready",
        "200/256",
        "100%",
        "81%",
        "12346",
        "0.33s",
        "12.2s",
        "in the last 10 minutes: 11 resumed, 1 not",
        "They broke off on gpu-2.eu:8000 (12)",
    ):
        assert word in " ".join(page.split())
    assert f"gpu-2.eu:8000: {error}" in page
    assert "as all 4 gateway processes see them" in " ".join(page.split())


async def test_a_node_with_an_idle_gpu_is_named_until_it_works_again() -> None:
    """The launcher's record tells what its GPUs do; the gateway's status names the one that takes no part."""
    secret = "shared by both sides"
    discovery = {"registrations": {"secret": secret, "interval": 0.05}}
    gpus = [GpuState(index=index, use=0.01 if index == 3 else 0.91, memory=0.9) for index in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        node = await stack.enter_async_context(serve_fake(FakeSettings()))
        registry = await stack.enter_async_context(RedisRegistry(redis.url, secret))
        await registry.announce(record(node.url, gpus=tuple(gpus)))
        async with running_gateway(redis=redis.settings, discovery=discovery) as gateway:
            shown = await until(gateway, lambda found: bool(found["nodes"][0]["gpu_troubles"]))
            (told,) = shown["nodes"]
            assert [gpu["use"] for gpu in told["gpus"]] == [0.91, 0.91, 0.91, 0.01, 0.91, 0.91, 0.91, 0.91]
            assert f"{told['name']}: GPU 3 idle (1%) while others are at 91%" in printed(shown)
            await registry.announce(record(node.url, gpus=tuple(gpus[:3])))
            shown = await until(gateway, lambda found: not found["nodes"][0]["gpu_troubles"])
            assert "GPU" not in printed(shown)
            await registry.announce(record(node.url))
            await until(gateway, lambda found: not found["nodes"][0]["gpus"])


def test_only_the_worst_nodes_are_named_for_broken_answers() -> None:
    plain = {
        "state": "ready",
        "breaker": "closed",
        "last_error": None,
        "in_flight": 0,
        "places": None,
        "seen": {"ready": 1},
    }
    plain |= dict.fromkeys(("running", "waiting", "kv_use", "hit_rate", "tokens_per_second", "ttft_p50", "ttft_p99"))
    shown: dict[str, Any] = {"process": 1, "gateways": 1, "views": 1, "redis": None}
    nodes = [{"name": f"gpu-{number}:1", "broke_off": number, **plain} for number in range(8)]
    page = printed(shown | {"nodes": nodes})
    assert "Answers broke off on gpu-7:1 (7), gpu-6:1 (6), gpu-5:1 (5), gpu-4:1 (4), gpu-3:1 (3) and 2 other" in page
    assert "broke off" not in printed(shown | {"nodes": nodes[:1]})
    assert "broke off" not in printed(shown | {"nodes": [{"name": "gpu-9:1", **plain}]}), "an older gateway answers"


def test_models_whose_budgets_are_smaller_are_named() -> None:
    plain: dict[str, Any] = {"ready": True, "nodes": 1, "error": None, "resumed": 0, "not_resumed": 0}
    factors = {"pressed": 0.45, "whole": 1.0, "off": None}
    models = [{"name": name, "thinking_factor": factor, **plain} for name, factor in factors.items()]
    shown = {"process": 1, "gateways": 1, "views": 1, "redis": None, "nodes": [], "models": [*models, plain]}
    page = printed(shown)
    assert "pressed: thinking budgets are at 45% under pressure" in page
    assert page.count("thinking budgets") == 1


def broken(source: str, outcome: str, ending: str) -> RequestStats:
    notes = (ResumeNote("cut", source, 7, "b:1", 0.5, 9, outcome),)
    return RequestStats(model=MODEL, stream=True, status=200, ending=ending, resumes=notes)


async def test_answers_that_broke_off_are_shown_by_node_and_by_model() -> None:
    """Also those of a node that has left the fleet."""
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        await eventually(lambda: gateway.app.fleet.nodes[0].ready)
        name = node.url.removeprefix("http://")
        before = await view(gateway)
        assert (before["nodes"][0]["broke_off"], before["models"][0]["resumed"]) == (0, 0)
        for source in (name, name, "spot:1"):
            gateway.app.metrics.request_ended(broken(source, "resumed", "ok"))
        gateway.app.metrics.request_ended(broken(name, "refused", "upstream_cut"))
        shown = await view(gateway)
        assert [each["broke_off"] for each in shown["nodes"]] == [3]
        assert [(each["resumed"], each["not_resumed"]) for each in shown["models"]] == [(3, 1)]
        page = " ".join(printed(shown).split())
        assert f"{MODEL}: answers that broke off in the last 10 minutes: 3 resumed, 1 not" in page
        assert f"They broke off on {name} (3)" in page


async def test_several_gateways_are_shown_as_one_and_alone_while_redis_is_away() -> None:
    paced = FakeSettings(rate=40, answer_tokens=400, thinking_tokens=0)
    async with redis_server() as redis, serve_fake(paced) as node, contextlib.AsyncExitStack() as stack:
        nodes = [{"url": node.url, "max_concurrency": 8}]
        one, two = [
            await stack.enter_async_context(running_gateway(nodes=nodes, redis=redis.settings)) for _ in range(2)
        ]
        await eventually(lambda: one.app.fleet.gateways == two.app.fleet.gateways == 2)
        async with contextlib.AsyncExitStack() as streams:
            for gateway in (one, two, two):
                await streams.enter_async_context(begun_stream(gateway))
            shown = await until(one, lambda found: found["nodes"][0]["in_flight"] == 3)
            assert (shown["gateways"], shown["views"]) == (2, 2)
            assert (shown["nodes"][0]["places"], shown["nodes"][0]["seen"]) == (8, {"ready": 2})
            for gateway in (one, two):
                gateway.app.metrics.request_ended(broken(shown["nodes"][0]["name"], "resumed", "ok"))
            shown = await until(one, lambda found: found["nodes"][0]["broke_off"] == 2)
            assert (shown["models"][0]["resumed"], shown["models"][0]["not_resumed"]) == (2, 0)
            redis.kill()
            shown = await until(one, lambda found: found["redis"] is False)
            assert (shown["gateways"], shown["views"], shown["nodes"][0]["in_flight"]) == (2, 1, 1)
            assert f"as process {os.getpid()} sees them (one of 2)" in printed(shown)


async def test_worker_processes_without_redis_are_shown_as_one() -> None:
    paced = FakeSettings(rate=40, answer_tokens=400, thinking_tokens=0)
    async with serve_fake(paced) as node, gateway_process("--node", node.url, "--workers", "2") as gateway:
        async with contextlib.AsyncExitStack() as streams:
            for _ in range(4):
                await streams.enter_async_context(begun_stream(gateway))
            shown = await until(gateway, lambda found: found["nodes"][0]["in_flight"] == 4 and found["views"] == 2)
            assert shown["gateways"] == 2
            assert shown["process"] in gateway.workers()


@contextlib.asynccontextmanager
async def begun_stream(gateway: RunningGateway | GatewayProcess) -> AsyncIterator[None]:
    """A stream whose first bytes have come."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "talk"}]}
    async with httpx.AsyncClient(timeout=20) as client:
        async with client.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as answer:
            pieces = answer.aiter_bytes()  # kept: with it the answer would be let go
            await anext(pieces)
            yield


async def until(
    gateway: RunningGateway | GatewayProcess, holds: Callable[[dict[str, Any]], bool], seconds: float = 60.0
) -> dict[str, Any]:
    """The fleet as it is shown once `holds` is true of it."""
    async with asyncio.timeout(seconds):
        while not holds(shown := await view(gateway)):
            await asyncio.sleep(0.05)
    return shown


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
