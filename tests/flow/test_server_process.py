"""`fleetgate serve` as a process: how it starts, drains, reloads, logs, and what it says when it cannot."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.access.api_keys import key_digest
from gateway.server.allocator import is_set
from tests.support.certificates import Certificate, self_signed
from tests.support.gateway_process import FLEETGATE, STARTED_SECONDS, GatewayProcess, gateway_process
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    ScriptedNode,
    answer,
    chunk,
    event,
    scripted_node,
)
from tests.support.raw import RawClient, raw_client
from tests.support.redis import redis_server

CHAT = "/v1/chat/completions"
GLIBC = "CS_GNU_LIBC_VERSION" in os.confstr_names and not is_set(os.environ)
PROMPT = "a prompt that nobody else may read"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
STREAMED = {**ASK, "stream": True}
PLAIN = json.dumps(
    {
        "id": "x",
        "choices": [{"message": {"content": "an answer that nobody else may read"}}],
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }
).encode()
KEYS = {name: f"fg-{name}-{'k' * 30}" for name in ("one", "two")}


class Stage:
    """A node's side of streams: each begins at once, ends when `curtain` falls, or never."""

    def __init__(self) -> None:
        self.curtain = asyncio.Event()

    async def reply(self, node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        body = json.loads(asked.body)
        if not body.get("stream"):
            writer.write(answer(PLAIN))
            return
        writer.write(STREAM_HEAD + chunk(event("first")))
        await writer.drain()
        if body.get("user") == "flood":
            while True:
                writer.write(chunk(event("x" * 16_000)))
                await writer.drain()
        if body.get("user") == "endless":
            await node.until_hung_up(reader)
            return
        await self.curtain.wait()
        writer.write(chunk(event("last")) + chunk(DONE) + LAST_CHUNK)


@contextlib.asynccontextmanager
async def stream(gateway: GatewayProcess, user: str = "", key: str | None = None) -> AsyncIterator[RawClient]:
    """A stream whose first event has come."""
    async with raw_client(gateway.port, patience=20) as client:
        await client.post(CHAT, {**STREAMED, "user": user}, *([f"x-api-key: {key}"] if key else []))
        status, _ = await client.answer_head()
        assert status == 200
        async with asyncio.timeout(10):
            await client.reader.readuntil(event("first"))
        yield client


async def ended_well(client: RawClient) -> bool:
    """Whether the rest of a stream came to its end, and was not cut."""
    try:
        async with asyncio.timeout(10):
            return b'"error"' not in await client.reader.readuntil(b"[DONE]")
    except (asyncio.IncompleteReadError, ConnectionError):
        return False


async def ask(gateway: GatewayProcess, key: str | None = None, **options: Any) -> httpx.Response:
    """One request on a connection of its own. (Loading the system's authorities costs more than the request.)"""
    headers = {} if key is None else {"x-api-key": key}
    async with httpx.AsyncClient(timeout=10, **{"verify": False, **options}) as client:
        return await client.post(gateway.url + CHAT, json=ASK, headers=headers)


async def metrics(gateway: GatewayProcess) -> str:
    async with httpx.AsyncClient(verify=False, timeout=10) as client:
        return (await client.get(f"{gateway.admin_url}/metrics")).text


async def until(gateway: GatewayProcess, key: str | None, status: int, in_a_row: int = 8) -> None:
    """Wait until requests with `key` are answered with `status`, by all workers."""
    async with asyncio.timeout(60):
        hits = 0
        while hits < in_a_row:
            hits = hits + 1 if (await ask(gateway, key)).status_code == status else 0
            await asyncio.sleep(0.02)


async def answered_without(worker: int, gateway: GatewayProcess, key: str) -> bool:
    """Whether a request on a connection of its own is served while `worker`, a process, stands still."""
    os.kill(worker, signal.SIGSTOP)
    try:
        async with httpx.AsyncClient(verify=False, timeout=0.5, headers={"x-api-key": key}) as client:
            return (await client.post(gateway.url + CHAT, json=ASK)).status_code == 200
    except httpx.HTTPError:
        return False
    finally:
        os.kill(worker, signal.SIGCONT)


def heap_of(pid: int) -> int:
    """Bytes of a process's heap, used or kept; 0 where the system does not say."""
    maps = Path(f"/proc/{pid}/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        if line.endswith("[heap]"):
            start, end = line.split()[0].split("-")
            return int(end, 16) - int(start, 16)
    return 0


def refuses(gateway: GatewayProcess) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", gateway.port)) != 0


# Start and stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_serves_and_stops(number: signal.Signals) -> None:
    async with scripted_node(Stage().reply) as node, gateway_process("--node", node.url) as gateway:
        assert node.url in gateway.lines[0] and gateway.port > 0
        assert (await ask(gateway)).content == PLAIN
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.get(f"{gateway.admin_url}/health")).status_code == 200
            large = {**ASK, "messages": [{"role": "user", "content": "a" * 4_000_000}]}
            assert (await client.post(gateway.url + CHAT, json=large, timeout=30)).content == PLAIN
        assert heap_of(gateway.process.pid) > 12 * 4_000_000 or not GLIBC
        gateway.signal(number)
        assert await gateway.ended() == 0
        assert not any("Traceback" in line for line in gateway.lines)


async def test_a_request_is_one_json_line_without_prompt_or_key(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    async with scripted_node(Stage().reply) as node:
        write_config(file, [node.url], {"team": KEYS["one"]}, response_secret="hush-hush", admin_token="hush-admin")
        async with gateway_process("-c", file, FLEETGATE_LOG__LEVEL="debug") as gateway:
            good = await ask(gateway, KEYS["one"])
            await ask(gateway, "fg-wrong-key")
            async with httpx.AsyncClient(verify=False, headers={"x-api-key": KEYS["one"]}) as client:
                await client.post(gateway.url + CHAT, content=PROMPT)
                await client.post(gateway.url + CHAT, json={**ASK, "model": PROMPT})
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
        requests = {line["request_id"]: line for line in gateway.events("request")}
        assert len(requests) == len(gateway.events("request")) == 4
        line = requests[good.headers["x-request-id"]]
        assert line.pop("key").startswith("key_"), "which one, and never what it is"
        times = {name: line.pop(name) for name in ("timestamp", "ttft_ms", "duration_ms")}
        assert line == {
            "event": "request",
            "level": "info",
            "request_id": good.headers["x-request-id"],
            "dialect": "chat",
            "tenant": "team",
            "model": MODEL,
            "node": node.url.removeprefix("http://"),
            "stream": False,
            "status": 200,
            "ending": "ok",
            "attempts": 1,
            "request_bytes": len(json.dumps(ASK, separators=(",", ":"))),
            "input_tokens": 11,
            "cached_tokens": 5,
            "output_tokens": 7,
            "reasoning_tokens": 3,
            "usage_estimated": False,
            "thinking_asked": None,
            "thinking_budget": None,
            "thinking_ended_early": False,
            "route": None,
            "expected_cached_tokens": None,
            "service_class": "standard",
            "queued_ms": None,
            "resumes": None,
            "loops": None,
            "address": "127.0.0.1",
            "user_agent": f"python-httpx/{httpx.__version__}",
            "model_asked": MODEL,
            "error": None,
            "limit": None,
            "failed_attempts": None,
            "cost_usd": None,
            "max_tokens": None,
            "trace_id": None,
            "stored": None,
        }
        assert 0 < times["ttft_ms"] <= times["duration_ms"] < 10_000
        levels = {line["status"]: line["level"] for line in requests.values()}
        assert levels == {200: "info", 400: "warning", 401: "warning", 404: "warning"}
        (unknown,) = [line for line in requests.values() if line["status"] == 404]
        assert unknown["model_asked"] == "...", "it was a prompt"
        endings = sorted((line["status"], line["ending"]) for line in requests.values())
        assert endings == [(200, "ok"), (400, "invalid_json"), (401, "invalid_api_key"), (404, "model_not_found")]
        assert all(json.loads(line) for line in gateway.lines[2:]), "everything after the greeting is JSON"
        written = "\n".join(gateway.lines)
        for hushed in ("nobody else", *KEYS.values(), "fg-wrong-key", "hush"):
            assert hushed not in written


async def test_logs_for_people() -> None:
    async with scripted_node(Stage().reply) as node:
        async with gateway_process("--node", node.url, "--log-format", "text") as gateway:
            await ask(gateway)
            await eventually(lambda: any("request_id=" in line for line in gateway.lines))
            assert not any(line.startswith("{") or PROMPT in line for line in gateway.lines)


@pytest.mark.parametrize("format", ["json", "text"])
async def test_it_serves_although_nobody_reads_its_log(format: str, tmp_path: Path) -> None:
    """Redis turns everybody away meanwhile: each way out of a request has something to log."""
    path = tmp_path / "fleetgate.yaml"
    async with scripted_node(Stage().reply) as node, redis_server() as redis:
        limits = {"default": {"requests_per_minute": 1000}}
        path.write_text(json.dumps({"nodes": [{"url": node.url}], "redis": redis.settings, "limits": limits}))
        async with gateway_process("--config", path, "--log-format", format) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                gateway.stop_reading()
                redis.do("CONFIG", "SET", "maxmemory", 1)
                answers = await asyncio.gather(*[client.post(CHAT, json=ASK) for _ in range(5)])
                assert [answer.status_code for answer in answers] == [200] * 5
                page = (await client.get(f"{gateway.admin_url}/metrics")).text
                assert float(page.split("\nfleetgate_log_writes_failed_total ")[1].split()[0]) > 0


def test_it_starts_although_its_log_cannot_be_written() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(FLEETGATE), "serve", "--port", str(port), "--admin-port", "0", "--node", "http://127.0.0.1:9"]
    with Path("/dev/full").open("w") as full, subprocess.Popen(command, stderr=full) as gateway:
        try:
            healthy = False
            while not healthy:
                assert gateway.poll() is None
                with contextlib.suppress(httpx.TransportError):
                    healthy = httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        finally:
            gateway.kill()


async def test_a_node_that_never_answers_is_told_once() -> None:
    """Its URL may be mistyped: without a line nothing would say why requests are refused."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{nobody.getsockname()[1]}"
        async with gateway_process("--node", f"http://{name}", ready=False) as gateway:
            await eventually(lambda: gateway.events("node_not_ready"))
            (told,) = gateway.events("node_not_ready")
            assert (told["level"], told["node"]) == ("warning", name)
            assert "connection failed" in told["error"]


async def test_a_running_stream_ends_well_after_sigterm_and_an_endless_one_is_told() -> None:
    stage = Stage()
    async with scripted_node(stage.reply) as node:
        async with gateway_process("--node", node.url, FLEETGATE_TIMEOUTS__SHUTDOWN="4") as gateway:
            async with stream(gateway) as finishing, stream(gateway, "endless") as endless, raw_client(gateway.port):
                gateway.signal(signal.SIGTERM)
                await eventually(lambda: refuses(gateway))
                stage.curtain.set()
                rest = await finishing.rest()
                assert event("last") in rest and rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
                rest = await endless.rest()
                assert b'"code":"shutting_down"' in rest and b"[DONE]" not in rest
                assert rest.endswith(b"\r\n0\r\n\r\n")
                assert await gateway.ended() == 0
            await eventually(lambda: node.hung_up == 1)
        assert sorted(line["ending"] for line in gateway.events("request")) == ["ok", "shutting_down"]
        assert [line["deadline_s"] for line in gateway.events("shutdown_started")] == [4.0]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_says_that_it_leaves_while_it_still_serves(workers: str) -> None:
    stage = Stage()
    async with scripted_node(stage.reply) as node:
        command = ("--node", node.url, "--workers", workers)
        delayed = gateway_process(*command, FLEETGATE_TIMEOUTS__SHUTDOWN_DELAY="600")
        async with delayed as gateway, stream(gateway) as running:
            await eventually(lambda: len(gateway.events("node_ready")) >= int(workers))  # all have begun
            before = await ask(gateway)
            gateway.signal(signal.SIGTERM)
            await eventually(lambda: len(gateway.events("shutdown_announced")) == int(workers))
            async with httpx.AsyncClient(verify=False) as client:
                told = await client.get(f"{gateway.url}/ready")
                assert (told.status_code, told.json()["status"]) == (503, "shutting down")
                assert (await client.get(f"{gateway.url}/health")).status_code == 200
            late = await ask(gateway)
            assert late.content == before.content == PLAIN
            assert (before.headers.get("connection"), late.headers.get("connection")) == (None, "close")
            stage.curtain.set()
            assert await ended_well(running)
            for pid in gateway.workers() or [gateway.process.pid]:
                os.kill(pid, signal.SIGTERM)
            assert await gateway.ended() == 0, "who asks twice does not wait"


async def test_it_stops_although_a_client_has_stopped_reading() -> None:
    async with scripted_node(Stage().reply) as node:
        async with gateway_process("--node", node.url, FLEETGATE_TIMEOUTS__SHUTDOWN="0.5") as gateway:
            async with stream(gateway, "flood"):
                await asyncio.sleep(0.3)
                gateway.signal(signal.SIGTERM)
                assert await gateway.ended(15) == 0
        assert [line["status"] for line in gateway.events("request")] == [200]
        assert not any("Traceback" in line for line in gateway.lines)


def serve(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A gateway that is not expected to start."""
    command = [FLEETGATE, "serve", "--admin-port", "0", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_in_use_is_told(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = serve("--node", "http://127.0.0.1:1", "--port", "0", option, port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr and "listens on" not in done.stderr


def test_it_does_not_start_without_a_node() -> None:
    done = serve()
    assert done.returncode == 2
    assert "--node" in done.stderr and "Traceback" not in done.stderr


def test_it_does_not_start_with_a_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("listne: {}\nworkers: many\n")
    done = serve("-c", tmp_path / "bad.yaml", FLEETGATE_LOG__FORMAT="xml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3


def test_it_does_not_serve_everybody_by_accident() -> None:
    done = serve("--node", "http://127.0.0.1:1", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--no-auth" in done.stderr


def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no PEM")
    tls = json.dumps({"cert": str(tmp_path / "cert"), "key": str(tmp_path / "key")})
    done = serve("--node", "http://127.0.0.1:1", "--port", "0", FLEETGATE_LISTEN__TLS=tls)
    assert done.returncode in (1, 2)
    assert str(tmp_path / "cert") in done.stderr and "Traceback" not in done.stderr


# Several workers


async def test_two_workers_share_the_work_and_the_metrics() -> None:
    stage = Stage()
    async with scripted_node(stage.reply) as node:
        async with gateway_process("--node", node.url, "--workers", "2", FLEETGATE_TIMEOUTS__SHUTDOWN="5") as gateway:
            first = gateway.workers()
            assert len(first) == 2
            await eventually(lambda: len(gateway.events("node_ready")) >= 2)
            async with contextlib.AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(stream(gateway)) for _ in range(16)]
                os.kill(first[0], signal.SIGKILL)
                stage.curtain.set()
                ends = [await ended_well(client) for client in streams]
            assert 0 < ends.count(True) < 16, "both have taken some: the kernel spreads connections over them"
            await eventually(lambda: len(set(gateway.workers()) - set(first)) == 1)
            await eventually(lambda: len(gateway.events("node_ready")) >= 3)
            (replaced,) = gateway.events("worker_replaced")
            assert (replaced["process"], replaced["exit_code"]) == (first[0], -signal.SIGKILL)
            assert replaced["replacement"] in gateway.workers()
            for _ in range(10):
                assert (await ask(gateway)).status_code == 200

            # The workers count by themselves every few seconds; what the killed one had not told is lost.
            wanted = f'status="200",tenant="default"}} {ends.count(True) + 10}.0'
            async with asyncio.timeout(15):
                while wanted not in (page := await metrics(gateway)):
                    await asyncio.sleep(0.2)
            assert 'fleetgate_node_ready{node="' in page
            assert "fleetgate_open_requests 0.0" in page

            stage.curtain.clear()
            async with contextlib.AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(stream(gateway)) for _ in range(8)]
                gateway.signal(signal.SIGTERM)
                await eventually(lambda: refuses(gateway))
                stage.curtain.set()
                assert all([await ended_well(client) for client in streams])
            assert await gateway.ended() == 0
            assert not any("Traceback" in line for line in gateway.lines)


# Reload


def write_config(
    file: Path,
    nodes: list[str],
    tenants: dict[str, str],
    response_secret: str = "s",
    admin_token: str | None = None,
    more: str = "",
) -> None:
    """Replace `file` in one step, as an editor or Kubernetes does."""
    config: dict[str, Any] = {
        "nodes": [{"url": url} for url in nodes],
        "tenants": [{"name": name, "keys": [{"sha256": key_digest(key).hex()}]} for name, key in tenants.items()],
        "response_secret": response_secret,
        "access": {"wrong_keys_per_minute": 100_000},  # tests ask with old keys until they are refused
        "admin": {} if admin_token is None else {"token": admin_token},
    }
    new = file.with_suffix(".new")
    new.write_text(more or json.dumps(config))  # JSON is YAML
    new.replace(file)


async def reload(gateway: GatewayProcess) -> httpx.Response:
    async with httpx.AsyncClient(verify=False, timeout=10) as client:
        return await client.post(f"{gateway.admin_url}/admin/reload")


async def test_a_reload_changes_everything_but_open_streams(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    stage = Stage()
    one, two = KEYS["one"], KEYS["two"]
    async with scripted_node(stage.reply) as old, scripted_node(stage.reply) as new:
        write_config(file, [old.url], {"a": one})
        async with gateway_process("-c", file) as gateway, stream(gateway, key=one) as open_stream:
            assert (await ask(gateway, two)).status_code == 401

            # by the file: another node, another tenant
            write_config(file, [new.url], {"b": two})
            await until(gateway, two, 200)
            assert (await ask(gateway, one)).status_code == 401
            asked = len(old.asked)
            assert (await ask(gateway, two)).status_code == 200
            assert len(old.asked) == asked

            # what is wrong is said, and the old one stays
            write_config(file, [new.url], {}, more="listne: {}\nworkers: many\n")
            refused = await reload(gateway)
            assert (refused.status_code, refused.json()["code"]) == (400, "config_refused")
            assert len(refused.json()["problems"]) == 2 and "did you mean 'listen'?" in refused.text
            for broken in ("nodes: [", "no_auth: 2024-99-99", "listen: " + "[" * 3000):
                write_config(file, [], {}, more=broken)
                assert (await reload(gateway)).status_code == 400
            assert (await ask(gateway, two)).status_code == 200
            await eventually(lambda: gateway.events("config_refused"))

            # by the admin route: both nodes, both tenants, and a setting that needs a restart
            write_config(file, [old.url, new.url], {"a": one, "b": two}, response_secret="another")
            done = await reload(gateway)
            changed = [
                f"nodes[{old.url}]: added",
                "tenants[a]: added",
                "response_secret: changed",
            ]
            assert (done.status_code, done.json()) == (
                200,
                {"ok": True, "problems": [], "needs_restart": ["response_secret"], "changed": changed},
            )
            await until(gateway, one, 200)
            await until(gateway, two, 200)

            stage.curtain.set()
            rest = await open_stream.reader.readuntil(b"[DONE]")
            assert event("last") in rest
            page = await metrics(gateway)
            counted = re.search(r'fleetgate_config_reloads_total\{result="refused"\} (\S+)', page)
            assert counted is not None and float(counted[1]) >= 1, "each process counts"
        assert not any("Traceback" in line for line in gateway.lines)


async def test_the_watch_outlives_every_file(tmp_path: Path) -> None:
    """Whatever stood in the file for a while, and if it was away: the next good one is taken over."""
    file = tmp_path / "fleetgate.yaml"
    async with scripted_node(Stage().reply) as node:
        write_config(file, [node.url], {"a": KEYS["one"]})
        async with gateway_process("-c", file) as gateway:
            write_config(file, [], {}, more="no_auth: 2024-99-99")
            await eventually(lambda: len(gateway.events("config_refused")) >= 1)
            file.unlink()
            await eventually(lambda: len(gateway.events("config_refused")) >= 2)
            assert (await ask(gateway, KEYS["one"])).status_code == 200
            write_config(file, [node.url], {"b": KEYS["two"]})
            await until(gateway, KEYS["two"], 200)


async def test_a_node_that_was_taken_out_is_no_longer_counted_as_ready(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    async with scripted_node(Stage().reply) as old, scripted_node(Stage().reply) as new:
        write_config(file, [old.url], {"a": KEYS["one"]})
        async with gateway_process("-c", file) as gateway:
            name = old.url.removeprefix("http://")
            assert f'fleetgate_node_ready{{node="{name}"}} 1.0' in await metrics(gateway)
            write_config(file, [new.url], {"a": KEYS["one"]})
            assert (await reload(gateway)).status_code == 200
            assert f'fleetgate_node_ready{{node="{name}"}} 1.0' not in await metrics(gateway)


async def test_settings_that_only_a_restart_brings_into_force_are_told(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    nodes = [{"url": "http://127.0.0.1:1"}]
    file.write_text(json.dumps({"nodes": nodes}))
    async with gateway_process("-c", file, ready=False) as gateway:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    unchanged = {"ok": True, "problems": [], "needs_restart": [], "changed": []}
                    assert (await reload(gateway)).json() == unchanged
                    break
        changed = {
            "nodes": nodes,
            "listen": {"max_connections": 5},
            "requests": {"max_headers": 2000},
            "timeouts": {"headers": 1, "shutdown": 300},
            "log": {"level": "debug"},
        }
        file.write_text(json.dumps(changed))
        done = await reload(gateway)
        told = set(done.json()["needs_restart"])
        assert {"listen", "log"} <= told
        assert any("max_headers" in name or name == "requests" for name in told)
        assert any("headers" in name or name == "timeouts" for name in told - {"requests.max_headers"})


async def test_both_workers_take_a_reload_over_and_a_bad_file_stops_none(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    one, two = KEYS["one"], KEYS["two"]
    async with scripted_node(Stage().reply) as node:
        write_config(file, [node.url], {"a": one})
        async with gateway_process("-c", file, "--workers", "2") as gateway:
            await eventually(lambda: len(gateway.events("node_ready")) >= 2)  # both have begun
            await until(gateway, one, 200)
            write_config(file, [node.url], {"b": two})
            await eventually(lambda: len(gateway.events("config_reloaded")) >= 2)
            await until(gateway, two, 200, in_a_row=20)
            await until(gateway, one, 401, in_a_row=20)
            write_config(file, [node.url], {"a": one})
            assert (await reload(gateway)).status_code == 200
            await eventually(lambda: len(gateway.events("config_reloaded")) >= 4)
            await until(gateway, one, 200, in_a_row=20)

            write_config(file, [], {}, more="listne: {}")
            await eventually(lambda: len(gateway.events("config_refused")) >= 2)
            await until(gateway, one, 200, in_a_row=20)
            assert len(gateway.workers()) == 2

            # A worker that dies meanwhile comes back with what its siblings serve.
            before = gateway.workers()
            os.kill(before[0], signal.SIGKILL)
            await eventually(lambda: len(set(gateway.workers()) - set(before)) == 1)
            replacement = next(iter(set(gateway.workers()) - set(before)))
            async with asyncio.timeout(60):
                while not await answered_without(before[1], gateway, one):
                    await asyncio.sleep(0.3)  # who stands still for seconds is replaced as well
            assert replacement in gateway.workers()


# TLS


@contextlib.asynccontextmanager
async def tls_node(certificate: Certificate, stage: Stage) -> AsyncIterator[ScriptedNode]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.cert, certificate.key)
    node = ScriptedNode(stage.reply)
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0, ssl=context)
    node.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()


async def test_tls_on_both_sides_and_the_key_of_the_node(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    file = tmp_path / "fleetgate.yaml"
    stage = Stage()
    stage.curtain.set()
    async with tls_node(certificate, stage) as node:
        config = {
            "listen": {"tls": {"cert": str(certificate.cert), "key": str(certificate.key)}},
            "nodes": [{"url": node.url, "ca_file": str(certificate.cert), "api_key": {"env": "NODE_KEY"}}],
        }
        file.write_text(json.dumps(config))
        async with gateway_process("-c", file, NODE_KEY="sk-node") as gateway:
            assert gateway.url.startswith("https://")
            trusting = ssl.create_default_context(cafile=certificate.cert)
            assert (await ask(gateway, key="mine", verify=trusting)).content == PLAIN
            async with httpx.AsyncClient(verify=trusting, timeout=10) as client:
                got = await client.post(gateway.url + CHAT, json=STREAMED)
                assert got.content == event("first") + event("last") + DONE
            with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
                await ask(gateway, verify=True)
            async with raw_client(gateway.port) as plain:
                await plain.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b"200 OK" not in await plain.rest()
            assert (await ask(gateway, verify=trusting)).status_code == 200
            assert {asked.headers["authorization"] for asked in node.asked} == {"Bearer sk-node"}
            assert "sk-node" not in "\n".join(gateway.lines)


async def test_a_node_with_a_certificate_of_unknown_origin_is_not_used(tmp_path: Path) -> None:
    async with tls_node(self_signed(tmp_path), Stage()) as node, running_gateway(node.url, ready=False) as gateway:
        await eventually(lambda: "ertificate" in str(gateway.app.fleet.nodes[0].last_error))
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.post(gateway.url + CHAT, json=ASK)).status_code == 503
            told = (await client.get(f"{gateway.admin_url}/admin/nodes")).json()
            assert (told[0]["ready"], "ertificate" in told[0]["last_error"]) == (False, True)
        assert node.asked == []


# Signals


@contextlib.asynccontextmanager
async def all_processes(
    stage: Stage, file: Path, workers: int
) -> AsyncIterator[tuple[ScriptedNode, GatewayProcess, list[int]]]:
    """A node, a gateway in front of it with this `file`, and the ids of its processes, all of which are up."""
    async with scripted_node(stage.reply) as node:
        write_config(file, [node.url], {"a": KEYS["one"]})
        async with gateway_process("-c", file, "--workers", str(workers)) as gateway:
            await eventually(lambda: len(gateway.events("max_connections_set")) == workers, 2 * STARTED_SECONDS)
            yield node, gateway, [gateway.process.pid, *gateway.workers()]


@pytest.mark.parametrize("workers", [1, 2])
async def test_signals_that_are_no_end_cost_no_stream(workers: int, tmp_path: Path) -> None:
    """SIGHUP reloads in every process; SIGUSR1 and SIGUSR2 do nothing; SIGTERM again and again is one SIGTERM."""
    file = tmp_path / "fleetgate.yaml"
    stage = Stage()
    async with all_processes(stage, file, workers) as (_, gateway, pids):
        async with stream(gateway, key=KEYS["one"]) as one, stream(gateway, key=KEYS["one"]) as other:
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                for pid in pids:
                    os.kill(pid, number)
            await eventually(lambda: len(gateway.events("config_reloaded")) >= workers)
            assert (await ask(gateway, KEYS["one"])).status_code == 200
            assert [gateway.process.pid, *gateway.workers()] == pids, "nobody ended"
            for _ in range(3):
                gateway.signal(signal.SIGTERM)
                await asyncio.sleep(0.4)
            await eventually(lambda: refuses(gateway))
            stage.curtain.set()
            assert await ended_well(one) and await ended_well(other)
        assert await gateway.ended() == 0
        assert not any("Traceback" in line for line in gateway.lines)


async def test_without_a_file_to_reload_a_hangup_is_a_gentle_end() -> None:
    stage = Stage()
    async with scripted_node(stage.reply) as node, gateway_process("--node", node.url) as gateway:
        async with stream(gateway) as client:
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: refuses(gateway))
            stage.curtain.set()
            assert await ended_well(client)
        assert await gateway.ended() == 0


async def test_a_second_interrupt_waits_for_no_stream() -> None:
    async with scripted_node(Stage().reply) as node, gateway_process("--node", node.url) as gateway:
        async with stream(gateway):
            gateway.signal(signal.SIGINT)
            await eventually(lambda: gateway.events("shutdown_started"))
            gateway.signal(signal.SIGINT)
            assert await gateway.ended() in (0, -signal.SIGINT, 130)
