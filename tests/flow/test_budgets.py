"""Thinking budgets on nodes that do not hold them: the gateway does, and the client sees one ordinary answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.core.fleet.capabilities import Capabilities
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, STREAM_HEAD, Asked, ScriptedNode, chunk, scripted_node
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
THINKING = 40
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about Paris."}]}
PROMPT = "<|im_start|>user\nTell me about Paris.<|im_end|>\n<|im_start|>assistant\n<think>\n"

MANNERS: dict[str, dict[str, Any]] = {
    "disobeys": {"budget": "disobey"},
    "disobeys as 0.22": {"budget": "disobey", "version": "vllm-0.22"},
    "refuses budgets": {"budget": "absent"},
    "has no parser": {"budget": "absent", "reasoning_parser": False},
    "names reasoning as of old": {"budget": "disobey", "reasoning_field": "reasoning_content"},
    "sends several tokens an event": {"budget": "disobey", "tokens_per_event": 3},
    "several tokens, no parser": {"budget": "absent", "reasoning_parser": False, "tokens_per_event": 3},
}
FEW_MANNERS = pytest.mark.parametrize(
    "manners", [MANNERS["disobeys as 0.22"], MANNERS["has no parser"]], ids=["disobeys as 0.22", "has no parser"]
)
EVERY_MANNER = pytest.mark.parametrize("manners", MANNERS.values(), ids=MANNERS.keys())


RESUME = pytest.mark.parametrize("resume", [True, False], ids=["resume", "no resume"])


@asynccontextmanager
async def proven(
    resume: bool = True, **settings: Any
) -> AsyncIterator[tuple[FakeNode, RunningGateway, httpx.AsyncClient]]:
    """A node, a gateway that has asked it what it can do, and a client."""
    made = FakeSettings(thinking_tokens=THINKING, answer_tokens=12, **settings)
    async with (
        serve_fake(made) as node,
        running_gateway(node.url, budgets={"canary": True}, resume={"enabled": resume}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.marker_shown is not None)
        yield node, gateway, client


@dataclass(slots=True)
class Heard:
    """What a client made of an answer."""

    reasoning: str = ""
    content: str = ""
    finish: str | None = None
    usage: dict[str, Any] | None = None
    ids: frozenset[str] = frozenset()
    done: int = 0

    @property
    def thought(self) -> Any:
        assert self.usage is not None
        return self.usage["completion_tokens_details"]["reasoning_tokens"]


async def ask(client: httpx.AsyncClient, stream: bool, path: str = "/v1/chat/completions", **fields: Any) -> Heard:
    body = {**(ASK if "chat" in path else {"model": MODEL, "prompt": PROMPT}), **fields}
    if not stream:
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return heard_plain(answer.json())
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return heard_stream(answer.text)


def heard_plain(answer: dict[str, Any]) -> Heard:
    (choice,) = answer["choices"]
    message = choice.get("message") or {"content": choice.get("text")}
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    return Heard(
        thought, message["content"] or "", choice["finish_reason"], answer["usage"], frozenset([answer["id"]]), 1
    )


def heard_stream(text: str) -> Heard:
    heard = Heard()
    for event in text.removesuffix("\n\n").split("\n\n"):
        data = "\n".join(line for line in event.split("\n") if line[:1] != ":").removeprefix("data: ")
        if data == "[DONE]":
            heard.done += 1
            continue
        assert heard.done == 0, "nothing comes behind the end"
        chunk = json.loads(data)
        heard.ids |= {chunk["id"]}
        assert chunk.get("prompt_token_ids") is None
        if chunk["choices"]:
            (choice,) = chunk["choices"]
            assert choice.get("token_ids") is None
            delta = choice.get("delta") or {"content": choice.get("text")}
            thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
            assert not (thought and heard.content), "reasoning comes first"
            heard.reasoning += thought
            heard.content += delta.get("content") or ""
            if choice["finish_reason"]:
                assert heard.finish is None
                heard.finish = choice["finish_reason"]
        elif chunk.get("usage"):
            assert heard.usage is None
            heard.usage = chunk["usage"]
    return heard


@EVERY_MANNER
async def test_a_budget_holds_on_a_node_that_does_not_hold_it(manners: dict[str, Any]) -> None:
    async with proven(**manners) as (node, gateway, client):
        assert gateway.app.fleet.nodes[0].capabilities.native_budget is False
        assert node.running == 0
        whole = await ask(client, stream=True, max_tokens=300)
        for budget in (0, 1, 16):
            for stream in (True, False):
                heard = await ask(client, stream, thinking_token_budget=budget, max_tokens=200)
                assert heard.thought <= budget
                if budget == 16:
                    assert heard.thought > 16 - manners.get("tokens_per_event", 1)
                assert bool(heard.reasoning) == bool(heard.thought)
                assert heard.content and heard.finish == "stop"
                assert "think>" not in heard.content + heard.reasoning
                assert len(heard.ids) == heard.done == 1
                if manners.get("reasoning_parser", True) or budget:
                    assert whole.reasoning.startswith(heard.reasoning) or whole.content.startswith(heard.reasoning)
                assert heard.usage and heard.usage["total_tokens"] == (
                    heard.usage["prompt_tokens"] + heard.usage["completion_tokens"]
                )
        await eventually(lambda: node.running == 0)


@EVERY_MANNER
async def test_thinking_that_ends_by_itself_is_left_alone(manners: dict[str, Any]) -> None:
    async with proven(**manners) as (node, _, client):
        plain = await client.post(
            f"{node.url}/v1/completions", json={"model": MODEL, "prompt": PROMPT, "max_tokens": 99}
        )
        for stream in (True, False):
            before = dict(node.stats.requests)
            heard = await ask(client, stream, thinking_token_budget=THINKING, max_tokens=99)
            assert heard.thought == THINKING
            assert heard.usage and heard.usage["completion_tokens"] == plain.json()["usage"]["completion_tokens"]
            assert plain.json()["choices"][0]["text"] == heard.reasoning + heard.content
            assert node.stats.requests["/v1/completions"] == before["/v1/completions"], "there was nothing to continue"


@EVERY_MANNER
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_raw_prompt_has_its_budget_too(manners: dict[str, Any], stream: bool) -> None:
    async with proven(**manners) as (_, _, client):
        whole = await ask(client, stream, "/v1/completions", max_tokens=200, skip_special_tokens=False)
        for budget in (0, 1, 16):
            heard = await ask(
                client,
                stream,
                "/v1/completions",
                max_tokens=200,
                skip_special_tokens=False,
                thinking_token_budget=budget,
            )
            thinking, marker, answer = heard.content.partition("</think>")
            assert marker and answer and whole.content.startswith(thinking)
            assert heard.thought <= budget and bool(thinking) == bool(heard.thought)
            assert len(heard.ids) == heard.done == 1


@FEW_MANNERS
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_messages_and_responses_have_their_budget_over_chat(manners: dict[str, Any], stream: bool) -> None:
    async with proven(**manners) as (_, _, client):
        for budget in (3, 16):
            wish = {"thinking_token_budget": budget, "model": MODEL, "stream": stream}
            body = {**wish, "max_tokens": 200, "messages": ASK["messages"]}
            told = await client.post("/v1/messages", json=body)
            assert told.status_code == 200, told.text
            thought, text, usage = message_of(told.text, stream)
            assert 0 < len(thought) < 16 * budget and text and "think>" not in thought + text
            assert usage["input_tokens"] > 0 and usage["output_tokens"] > budget
            body = {**wish, "max_output_tokens": 200, "input": "Tell me about Paris."}
            told = await client.post("/v1/responses", json=body)
            assert told.status_code == 200, told.text
            response = response_of(told.text, stream)
            assert response["status"] == "completed"
            assert response["usage"]["output_tokens_details"]["reasoning_tokens"] <= budget
            assert {item["type"] for item in response["output"]} == {"reasoning", "message"}


def message_of(text: str, stream: bool) -> tuple[str, str, dict[str, Any]]:
    """The thinking, the text and the usage of a message."""
    if not stream:
        blocks = json.loads(text)["content"]
        thought = "".join(block.get("thinking", "") for block in blocks)
        return thought, "".join(block.get("text", "") for block in blocks), json.loads(text)["usage"]
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1]["type"] == "message_stop"
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    usage = {**events[0]["message"]["usage"], **events[-2]["usage"]}
    return "".join(d.get("thinking", "") for d in deltas), "".join(d.get("text", "") for d in deltas), usage


def response_of(text: str, stream: bool) -> Any:
    if not stream:
        return json.loads(text)
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1]["type"] == "response.completed"
    return events[-1]["response"]


# Whatever pieces the node's bytes come in, and whatever was held back


def thinks() -> list[bytes]:
    """The events of a chat in which four tokens are thought."""

    def event(delta: dict[str, Any], ids: list[int], **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": ids}
        told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice], **more}
        return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"

    first = event({"role": "assistant", "content": ""}, [], prompt_token_ids=[1, 2, 3])
    return [first, *(event({"reasoning": f"{word} "}, [5]) for word in ("first", "second", "third", "fourth"))]


@asynccontextmanager
async def cut_at_two(pieces: list[bytes], **thinking: Any) -> AsyncIterator[tuple[ScriptedNode, httpx.AsyncClient]]:
    """A gateway that holds a budget of two tokens for a node that sends `pieces`, and waits."""

    async def reply(
        node: ScriptedNode, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(STREAM_HEAD)
        if asked.path == "/v1/completions":
            writer.write(chunk(b'data: {"choices":[{"index":0,"text":"answer","finish_reason":"stop"}]}\n\n' + DONE))
            writer.write(LAST_CHUNK)
            return
        for piece in pieces:
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(0.02)
        await node.until_hung_up(reader)

    async with (
        scripted_node(reply) as node,
        running_gateway(node.url, thinking={"max_budget": 2, **thinking}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20, trust_env=False) as client,
    ):
        gateway.app.fleet.nodes[0].capabilities = Capabilities(
            native_budget=False, splits_reasoning=True, think_end=(99,)
        )
        yield node, client


async def test_a_budget_holds_also_where_the_last_piece_of_its_event_begins_with_a_colon() -> None:
    """Which is no comment there."""
    *before, last = thinks()[:4]
    colon = last.index(b":", last.index(b'"reasoning"'))
    async with cut_at_two([*before, last[:colon], last[colon:]]) as (_, client):
        told = (await client.post("/v1/chat/completions", json={**ASK, "max_tokens": 100, "stream": True})).text
    assert "first" in told and "answer" in told and "third" not in told


@pytest.mark.parametrize("hide", [True, False])
async def test_a_response_has_its_opening_also_where_its_thinking_was_cut_before_it_was_seen(hide: bool) -> None:
    async with cut_at_two(thinks(), hide_reasoning=hide) as (_, client):
        body = {"model": MODEL, "input": "a", "max_output_tokens": 100, "stream": True}
        told = (await client.post("/v1/responses", json=body)).text
    events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert ("first" in told, "answer" in told, "third" in told) == (not hide, True, False)


# The backstop: nodes that proved to hold budgets, and then do not


@asynccontextmanager
async def turned(
    resume: bool = True, **settings: Any
) -> AsyncIterator[tuple[FakeNode, RunningGateway, httpx.AsyncClient]]:
    """A node that obeyed while it was asked, and disobeys now."""
    async with proven(resume, **settings) as (node, gateway, client):
        assert gateway.app.fleet.nodes[0].capabilities.native_budget is True
        async with httpx.AsyncClient(trust_env=False) as control:
            told = await control.post(f"{node.control_url}/fake/control", json={"settings": {"budget": "disobey"}})
            assert told.status_code == 200, told.text
        yield node, gateway, client


async def distrusted(gateway: RunningGateway) -> None:
    """Until the node was asked again, and has shown that it holds no budgets now."""
    await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.native_budget is False)


@pytest.mark.parametrize("version", ["vllm-0.22", "vllm-0.32"])
async def test_a_trusted_node_that_overruns_a_budget_is_cut_and_trusted_no_more(version: str) -> None:
    async with turned(version=version) as (_, gateway, client):
        whole = await ask(client, stream=True, max_tokens=300)
        heard = await ask(client, stream=True, thinking_token_budget=8, max_tokens=200)
        assert heard.thought == 8 + 16, "5 % and 16 tokens are let pass"
        assert whole.reasoning.startswith(heard.reasoning) and heard.content and heard.finish == "stop"
        assert len(heard.ids) == heard.done == 1
        assert heard.usage and heard.usage["prompt_tokens"] == whole.usage["prompt_tokens"]  # type: ignore[index]
        await distrusted(gateway)
        heard = await ask(client, stream=True, thinking_token_budget=8, max_tokens=200)
        assert heard.thought == 8
        async with httpx.AsyncClient(base_url=gateway.admin_url, trust_env=False) as admin:
            page = (await admin.get("/metrics")).text
        assert f'fleetgate_budget_overruns_total{{node="{gateway.app.fleet.nodes[0].name}"}} 1.0' in page
        assert f'fleetgate_thinking_cuts_total{{model="{MODEL}",node="{gateway.app.fleet.nodes[0].name}"}} 2.0' in page
        (wasted,) = re.findall(r'kind="wasted",model="[^"]*",tenant="default"} (\S+)', page)
        assert float(wasted) >= 2


async def test_a_plain_answer_that_overran_ends_the_trust() -> None:
    async with turned() as (_, gateway, client):
        assert (await ask(client, stream=False, thinking_token_budget=8, max_tokens=200)).thought == THINKING
        await distrusted(gateway)
        assert (await ask(client, stream=False, thinking_token_budget=8, max_tokens=200)).thought == 8


@RESUME
async def test_a_node_that_obeys_is_sent_the_budget_and_nothing_else(resume: bool) -> None:
    """But for the ids of a stream that can be resumed."""
    async with proven(resume) as (node, gateway, client):
        for stream in (True, False):
            heard = await ask(client, stream, thinking_token_budget=8, max_tokens=200)
            assert heard.thought <= 8 and heard.content
            sent = [seen for seen in node.stats.recent if "chat" in seen.path][-1].json  # probes come between
            assert sent["thinking_token_budget"] == 8
            assert sent.get("return_token_ids") is (True if resume and stream else None)
        assert gateway.app.fleet.nodes[0].capabilities.native_budget is True


async def test_usage_in_every_event_is_not_taken_for_thinking() -> None:
    """Its `reasoning_tokens` stand in each event of the answer, too."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {**ASK, "stream": True, "stream_options": options, "thinking_token_budget": 2, "max_tokens": 200}
    long = [{"role": "user", "content": "Tell me more. [[answer=60]]"}]
    async with proven() as (_, gateway, client):
        heard = heard_stream((await client.post("/v1/chat/completions", json={**body, "messages": long})).text)
        assert len(heard.content.split()) > 20 and heard.finish == "stop"
        assert gateway.app.fleet.nodes[0].capabilities.native_budget is True


async def test_several_tokens_an_event_are_reckoned_with_once_they_were_seen() -> None:
    async with turned(tokens_per_event=4) as (_, gateway, client):
        await ask(client, stream=True, thinking_token_budget=400, max_tokens=500)
        assert gateway.app.fleet.nodes[0].capabilities.pace == 1.0, "forty tokens in ten events tell too little"
        long: dict[str, Any] = {"messages": [{"role": "user", "content": "Think. [[think=400]]"}]}
        await ask(client, stream=True, thinking_token_budget=400, max_tokens=900, **long)
        assert 3.2 < gateway.app.fleet.nodes[0].capabilities.pace <= 3.6
        heard = await ask(client, stream=True, thinking_token_budget=100, max_tokens=900, **long)
        assert 121 < heard.thought < 150 and heard.content


async def test_the_continuation_goes_to_another_node_where_the_first_takes_no_connection() -> None:
    settings = FakeSettings(thinking_tokens=THINKING, rate=100, budget="disobey")
    async with (
        serve_fake(settings) as one,
        serve_fake(settings) as two,
        running_gateway(one.url, two.url, budgets={"canary": True}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        await eventually(lambda: all(node.capabilities.marker_shown is not None for node in gateway.app.fleet.nodes))
        expected = await ask(client, stream=True, thinking_token_budget=16, max_tokens=100)
        body = {**ASK, "thinking_token_budget": 16, "max_tokens": 100, "stream": True}
        body["stream_options"] = {"include_usage": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            pieces = answer.aiter_bytes()
            text = await anext(pieces)
            first, other = (one, two) if one.running else (two, one)
            first.set_faults(Fault("refuse"))
            before = other.stats.requests["/v1/completions"]
            text += b"".join([piece async for piece in pieces])
        heard = heard_stream(text.decode())
        assert (heard.reasoning, heard.content) == (expected.reasoning, expected.content)
        assert heard.done == 1 and other.stats.requests["/v1/completions"] == before + 1
        assert gateway.app.relay.open_exchanges == 0
        assert all(node.in_flight == 0 for node in gateway.app.fleet.nodes)


@RESUME
async def test_a_node_that_dies_behind_the_cut_leaves_an_error_and_not_half_an_answer(resume: bool) -> None:
    """Each time that the answer is continued, resumes included."""
    async with proven(resume, budget="disobey") as (node, gateway, client):
        node.set_faults(Fault("die", after=2, path="/v1/completions"))
        body = {**ASK, "thinking_token_budget": 4, "max_tokens": 100, "stream": True}
        told = (await client.post("/v1/chat/completions", json=body)).text
        assert ("stream_not_resumable" if resume else "upstream_cut") in told and "[DONE]" not in told
        plain = await client.post("/v1/chat/completions", json={**body, "stream": False})
        assert plain.status_code == 502
        assert gateway.app.relay.open_exchanges == 0 and gateway.app.fleet.nodes[0].in_flight == 0


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_node_that_dies_once_behind_the_cut_costs_nothing(stream: bool) -> None:
    async with proven(budget="disobey") as (node, gateway, client):
        whole = await ask(client, stream, thinking_token_budget=4, max_tokens=100)
        for after in range(9):
            node.set_faults(Fault("die", after=after, next=1, path="/v1/completions"))
            heard = await ask(client, stream, thinking_token_budget=4, max_tokens=100)
            assert (heard.reasoning, heard.content, heard.finish) == (whole.reasoning, whole.content, whole.finish)
            assert heard.thought == whole.thought and len(heard.ids) == heard.done == 1
        assert gateway.app.relay.open_exchanges == 0 and gateway.app.fleet.nodes[0].in_flight == 0


async def test_what_cannot_be_counted_is_a_clear_error() -> None:
    async with proven(budget="disobey") as (_, _, client):
        told = await client.post("/v1/chat/completions", json={**ASK, "thinking_token_budget": 4, "n": 2})
        assert (told.status_code, told.json()["error"]["param"]) == (400, "n")
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        heard = await ask(client, True, thinking_token_budget=4, tools=tools, max_tokens=99)
        assert (heard.thought, heard.content, heard.finish) == (4, "", "length")


@RESUME
async def test_a_trusted_node_that_overruns_in_messages_is_trusted_no_more(resume: bool) -> None:
    """Its stream is whole where it is one of messages, and cut at the slack where it is asked for as chat."""
    async with turned(resume) as (_, gateway, client):
        thinking = {"type": "enabled", "budget_tokens": 1024}
        body = {"model": MODEL, "max_tokens": 3000, "stream": True, "thinking": thinking}
        body["messages"] = [{"role": "user", "content": "Think. [[think=1200]]"}]
        free = {**body, "thinking": {"type": "enabled", "budget_tokens": 2048}}
        whole, _, _ = message_of((await client.post("/v1/messages", json=free)).text, stream=True)
        long, text, _ = message_of((await client.post("/v1/messages", json=body)).text, stream=True)
        assert text and whole.startswith(long) and (len(long) < 0.95 * len(whole)) is resume
        await distrusted(gateway)
        short, text, _ = message_of((await client.post("/v1/messages", json=body)).text, stream=True)
        assert text and long.startswith(short) and len(short) < 0.9 * len(whole) and len(short) < len(long)
