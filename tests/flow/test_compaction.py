"""Conversations that a gateway has summarised, at their own path and by Codex's trigger, and that go on from there."""

import json
from typing import Any

import httpx
import openai
import pytest

from gateway.core.access.api_keys import key_digest
from gateway.core.dialects.opaque_text import COMPACTION, decode_text
from gateway.core.dialects.over_chat.compaction import INSTRUCTION
from gateway.core.dialects.responses_input import SUMMARY_LEAD
from tests.flow.test_limits import left, limited
from tests.flow.test_over_chat import CALLED, CHAT, FUNCTION, MODEL, OVER_CHAT, RESPONSES, ask, asked_last, turn
from tests.support.gateways import eventually, running_gateway
from tests.support.meaning import events_of
from workers.fake import FakeSettings, Fault, serve_fake

COMPACT = f"{RESPONSES}/compact"
TRIGGER = {"type": "compaction_trigger"}
TALK = [turn("weather?"), CALLED, {"type": "function_call_output", "call_id": "t1", "output": "Sunny"}]
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
WAYS = pytest.mark.parametrize("way", [{}, OVER_CHAT, {"resume": {"enabled": False}}], ids=["usual", "chat", "native"])


def summary_of(output: list[dict[str, Any]]) -> str:
    text = decode_text(COMPACTION, output[-1]["encrypted_content"])
    assert text
    return text


@WAYS
async def test_a_session_goes_on_from_its_summary(way: dict[str, Any]) -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **way) as gateway:
        compacted = await ask(gateway.url, COMPACT, {"input": TALK, "tools": [FUNCTION], "instructions": "Be brief."})
        assert compacted.status_code == 200, compacted.text
        assert asked_last(node).path == CHAT
        sent = asked_last(node).json
        assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "tool", "user"]
        assert (sent["messages"][-1]["content"], sent["tool_choice"]) == (INSTRUCTION, "none")
        whole = compacted.json()
        assert whole["object"] == "response.compaction"
        assert [item["type"] for item in whole["output"]] == ["message", "compaction"]
        assert whole["usage"]["output_tokens"] > 0
        for stream in (False, True):
            body = {"input": [*whole["output"], turn("And now?")], "tools": [FUNCTION], "stream": stream}
            gone_on = await ask(gateway.url, RESPONSES, body)
            assert gone_on.status_code == 200, gone_on.text
            last = asked_last(node).json
            items = last.get("input") or last["messages"]
            assert items[1]["content"] == SUMMARY_LEAD + summary_of(whole["output"])
            assert items[1]["role"] == "user", "it has no more power than what the user says"


@WAYS
@STREAM
async def test_codexs_trigger(way: dict[str, Any], stream: bool) -> None:
    """What Codex wants of the answer: one compaction among its items, and `response.completed`."""
    codex: dict[str, Any] = {"tools": [FUNCTION], "store": False, "include": ["reasoning.encrypted_content"]}
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **way) as gateway:
        got = await ask(gateway.url, RESPONSES, {**codex, "input": [*TALK, TRIGGER], "stream": stream})
        assert got.status_code == 200, got.text
        whole = events_of(got.content)[-1]["response"] if stream else got.json()
        if stream:
            events = events_of(got.content)
            done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
            assert (done, events[-1]["type"]) == (whole["output"], "response.completed")
        assert ([item["type"] for item in whole["output"]], whole["status"]) == (["compaction"], "completed")
        assert summary_of(whole["output"])
        assert "compaction_trigger" not in json.dumps(asked_last(node).json)


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # it has no user's message among items of an output
async def test_openais_sdk() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
            compacted = await client.responses.compact(model=MODEL, input="hello")
            assert compacted.object == "response.compaction"
            assert [item.type for item in compacted.output] == ["message", "compaction"]
            history: Any = [*compacted.output, turn("And now?")]
            gone_on = await client.responses.create(model=MODEL, input=history)
            assert gone_on.output_text


async def test_it_is_charged_what_it_used() -> None:
    async with limited(tokens_per_minute=1200) as (_, client, _):
        before = await left(client)
        body = {"model": MODEL, "input": "hello", "max_output_tokens": 400}
        used = (await client.post(COMPACT, json=body)).json()["usage"]["total_tokens"]
        assert used > 100
        assert await left(client) == pytest.approx(before - used - 1, abs=20), "20 come back in a second"


@STREAM
async def test_no_summary_is_charged_too(stream: bool) -> None:
    """Else long prompts would cost nothing where no room is left for an answer. Nor is it the node's failure."""
    async with limited(tokens_per_minute=100_000) as (_, client, _):
        before = await left(client)
        body = {"model": MODEL, "input": [turn("hello " * 2000), TRIGGER], "max_output_tokens": 3, "stream": stream}
        got = await client.post(RESPONSES, json=body)
        assert (got.status_code, b'"no_summary"' in got.content) == (200 if stream else 502, True), got.text
        assert stream or got.headers["x-should-retry"] == "false"
        assert before - await left(client) > 2000


async def test_it_is_limited_as_any_response() -> None:
    tenant = {"name": "a", "keys": [{"sha256": key_digest("fg-a").hex()}], "limits": {"requests_per_minute": 2}}
    async with (
        serve_fake(FakeSettings()) as node,
        running_gateway(node.url, tenants=[tenant]) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as client,
    ):
        for key, status in (("fg-b", 401), ("fg-a", 200), ("fg-a", 200), ("fg-a", 429)):
            headers = {"authorization": f"Bearer {key}"}
            got = await client.post(COMPACT, json={"model": MODEL, "input": "hello"}, headers=headers)
            assert got.status_code == status, got.text


@STREAM
async def test_a_budget_and_a_bound_hold(stream: bool) -> None:
    rules: dict[str, Any] = {"thinking": {"max_budget": 7}, "output": {"max_tokens": 60}}
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **rules) as gateway:
        for path, body in ((COMPACT, {"input": TALK}), (RESPONSES, {"input": [*TALK, TRIGGER], "stream": stream})):
            got = await ask(gateway.url, path, body)
            assert got.status_code == 200, got.text
            assert got.headers["x-fleetgate-thinking-budget"].startswith("7;")
            sent = asked_last(node).json
            assert (sent["thinking_token_budget"], sent["max_tokens"]) == (7, 60)


async def test_hidden_thinking_is_in_no_summary() -> None:
    hidden: dict[str, Any] = {"thinking": {"hide_reasoning": True}}
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **hidden) as gateway:
        open_answer = await ask(node.url, CHAT, {"messages": [turn("hello"), turn(INSTRUCTION)], "max_tokens": 400})
        said = open_answer.json()["choices"][0]["message"]
        got = await ask(gateway.url, COMPACT, {"input": "hello"})
        assert summary_of(got.json()["output"]) == said["content"]
        assert said["reasoning"] not in said["content"]


@pytest.mark.parametrize("path", [COMPACT, RESPONSES])
async def test_another_vendors_compaction_is_refused_by_name(path: str) -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        foreign = {"type": "compaction", "encrypted_content": "gAAAA"}
        refused = await ask(gateway.url, path, {"input": [foreign, turn("hello")]})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "unknown_compaction")
        assert error["param"] == "input.0.encrypted_content"


async def test_a_summary_survives_its_node() -> None:
    """By the trigger it is a stream as any other, which goes on on another node."""
    async with (
        serve_fake(FakeSettings(rate=400)) as first,
        serve_fake(FakeSettings(rate=400)) as second,
        running_gateway(first.url, nodes=[{"url": first.url}, {"url": second.url}]) as gateway,
    ):
        await eventually(lambda: gateway.app.fleet.serves(MODEL))
        body = {"input": [turn("hello [[answer=40]]"), TRIGGER], "stream": True, "store": False}
        whole = await ask(gateway.url, RESPONSES, body)
        for node in (first, second):
            node.set_faults(Fault("die", after=40, next=1))
        broken = await ask(gateway.url, RESPONSES, body)
        summaries = [summary_of(events_of(got.content)[-1]["response"]["output"]) for got in (whole, broken)]
        assert summaries[0] == summaries[1]
        assert b"resumed" in broken.content
