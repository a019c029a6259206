"""Five nights: what the log says of each, without a look at anything else."""

import asyncio
import contextlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.core.access.api_keys import key_digest
from tests.flow.test_server_process import CHAT, PLAIN, PROMPT
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, event, scripted_node
from tests.support.raw import raw_client

KEY = f"fg-one-{'k' * 30}"
AGENT = "night-shift/1.0"


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """What the user of the request asks for."""
    match json.loads(asked.body).get("user"):
        case "broken":
            writer.write(answer(b'{"error": {"message": "CUDA error at secret@host", "code": 500}}', "500 Oops"))
        case "cut":
            writer.write(STREAM_HEAD + chunk(event("first")))
            await writer.drain()
            writer.transport.abort()
        case "slow":
            await node.until_hung_up(reader)
        case _:
            writer.write(answer(PLAIN))


@contextlib.asynccontextmanager
async def gateway(folder: Path, nodes: int = 1, **settings: Any) -> AsyncIterator[GatewayProcess]:
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(scripted_node(reply))).url for _ in range(nodes)]
        file = folder / "fleetgate.yaml"
        tree: dict[str, Any] = {
            "nodes": [{"url": url} for url in urls],
            "models": [{"name": MODEL, "aliases": ["alias"], "price": {"input": 1.0, "output": 10.0}}],
            "tenants": [{"name": "acme", "keys": [{"sha256": key_digest(KEY).hex()}]}],
            "listen": {"trusted_proxies": ["127.0.0.1"]},
            "budgets": {"canary": False},
            **settings,
        }
        file.write_text(yaml.safe_dump(tree))
        process = await stack.enter_async_context(gateway_process("-c", file))
        yield process
        assert not any(PROMPT in line or KEY in line or "Traceback" in line for line in process.lines)


async def ask(gateway: GatewayProcess, **changes: Any) -> int:
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], **changes}
    headers = {"x-api-key": KEY, "user-agent": AGENT, "x-forwarded-for": "192.0.2.7"}
    async with httpx.AsyncClient(timeout=30, headers=headers) as client:
        return (await client.post(gateway.url + CHAT, json=body)).status_code


async def last_line(gateway: GatewayProcess, count: int = 1) -> dict[str, Any]:
    await eventually(lambda: len(gateway.events("request")) >= count)
    assert len(gateway.events("request")) == count
    line = gateway.events("request")[-1]
    assert (line["address"], line["user_agent"], line["tenant"]) == ("192.0.2.7", AGENT, "acme")
    return line


async def test_a_model_that_there_is_not_is_named(tmp_path: Path) -> None:
    async with gateway(tmp_path, output={"max_tokens": 64}) as at:
        assert await ask(at, model="nemotron-ultr") == 404
        line = await last_line(at)
        assert (line["level"], line["ending"], line["model_asked"], line["model"]) == (
            "warning",
            "model_not_found",
            "nemotron-ultr",
            None,
        )
        assert line["error"] is None, "the code says it; the text quotes the client"
        assert await ask(at, model="alias") == 200
        line = await last_line(at, 2)
        assert (line["level"], line["model_asked"], line["model"], line["error"]) == ("info", "alias", MODEL, None)
        assert line["max_tokens"] == 64
        assert line["cost_usd"] == (11 * 1.0 + 7 * 10.0) / 1e6, "as the node counted"


async def test_a_limit_is_named(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 1}
    tenants = [{"name": "acme", "limits": limits, "keys": [{"sha256": key_digest(KEY).hex()}]}]
    async with gateway(tmp_path, tenants=tenants) as at:
        assert [await ask(at), await ask(at)] == [200, 429]
        line = await last_line(at, 2)
        assert (line["level"], line["limit"]) == ("warning", "tenant.requests_per_minute")
        assert line["error"].startswith("Rate limit reached for tenant acme: requests_per_minute 1")


async def test_a_fleet_that_fails_is_told_with_its_words_and_its_nodes(tmp_path: Path) -> None:
    async with gateway(tmp_path, nodes=2) as at:
        assert await ask(at, user="broken") == 500
        line = await last_line(at)
        assert (line["level"], line["status"], line["attempts"]) == ("error", 500, 2)
        assert [each["outcome"] for each in line["failed_attempts"]] == ["failed", "failed"]
        assert "CUDA error" in line["error"]


async def test_an_answer_that_was_cut_is_an_error_though_its_status_is_200(tmp_path: Path) -> None:
    async with gateway(tmp_path, resume={"enabled": False}) as at:
        assert await ask(at, user="cut", stream=True) == 200
        line = await last_line(at)
        assert (line["level"], line["ending"], line["status"]) == ("error", "upstream_cut", 200)
        assert line["error"] and line["failed_attempts"][0]["outcome"] == "cut"


async def test_a_client_that_left_is_499_and_no_error(tmp_path: Path) -> None:
    async with gateway(tmp_path) as at:
        async with raw_client(at.port) as client:
            body = {"model": MODEL, "messages": [], "user": "slow"}
            fields = [f"x-api-key: {KEY}", f"user-agent: {AGENT}", "x-forwarded-for: 192.0.2.7"]
            await client.post(CHAT, body, *fields)
            async with asyncio.timeout(30):
                while "fleetgate_open_requests 1.0" not in await metrics(at):
                    await asyncio.sleep(0.05)
        line = await last_line(at)
        assert (line["level"], line["status"], line["ending"]) == ("info", 499, "client_gone")
        assert 'status="499"' in await metrics(at)


async def test_only_troubles_are_logged_at_that_level(tmp_path: Path) -> None:
    async with gateway(tmp_path, log={"level": "warning"}) as at:
        assert [await ask(at), await ask(at, model="none")] == [200, 404]
        assert (await last_line(at))["status"] == 404


async def metrics(gateway: GatewayProcess) -> str:
    async with httpx.AsyncClient(timeout=10) as client:
        return (await client.get(f"{gateway.admin_url}/metrics")).text


async def test_what_strangers_write_is_kept_short_and_no_secret(tmp_path: Path) -> None:
    """Metrics and log hold thousands of requests for seconds; a key in the place of a model's name is not logged."""
    async with gateway(tmp_path) as at:
        for model in ("m" * 100_000, f"fg-{'a' * 46}", "sk-secret"):
            assert await ask(at, model=model) == 404
        headers = {"x-api-key": KEY, "user-agent": "a" * 5000}
        async with httpx.AsyncClient(timeout=30, headers=headers) as client:
            await client.post(at.url + CHAT, json={"model": MODEL, "messages": []})
        await eventually(lambda: len(at.events("request")) == 4)
        assert {line["model_asked"] for line in at.events("request")} == {"...", MODEL}
        assert max(len(line["user_agent"]) for line in at.events("request")) == 200
        assert all(len(json.dumps(line)) < 2000 for line in at.events("request"))
