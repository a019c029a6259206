"""Reasoning that is hidden: taken out of every dialect's answers, streamed and plain, and nothing else with it."""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from itertools import product
from typing import Any

import httpx
import pytest

from gateway.core.dialects import DIALECTS
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, STREAM_HEAD, Asked, ScriptedNode, chunk, event, scripted_node
from workers.fake import FakeSettings, serve_fake

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
SAY = "Say something. [[think=30]] [[answer=20]]"
TURNS = [{"role": "user", "content": SAY}]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": TURNS},
    "responses": {"input": SAY},
    "messages": {"messages": TURNS, "max_tokens": 200},
}
HIDDEN: dict[str, Any] = {"thinking": {"hide_reasoning": True}}
EVERY = pytest.mark.parametrize("name", BODIES)


async def ask(gateway: RunningGateway, name: str, stream: bool, **more: Any) -> httpx.Response:
    body = {"model": "nemotron-3-ultra", **BODIES[name], "stream": stream, **more}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
        return await client.post(BY_NAME[name].path, json=body)


def events_of(answer: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in answer.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def text_of(name: str, events: list[dict[str, Any]]) -> str:
    """What was answered, thinking aside."""
    if name == "chat":
        return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
    if name == "messages":
        return "".join(e["delta"]["text"] for e in events if e.get("delta", {}).get("type") == "text_delta")
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


@EVERY
async def test_a_stream_without_reasoning_has_the_same_answer(name: str) -> None:
    async with (
        serve_fake(FakeSettings()) as node,
        running_gateway(node.url) as open_,
        running_gateway(node.url, **HIDDEN) as hiding,
    ):
        await ask(open_, name, True)  # both of the next two find the prompt in the cache
        shown, hidden = await ask(open_, name, True), await ask(hiding, name, True)
    before, after = events_of(shown.content), events_of(hidden.content)
    assert b"thinking_delta" in shown.content or b"reasoning" in shown.content
    assert text_of(name, after) == text_of(name, before) != ""
    assert len(after) < len(before) - 20
    for mark in (
        b'"reasoning":"',
        b'"reasoning_content"',
        b'thinking"',
        b"thinking_delta",
        b"response.reasoning",
        b"signature",
    ):
        assert mark not in hidden.content
    assert hidden.headers["x-fleetgate-reasoning"] == "hidden; source=gateway-hide"
    if name == "messages":
        assert {e["index"] for e in after if "index" in e} == {0}
        assert after[-2]["usage"] == before[-2]["usage"], "thinking is paid for"
    if name == "responses":
        assert [e["sequence_number"] for e in after] == list(range(len(after)))
        assert {e["output_index"] for e in after if "output_index" in e} == {0}
        assert [item["type"] for item in after[-1]["response"]["output"]] == ["message"]


@EVERY
async def test_a_plain_answer_without_reasoning(name: str) -> None:
    async with (
        serve_fake(FakeSettings()) as node,
        running_gateway(node.url) as open_,
        running_gateway(node.url, **HIDDEN) as hiding,
    ):
        await ask(open_, name, False)  # both of the next two find the prompt in the cache
        shown, hidden = (await ask(open_, name, False)).json(), (await ask(hiding, name, False)).json()
    assert shown["usage"] == hidden["usage"]
    if name == "chat":
        assert (
            shown["choices"][0]["message"].pop("reasoning") and hidden["choices"][0]["message"].pop("reasoning") is None
        )
        assert shown["choices"] == hidden["choices"]
    elif name == "messages":
        assert [block["type"] for block in hidden["content"]] == ["text"]
        assert shown["content"][1:] == hidden["content"]
    else:
        assert [item["type"] for item in shown["output"]] == ["reasoning", "message"]
        assert [item["content"] for item in hidden["output"]] == [shown["output"][1]["content"]]


async def test_a_client_can_ask_for_it() -> None:
    """OpenRouter's spelling, which a node ignores in silence."""
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        answer = await ask(gateway, "chat", True, reasoning={"exclude": True})
    assert text_of("chat", events_of(answer.content)) and b'"reasoning":"' not in answer.content


async def test_a_node_without_a_reasoning_parser_hides_as_well() -> None:
    settings = FakeSettings(reasoning_parser=False)
    async with serve_fake(settings) as node, running_gateway(node.url, budgets={"canary": True}, **HIDDEN) as gateway:
        await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.splits_reasoning is not None)
        for name, stream in product(BODIES, (True, False)):
            answer = await ask(gateway, name, stream)
            assert answer.status_code == 200 and b"think>" not in answer.content
            assert text_of(name, events_of(answer.content)) if stream else len(answer.content) > 200


async def test_a_stored_response_is_shown_without_reasoning() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **HIDDEN) as gateway:
        made = (await ask(gateway, "responses", False)).json()
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            again = (await client.get(f"/v1/responses/{made['id']}")).json()
    assert [item["type"] for item in again["output"]] == ["message"]


async def test_a_node_that_thinks_unseen_is_not_taken_for_a_silent_one() -> None:
    """`first_byte` bounds a node's silence before its answer; one that sends hidden thinking is not silent."""
    released = asyncio.Event()
    thought = b'data: {"choices":[{"index":0,"delta":{"reasoning":"hm"},"finish_reason":null}]}\n\n'

    async def think(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD)
        while not released.is_set():
            writer.write(chunk(thought))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(chunk(event("done")) + chunk(DONE) + LAST_CHUNK)

    timeouts = {"first_byte": 0.1, "keep_alive": 0.3}
    async with scripted_node(think) as node, running_gateway(node.url, timeouts=timeouts, **HIDDEN) as gateway:
        body = {"model": "nemotron-3-ultra", "messages": [], "stream": True}
        async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                got = b""
                async for piece in answer.aiter_raw():
                    got += piece
                    released.set()  # the first that comes is a comment, well after `first_byte`
    assert answer.status_code == 200
    assert got.startswith(b": keep-alive\n") and event("done") in got and got.endswith(DONE)
