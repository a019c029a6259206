"""What keeps a silent stream awake, wherever it falls: read by SDKs, and by readers that end events at blank lines."""

import asyncio
import contextlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.config.tree import Config
from gateway.core.http.sse import KEEP_ALIVE, PING
from gateway.wiring.reloadable import reloadable
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, chunk, scripted_node
from workers.fake import FakeSettings, serve_fake

CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
TURNS = [{"role": "user", "content": "hello"}]
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": TURNS, "max_tokens": 40},
    COMPLETIONS: {"prompt": "hello", "max_tokens": 20},
    MESSAGES: {"messages": TURNS, "max_tokens": 40},
    RESPONSES: {"input": "hello"},
}
OVER_CHAT: dict[str, Any] = {"models": [{"name": MODEL, "over_chat": True}]}
IN_OWN_DIALECT: dict[str, Any] = {"resume": {"enabled": False}}
"""Streams of messages are asked of nodes as chat so that they can be resumed."""
HIDDEN: dict[str, Any] = {"thinking": {"hide_reasoning": True}}
WAYS = [
    *((path, {}) for path in ASKS),
    *((path, OVER_CHAT) for path in (MESSAGES, RESPONSES)),
    *((path, HIDDEN) for path in (CHAT, MESSAGES, RESPONSES)),
]
SILENCE = 0.05


async def recorded(path: str) -> list[bytes]:
    """The events of a whole stream, as a node has them."""
    async with serve_fake(FakeSettings(models=(MODEL,), thinking_tokens=6, answer_tokens=6)) as node:
        async with httpx.AsyncClient(base_url=node.url) as client:
            got = await client.post(path, json={"model": MODEL, "stream": True, **ASKS[path]})
    assert got.status_code == 200, got.content
    return [event + b"\n\n" for event in got.content.split(b"\n\n")[:-1]]


class Line:
    """Between a client and the gateway: keeps what the gateway says."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.said = bytearray()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def beats(self) -> int:
        return self.said.count(KEEP_ALIVE) + self.said.count(PING)

    async def beat(self) -> None:
        """Wait for the next sign of life."""
        before = self.beats
        await eventually(lambda: self.beats > before)

    def connected(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: Reader, writer: Writer) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def ask() -> None:
            while data := await reader.read(65_536):
                back.write(data)

        asking = asyncio.create_task(ask())
        try:
            while data := await there.read(65_536):
                self.said += data
                writer.write(data)
        finally:
            asking.cancel()
            writer.close()
            back.close()


@contextlib.asynccontextmanager
async def slow_stream(path: str, settings: dict[str, Any], pauses: bool = True) -> AsyncIterator[Line]:
    """A gateway before a node that waits for a sign of life in each place: before its head, before the first event,
    within it, between two events, within a later one, in the middle of one's last line end."""
    events = await recorded(CHAT if settings == OVER_CHAT else path)
    line: Line

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        async def pause() -> None:
            await writer.drain()
            if pauses:
                await line.beat()

        await pause()
        writer.write(STREAM_HEAD)
        for at, event in enumerate(events):
            if at in (0, 1, 5, len(events) - 1):
                await pause()
            cuts = {0: (1, len(event) - 1), 3: (len(event) // 2,), 7: (9,)}.get(at, ())
            begun = 0
            for cut in cuts:
                writer.write(chunk(event[begun:cut]))
                await pause()
                begun = cut
            writer.write(chunk(event[begun:]))
        writer.write(LAST_CHUNK)

    timeouts = {"keep_alive": SILENCE if pauses else 0}
    async with (
        scripted_node(reply) as node,
        running_gateway(node.url, timeouts=timeouts, **(settings or IN_OWN_DIALECT)) as gateway,
    ):
        line = Line(gateway.port)
        server = await asyncio.start_server(line.connected, "127.0.0.1", 0)
        line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield line
        finally:
            server.close()
            await line.close()


async def read(line: Line, path: str) -> bytes:
    async with httpx.AsyncClient(base_url=line.url, timeout=60) as client:
        got = await client.post(path, json={"model": MODEL, "stream": True, **ASKS[path]})
    assert got.status_code == 200, got.content
    return got.content


# Readers


def by_lines(content: bytes) -> list[Any]:
    """Ends an event at every blank line, and parses its data, whatever it has."""
    events, data = [], b""
    for each in content.split(b"\n")[:-1]:
        name, _, value = each.partition(b":")
        if name == b"data":
            data += value.lstrip() + b"\n"
        if each == b"":
            events.append(data.strip() if data.startswith(b"[DONE]") else json.loads(data))
            data = b""
    return events


def by_blocks(content: bytes) -> list[Any]:
    """Cuts at every blank line, and takes the data lines of each block."""
    events = []
    for block in content.split(b"\n\n")[:-1]:
        (data,) = [each[6:] for each in block.split(b"\n") if each.startswith(b"data: ")]
        events.append(data if data == b"[DONE]" else json.loads(data))
    return events


@pytest.mark.parametrize("reader", [by_lines, by_blocks])
@pytest.mark.parametrize(("path", "settings"), WAYS)
async def test_readers_that_end_an_event_at_every_blank_line_read_on(
    path: str, settings: dict[str, Any], reader: Callable[[bytes], list[Any]]
) -> None:
    """And find the events that there are without a silence."""
    async with slow_stream(path, settings) as line:
        content = await read(line, path)
        assert line.beats >= 4
    mark = PING if path == MESSAGES else KEEP_ALIVE
    assert content.startswith(mark)
    async with slow_stream(path, settings, pauses=False) as line:
        awake = await read(line, path)
        assert line.beats == 0
    found = [event for event in reader(content) if event != {"type": "ping"}]
    assert shape(found) == shape(reader(awake))
    assert content.count(b"data: ") - content.count(PING) == awake.count(b"data: ")


def shape(events: list[Any]) -> list[Any]:
    """Without what every stream has of its own."""
    return [sorted(event) if isinstance(event, dict) else event for event in events]


# SDKs


async def test_openais_sdk_reads_on_in_chat() -> None:
    async with slow_stream(CHAT, {}) as line, openai.AsyncOpenAI(base_url=f"{line.url}/v1", api_key="any") as client:
        stream = await client.chat.completions.create(model=MODEL, stream=True, **ASKS[CHAT])
        chunks = [each async for each in stream]
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert line.beats >= 4


@pytest.mark.parametrize("settings", [{}, OVER_CHAT])
async def test_openais_sdk_reads_on_in_responses(settings: dict[str, Any]) -> None:
    async with (
        slow_stream(RESPONSES, settings) as line,
        openai.AsyncOpenAI(base_url=f"{line.url}/v1", api_key="any") as client,
    ):
        async with client.responses.stream(model=MODEL, input="hello") as stream:
            answer = await stream.get_final_response()
        assert answer.status == "completed" and answer.output_text
        assert line.beats >= 4


@pytest.mark.parametrize("settings", [{}, OVER_CHAT])
async def test_anthropics_sdk_reads_on(settings: dict[str, Any]) -> None:
    async with (
        slow_stream(MESSAGES, settings) as line,
        anthropic.AsyncAnthropic(base_url=line.url, api_key="any") as client,
    ):
        async with client.messages.stream(model=MODEL, messages=TURNS, max_tokens=40) as stream:  # type: ignore[arg-type]
            answer = await stream.get_final_message()
        assert answer.stop_reason == "end_turn" and answer.content
        assert line.beats >= 4 and PING in line.said and KEEP_ALIVE not in line.said


@pytest.mark.parametrize("path", ASKS)
async def test_nothing_follows_the_end(path: str) -> None:
    """Although the node keeps its stream open behind it."""
    events = await recorded(path)

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + b"".join([chunk(event) for event in events]))
        await asyncio.sleep(10 * SILENCE)
        writer.write(LAST_CHUNK)

    settings: dict[str, Any] = {"timeouts": {"keep_alive": SILENCE}, **IN_OWN_DIALECT}
    async with scripted_node(reply) as node, running_gateway(node.url, **settings) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            got = await client.post(path, json={"model": MODEL, "stream": True, **ASKS[path]})
    assert got.content.endswith(events[-1])


async def test_what_comes_before_an_answer_may_be_long() -> None:
    """`response.created` repeats instructions and tools. It comes in many pieces then, none of which is a sign that the
    engine has begun: a long prefill may follow."""
    events = await recorded(RESPONSES)
    assert b"response.created" in events[0] and b"response.in_progress" in events[1]

    async def prefills(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD)
        for event in events[:2]:
            for piece in (event[:40], event[40:60], event[60:]):
                writer.write(chunk(piece))
                await writer.drain()
                await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)
        writer.write(b"".join(map(chunk, events[2:])) + LAST_CHUNK)

    async with scripted_node(prefills) as node, running_gateway(node.url, timeouts={"idle": 0.5}) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            got = await client.post(RESPONSES, json={"model": MODEL, "stream": True, **ASKS[RESPONSES]})
        assert got.status_code == 200 and got.content == b"".join(events)


# Settings


def test_none_is_sent_where_the_setting_is_0() -> None:
    config = Config(timeouts={"keep_alive": 0})  # type: ignore[arg-type]
    assert reloadable(config, config, b"key").relay.timeouts.keep_alive == float("inf")
