"""`fleetgate check` as operators run it: its options, its warnings, and `--probe` against nodes and a Redis."""

import asyncio
import os
import socket
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gateway_process import FLEETGATE, gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import redis_server
from workers.fake import FakeSettings, serve_fake


async def unused(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    raise AssertionError(f"a check asks for no tokens: {asked.path}")


async def any_answer(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


async def check(*words: str | Path) -> tuple[int | None, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETGATE")}
    process = await asyncio.create_subprocess_exec(
        FLEETGATE, "check", *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, out.decode(), err.decode()


def write(file: Path, **settings: Any) -> Path:
    file.write_text(yaml.safe_dump(settings))
    return file


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_the_file_is_given_as_serve_takes_it(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", nodes=[{"url": "http://127.0.0.1:1"}])
    plain = await check(file)
    assert plain[0] == 0 and await check("-c", file) == plain and await check("--config", file, file) == plain
    for words in ((), (file, "-c", tmp_path / "b.yaml")):
        code, _, err = await check(*words)
        assert code == 2 and "config file" in err


async def test_warnings_are_told_and_fail_a_strict_check(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", nodes=[{"url": "http://127.0.0.1:1"}], admin={"token": "hush"})
    code, out, err = await check(file)
    assert code == 0 and ": valid" in out
    assert err.startswith(f"warning: {file}:") and "admin.token: can be guessed" in err and "hush" not in err
    assert (await check(file, "--strict"))[0] == 2


async def test_a_variable_that_does_nothing_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-5")
    code, _, err = await check(write(tmp_path / "a.yaml", nodes=[{"url": "http://127.0.0.1:1"}]))
    assert code == 0 and err.startswith("warning: the variable OTEL_BSP_SCHEDULE_DELAY: ") and err.count("\n") == 1


async def test_what_check_warns_of_serve_logs(tmp_path: Path) -> None:
    async with scripted_node(any_answer) as node:
        file = write(tmp_path / "a.yaml", nodes=[{"url": node.url}], response_secret="hush")
        async with gateway_process("-c", file) as gateway:
            (line,) = gateway.events("config_warning")
            assert (line["setting"], line["level"]) == ("response_secret", "warning")
            assert line["where"] == f"{file}:3" and "can be guessed" in line["problem"]
            write(file, nodes=[{"url": node.url}], thinking={"answer_reserve": 5}, output={"max_tokens": 5})
            await eventually(lambda: len(gateway.events("config_warning")) == 2)
            assert gateway.events("config_warning")[1]["setting"] == "thinking.answer_reserve"


async def test_a_probe_asks_nodes_and_redis(tmp_path: Path) -> None:
    async with scripted_node(unused) as node, redis_server() as redis:
        settings: dict[str, Any] = {"nodes": [{"url": node.url}], "models": [{"name": MODEL}], "redis": redis.settings}
        file = write(tmp_path / "a.yaml", **settings)
        code, out, err = await check("-c", file, "--probe")
        assert (code, err) == (0, "")
        assert f"ok      {node.url}: answers; serves {MODEL}" in out and "ok      redis: answers" in out

        gone = f"http://127.0.0.1:{free_port()}"
        host = "no.such.host.invalid"
        settings["nodes"] = [{"url": node.url}, {"url": gone}]
        settings["models"] = [{"name": MODEL}, {"name": "other"}]
        settings["discovery"] = {"dns": [{"host": host}]}
        redis.kill()
        write(file, **settings)
        code, out, err = await check(file, "--probe")
        assert code == 1 and f"ok      {node.url}" in out
        failed = {line.split(": ")[0].removeprefix("FAILED").strip() for line in err.splitlines()}
        assert failed == {gone, "model other", "redis", host}, err
        assert (await check(file))[0] == 0, "only what is asked for is asked"


async def test_without_models_a_probe_compares_what_tenants_name_with_what_nodes_serve(tmp_path: Path) -> None:
    tenants = [{"name": "acme", "models": [MODEL, MODEL[:-1]], "keys": [{"sha256": "0" * 64}]}]
    async with scripted_node(unused) as node:
        file = write(tmp_path / "a.yaml", nodes=[{"url": node.url}], tenants=tenants)
        code, out, err = await check(file)
        assert code == 0 and "--probe" in out and "tenants[0].models[1]" in out
        code, out, err = await check(file, "--probe")
        assert code == 1 and f"tenant acme: no node of the file serves {MODEL[:-1]}: did you mean {MODEL}?" in err, err
        assert err.count("FAILED") == 1 and "Not checked" not in out


async def test_a_node_of_two_routing_groups_is_told(tmp_path: Path) -> None:
    async with serve_fake(FakeSettings(models=("ultra", "lora", "other"))) as node:
        settings: dict[str, Any] = {"nodes": [{"url": node.url}]}
        models = [{"name": "ultra", "routing_group": "ultra"}, {"name": "lora"}]
        file = write(tmp_path / "a.yaml", **settings, models=models)
        code, _, err = await check(file, "--probe")
        assert code == 1 and "serves models of 2 routing groups: give lora, ultra the same" in err
        models[1]["routing_group"] = "ultra"
        code, _, err = await check(write(file, **settings, models=models), "--probe")
        assert code == 0 and "routing groups" not in err


async def test_a_node_that_wants_a_key_is_told(tmp_path: Path) -> None:
    async def closed(reader: Reader, writer: Writer) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        status = b"200 OK" if path == b"/health" else b"401 Unauthorized"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(closed, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        code, _, err = await check(write(tmp_path / "a.yaml", nodes=[{"url": url}]), "--probe")
    assert code == 1 and "requires a key (nodes[].api_key)" in err
