"""Streams of a whole gateway as the strictest client and the real SDKs read them: native ones and those over chat.

Whatever the gateway does with them (hides thinking, holds budgets, goes on on another node), each is in order and says
what the plain answer says.
"""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from gateway.core.dialects.over_chat import OverChat, messages_over_chat, responses_over_chat
from tests.dialects.over_chat.chat_streams import CALLED, THOUGHT, call, delta, ending, opening
from tests.flow.resume_cuts import cut_answers, unbroken
from tests.flow.test_resume import PATH, fleet
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.nodes import LAST_CHUNK, STREAM_HEAD, ScriptedNode, chunk, scripted_node
from tests.support.nodes import Asked as Seen
from tests.support.strict_readers import MessagesReader, ResponsesReader, StrictReader, sse
from workers.fake import FakeSettings, serve_fake
from workers.fake.server import FakeNode

MODEL = "nemotron-3-ultra"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {
    MESSAGES: [{"name": "get_weather", "input_schema": SCHEMA}],
    RESPONSES: [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}],
}
READERS: dict[str, type[StrictReader]] = {MESSAGES: MessagesReader, RESPONSES: ResponsesReader}
NATIVE: dict[str, Any] = {"resume": {"enabled": False}}
SETTINGS: dict[str, dict[str, Any]] = {
    "native": NATIVE,
    "native, hidden": {**NATIVE, "thinking": {"hide_reasoning": True}},
    "native, a budget": {**NATIVE, "thinking": {"max_budget": 8}},
    "a budget held here": {**NATIVE, "thinking": {"max_budget": 8}, "budgets": {"canary": False, "native": False}},
    "a budget held here, hidden": {
        **NATIVE,
        "thinking": {"max_budget": 8, "hide_reasoning": True},
        "budgets": {"canary": False, "native": False},
    },
    "resumable": {},
    "resumable, hidden": {"thinking": {"hide_reasoning": True}},
    "over chat": {**NATIVE, "models": [{"name": MODEL, "over_chat": True}]},
}


TRANSLATED: dict[str, OverChat] = {
    MESSAGES: messages_over_chat({"model": "m", "max_tokens": 9, "messages": [], "stream": True}),
    RESPONSES: responses_over_chat({"model": "m", "input": "hi", "stream": True}),
}


class Asked(NamedTuple):
    """A question: its text, further fields of each dialect."""

    text: str
    tools: bool = False
    limit: int = 400


QUESTIONS = {
    "an answer": Asked("hello é 🌧️"),
    "a call": Asked("weather? [[call]]", tools=True),
    "a limit in the thought": Asked("hello", limit=6),
    "a limit in the answer": Asked("hello", limit=30),
}


def body_of(path: str, asked: Asked, stream: bool) -> dict[str, Any]:
    said = [{"role": "user", "content": asked.text}]
    fields: dict[str, Any] = {"model": MODEL, "stream": stream, "temperature": 0}
    fields |= {"messages": said, "max_tokens": asked.limit} if path == MESSAGES else {}
    fields |= {"input": said, "max_output_tokens": asked.limit, "store": False} if path == RESPONSES else {}
    return fields | ({"tools": TOOLS[path]} if asked.tools else {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[FakeNode]:
    async with serve_fake(FakeSettings(version="vllm-0.33", responses_store=False)) as fake:
        yield fake


async def ask(gateway: RunningGateway, path: str, body: dict[str, Any]) -> bytes:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        got = await client.post(path, json=body, headers={"anthropic-version": "2023-06-01"})
    assert got.status_code == httpx.codes.OK, got.text
    return got.content


def counted(usage: dict[str, int]) -> int:
    """The prompt's tokens, those of the cache among them."""
    return sum(usage.get(name, 0) for name in PROMPT)


def said(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The parts of an answer, without what no two answers have in common. An empty plain message has a block."""
    parts: list[tuple[Any, ...]] = []
    for part in answer.get("content", answer.get("output", ())):
        kind = part["type"]
        if kind in ("thinking", "text") and part[kind]:
            parts.append((kind, part[kind]))
        elif kind in ("tool_use", "function_call"):
            given = part["partial_json"] if "partial_json" in part else part.get("arguments", part.get("input"))
            parts.append((kind, part["name"], json.loads(given) if isinstance(given, str) else given))
        elif "content" in part:
            parts.append((kind, "".join(piece["text"] for piece in part["content"])))
    return parts


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
async def test_a_stream_is_in_order_and_says_what_the_plain_answer_says(
    node: FakeNode, settings: dict[str, Any], path: str
) -> None:
    async with running_gateway(node.url, **settings) as gateway:
        for name, asked in QUESTIONS.items():
            stream = await ask(gateway, path, body_of(path, asked, stream=True))
            reader = READERS[path]().read(stream)
            assert reader.answer is not None, name
            plain = json.loads(await ask(gateway, path, body_of(path, asked, stream=False)))
            assert said(reader.answer) == said(plain), name
            hidden = settings.get("thinking", {}).get("hide_reasoning", False)
            assert {"thinking", "reasoning"}.isdisjoint(kind for kind, *_ in said(plain)) is hidden, name
            assert reader.answer.get("stop_reason") == plain.get("stop_reason"), name
            assert reader.answer["usage"]["output_tokens"] == plain["usage"]["output_tokens"], name
            if path == MESSAGES:
                begun = json.loads(next(sse(stream))[1])["message"]["usage"]
                assert begun["input_tokens"] == counted(reader.answer["usage"]) == counted(plain["usage"]), name


@pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.parametrize("dialect", ["messages", "responses"])
async def test_a_resumed_stream_is_in_order(dialect: str, asked: Asked) -> None:
    """Wherever its node broke off: in a thought, in the first words behind it, in a call, which ends with an error."""
    path = PATH[dialect]
    async with fleet() as made:
        body = body_of(path, asked, stream=True)
        _, _, answer = await unbroken(made, dialect, body)
        whole = READERS[path]().read(answer.content)
        assert whole.answer is not None
        cuts = 0
        async for after, got in cut_answers(made, dialect, body):
            reader = READERS[path]().read(got.content)
            assert (reader.answer is None) is (reader.error is not None), f"cut behind event {after}"
            if reader.answer is not None:
                assert said(reader.answer) == said(whole.answer), f"cut behind event {after}"
            cuts += 1
        assert cuts > 2


WIRES = {
    "thinking, then an answer": THOUGHT,
    "calls": CALLED,
    "calls by turns": opening()
    + delta(reasoning="数学 🌧️")
    + delta(tool_calls=[call(0, "", "one", "c-1"), call(1, "", "two", "c-2")])
    + b": a comment\n\n"
    + delta(tool_calls=[call(1, '{"é":')])
    + delta(tool_calls=[call(0, '{"a":"')])
    + delta(tool_calls=[call(0, '🌍"}'), call(1, ' "数"}')])
    + delta(finish="tool_calls")
    + ending(),
}
GATHERED: dict[str, list[tuple[Any, ...]]] = {
    "thinking, then an answer": [("thinking", "The capital of"), ("text", "France is 🌍\nParis")],
    "calls": [
        ("text", "Let me see."),
        ("tool", "get_weather", {"city": "Paris"}),
        ("tool", "get_time", {"zone": 1}),
    ],
    "calls by turns": [("thinking", "数学 🌧️"), ("tool", "one", {"a": "🌍"}), ("tool", "two", {"é": "数"})],
}


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("wire", WIRES)
async def test_the_sdks_gather_every_byte(wire: str, size: int) -> None:
    """The node writes each few bytes as a chunk of their own: characters are cut, and lines, and events."""
    stream = WIRES[wire]
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

    async def reply(_: ScriptedNode, asked: Seen, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for piece in pieces:
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(LAST_CHUNK)

    async with scripted_node(reply) as node, running_gateway(node.url, **SETTINGS["over chat"]) as gateway:
        assert await gathered_message(gateway.url) == GATHERED[wire]
        assert await gathered_response(gateway.url) == GATHERED[wire]


def native(path: str, stream: bytes) -> bytes:
    """A node's own stream in the dialect at `path`."""
    ask = TRANSLATED[path]
    stream_filter = ask.stream_filter()
    return stream_filter.feed(stream)


@pytest.mark.parametrize("wire", ["thinking, then an answer", "calls by turns"])
@pytest.mark.parametrize("settings", ["native", "native, hidden", "over chat"])
@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_keep_alives_stand_between_events(path: str, settings: str, wire: str) -> None:
    """The node falls silent in the middle of events, lines and characters."""
    stream = WIRES[wire] if settings == "over chat" else native(path, WIRES[wire])
    places = [0, *(len(stream) * part // 5 for part in range(1, 5)), len(stream)]

    async def reply(_: ScriptedNode, asked: Seen, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for begin, end in pairwise(places):
            writer.write(chunk(stream[begin:end]))
            await writer.drain()
            await asyncio.sleep(0.12)
        writer.write(LAST_CHUNK)

    silence: dict[str, Any] = {"timeouts": {"keep_alive": 0.04}}
    async with scripted_node(reply) as node, running_gateway(node.url, **SETTINGS[settings], **silence) as gateway:
        got = await ask(gateway, path, body_of(path, Asked("hi"), stream=True))
    assert got.count(b"event: ping" if path == MESSAGES else b": keep-alive") >= 4
    reader = READERS[path]().read(got)
    assert reader.answer is not None
    expected = [(kind, *rest) for kind, *rest in GATHERED[wire] if kind != "thinking" or settings != "native, hidden"]
    names = {"reasoning": "thinking", "message": "text", "tool_use": "tool", "function_call": "tool"}
    assert [(names.get(kind, kind), *rest) for kind, *rest in said(reader.answer)] == expected


async def gathered_message(url: str) -> list[tuple[Any, ...]]:
    """What Anthropic's SDK makes of a stream."""
    parts: list[tuple[Any, ...]] = []
    async with AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        asked: Any = [{"role": "user", "content": "hi"}]
        async with client.messages.stream(model=MODEL, max_tokens=99, messages=asked) as stream:
            for block in (await stream.get_final_message()).content:
                if block.type == "tool_use":
                    parts.append(("tool", block.name, block.input))
                else:
                    parts.append((block.type, block.thinking if block.type == "thinking" else block.to_dict()["text"]))
    return parts


async def gathered_response(url: str) -> list[tuple[Any, ...]]:
    """What OpenAI's SDK makes of one."""
    parts: list[tuple[Any, ...]] = []
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        async with client.responses.stream(model=MODEL, input="hi", store=False) as stream:
            for item in (await stream.get_final_response()).output:
                if item.type == "function_call":
                    parts.append(("tool", item.name, json.loads(item.arguments)))
                elif item.type == "reasoning":
                    parts.append(("thinking", "".join(part.text for part in item.content or ())))
                elif item.type == "message":
                    parts.append(("text", "".join(str(part.to_dict()["text"]) for part in item.content)))
    return parts
