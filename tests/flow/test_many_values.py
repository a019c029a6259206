"""Bodies of very many values are read in another process: what clients and nodes get of them, and who pays.

No call in the gateway's own process sees such a body's values: the parsers and walks that would are watched.
"""

import asyncio
import json
import os
import signal
from typing import Any

import httpx
import orjson
import pytest

from gateway.core import bodies
from gateway.core.dialects import DIALECTS, base
from gateway.core.reading.outline import REWRITABLE
from gateway.core.thinking import sizes
from gateway.reading import reader as reading
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
COMPILED = bodies.__file__.endswith(".so")
MANY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": "7",
    "priority": 1,
    "messages": [{"role": "user", "content": "hi"}],
    "documents": [{"a": 1}] * (REWRITABLE // 2 + 10),
}
CHOICE = b'{"message":{"content":"a"},"finish_reason":"stop"}'
ANSWER = b'{"choices":[%b],"usage":{"prompt_tokens":1,"completion_tokens":1}}' % CHOICE


async def ok(node: ScriptedNode, asked: Asked, *streams: Any) -> None:
    streams[-1].write(answer(ANSWER))


async def nothing_held(gateway: RunningGateway) -> None:
    await eventually(lambda: gateway.app.memory.held == 0)
    limiter = gateway.app.limiter
    assert limiter is None or (limiter.live, limiter._arrivals._running) == ({}, {})


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/pooling"])
async def test_a_node_gets_the_body_and_this_process_never_takes_it_apart(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watch(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def watched(first: Any, *more: Any) -> Any:
            seen.append(len(first) if isinstance(first, bytes) else len(json.dumps(first)))
            return work(first, *more)

        monkeypatch.setattr(owner, name, watched)

    if not COMPILED:
        for owner, name in (
            (orjson, "loads"),
            (bodies, "_parse_slowly"),
            (base, "parse_body"),
            (base, "check_arguments"),
            (sizes, "_measure"),
        ):
            watch(owner, name)
    async with scripted_node(ok) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            content = json.dumps({**MANY, "prompt": list(range(REWRITABLE)), "input": "a"}).encode()
            told = await client.post(path, content=content)
        assert told.status_code == 200
        sent = json.loads(node.asked[0].body)
        assert "priority" not in sent
        assert sent["documents"] == MANY["documents"] and sent["prompt"] == list(range(REWRITABLE))
        assert path == CHAT or sent["max_tokens"] in (7, "7")
        assert max(seen, default=0) < 100_000
        await nothing_held(gateway)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_what_is_wrong_with_it_is_said_in_its_dialect_as_of_any_body(dialect: Any) -> None:
    small = json.dumps({**MANY, "documents": [], "stream": "perhaps"}).encode()
    large = json.dumps({**MANY, "stream": "perhaps"}).encode()
    async with scripted_node(ok) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            told = [await client.post(dialect.path, content=content) for content in (small, large)]
        assert [each.status_code for each in told] == [400, 400]
        bodies_told = [{**each.json(), "request_id": ""} for each in told]
        assert bodies_told[0] == bodies_told[1]
        await nothing_held(gateway)


async def test_what_would_have_to_be_rewritten_is_refused() -> None:
    over_chat = [{"name": MODEL, "over_chat": True}]
    async with scripted_node(ok) as node, running_gateway(node.url, models=over_chat) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            told = await client.post(MESSAGES, content=json.dumps(MANY).encode())
            assert (told.status_code, told.json()["error"]["type"]) == (413, "request_too_large")
            assert str(REWRITABLE) in told.json()["error"]["message"]
            assert (await client.post(CHAT, content=json.dumps(MANY).encode())).status_code == 200
        await nothing_held(gateway)


async def test_a_reader_that_dies_is_a_503_in_the_dialect_and_is_replaced() -> None:
    limits = {"default": {"concurrent_requests": 2}}
    async with scripted_node(ok) as node, running_gateway(node.url, limits=limits) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            content = json.dumps({**MANY, "user": "x" * 1_000_000}).encode()  # more than a socket takes
            assert (await client.post(CHAT, content=content)).status_code == 200
            for path, code in ((CHAT, "body_unread"), (MESSAGES, None)):
                first = gateway.app.reader.pid
                assert first is not None
                os.kill(first, signal.SIGSTOP)
                asking = asyncio.create_task(client.post(path, content=content))
                await eventually(lambda: gateway.app.reader.unwritten > 0)
                os.kill(first, signal.SIGKILL)
                told = await asking
                assert told.status_code == 503 and int(told.headers["retry-after"]) >= 1
                assert told.json()["error"].get("code") == code
                assert (await client.post(CHAT, content=content)).status_code == 200
                assert gateway.app.reader.pid != first
        await nothing_held(gateway)


async def test_a_client_that_leaves_frees_what_it_held() -> None:
    async with scripted_node(ok) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            content = json.dumps(MANY).encode()
            assert (await client.post(CHAT, content=content)).status_code == 200
            pid = gateway.app.reader.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            leaving = [asyncio.create_task(client.post(CHAT, content=content)) for _ in range(3)]
            await eventually(lambda: gateway.app.memory.held > 3 * len(content))
            for task in leaving:
                task.cancel()
            await nothing_held(gateway)
            os.kill(pid, signal.SIGCONT)
            assert (await client.post(CHAT, content=content)).status_code == 200
            assert gateway.app.reader.pid == pid
        assert len(node.asked) == 2


async def test_a_deadline_holds_while_a_body_is_read_and_while_it_waits_for_that() -> None:
    limits = {"default": {"concurrent_requests": 5}}
    async with scripted_node(ok) as node, running_gateway(node.url, limits=limits) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            content = json.dumps(MANY).encode()
            assert (await client.post(CHAT, content=content)).status_code == 200
            pid = gateway.app.reader.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            hurried = {"x-request-timeout": "0.3"}
            asked = [client.post(path, content=content, headers=hurried) for path in (CHAT, CHAT, MESSAGES)]
            for told in await asyncio.gather(*asked):
                assert told.status_code == 504 and "x-request-timeout" in told.json()["error"]["message"]
            await nothing_held(gateway)
            os.kill(pid, signal.SIGCONT)
            patient = {"x-request-timeout": "60"}
            assert (await client.post(CHAT, content=content, headers=patient)).status_code == 200
            assert gateway.app.reader.pid == pid, "what it read for nobody was taken"
        assert len(node.asked) == 2


async def test_a_reader_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_node(ok) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:
            content = json.dumps(MANY).encode()
            assert (await client.post(CHAT, content=content)).status_code == 200
            pid = gateway.app.reader.pid
            assert pid is not None
            monkeypatch.setattr(reading, "PATIENCE", 0.05)
            os.kill(pid, signal.SIGSTOP)
            assert (await client.post(CHAT, content=content)).status_code == 503
            monkeypatch.setattr(reading, "PATIENCE", 60.0)
            assert (await client.post(CHAT, content=content)).status_code == 200
        await nothing_held(gateway)
