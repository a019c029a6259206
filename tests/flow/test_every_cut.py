"""A node that dies at any byte of a stream: what the client gets is whole, or says that it is not."""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
import pytest

from tests.support.gateways import RunningGateway, running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, chunk, event, scripted_node


@dataclass(frozen=True, slots=True)
class Case:
    """One dialect's stream: its events in order; the client has a whole answer once it has seen `end`."""

    path: str
    events: tuple[bytes, ...]
    end: bytes
    error: bytes

    @property
    def wire(self) -> bytes:
        return STREAM_HEAD + b"".join(map(chunk, self.events)) + LAST_CHUNK


def named(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'

CASES = {
    "chat": Case("/v1/chat/completions", (event("a"), event("b"), FINISH, USAGE, DONE), DONE, b'data: {"error":'),
    "completions": Case("/v1/completions", (event("a"), event("b"), FINISH, USAGE, DONE), DONE, b'data: {"error":'),
    "responses": Case(
        "/v1/responses",
        (
            named("response.created", response={"id": "r", "error": None, "usage": None}),
            named("response.output_text.delta", delta="a"),
            named("response.completed", response={"id": "r", "usage": {"input_tokens": 3, "output_tokens": 2}}),
        ),
        b"event: response.completed",
        b"event: error",
    ),
    "messages": Case(
        "/v1/messages",
        (
            named("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 0}}),
            named("content_block_delta", delta={"type": "text_delta", "text": "a"}),
            named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
            named("message_stop"),
        ),
        b"event: message_stop",
        b"event: error",
    ),
}


async def cut_everywhere(case: Case, places: Iterable[int], reset: bool) -> int:
    """Ask once for every place at which the node's connection ends; returns how many answers were whole."""
    place = 0

    async def cut(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(case.wire[:place])
        await writer.drain()
        if reset:
            writer.transport.abort()
        writer.close()

    whole = 0
    async with scripted_node(cut) as node, running_gateway(node.url, health={"interval": 60}) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            for place in places:
                whole += await ask_once(client, case, place)
        check_nothing_is_left(gateway)
    return whole


async def ask_once(client: httpx.AsyncClient, case: Case, place: int) -> bool:
    got = await client.post(case.path, json={"model": MODEL, "stream": True, "messages": []})
    assert "127.0.0.1" not in got.text, "where the nodes are is nobody's business"
    if got.status_code != 200:
        assert got.status_code == 502, f"at byte {place}: {got.text}"
        return False
    assert (case.end in got.content) != (case.error in got.content), f"at byte {place}: {got.content!r}"
    sent = [part + b"\n\n" for part in got.content.split(b"\n\n")[:-1] if case.error not in part]
    expected = [part for part in case.events if part != USAGE]
    assert sent == expected[: len(sent)], f"at byte {place}: {got.content!r}"
    return case.end in got.content


def check_nothing_is_left(gateway: RunningGateway) -> None:
    assert gateway.app.relay.open_exchanges == 0
    assert gateway.app.fleet.nodes[0].in_flight == 0


@pytest.mark.parametrize("name", CASES)
async def test_a_stream_cut_at_some_bytes(name: str) -> None:
    case = CASES[name]
    assert await cut_everywhere(case, range(0, len(case.wire), 41), reset=False) < 3
    assert await cut_everywhere(case, [len(case.wire)], reset=False) == 1


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("name", CASES)
async def test_a_stream_cut_at_every_byte(name: str, reset: bool) -> None:
    case = CASES[name]
    whole = await cut_everywhere(case, range(len(case.wire) + 1), reset)
    # After the end of its last event (and before that of the last chunk) an answer is whole, cut or not.
    assert 1 <= whole <= len(LAST_CHUNK) + len(b"\r\n") + 1 if not reset else whole >= 0


async def test_a_stream_in_pieces_of_any_size_is_the_same() -> None:
    """Byte by byte from the node, whole to the client: events are never torn."""
    case = CASES["chat"]

    async def dribble(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        for at in range(len(case.wire)):
            writer.write(case.wire[at : at + 1])
            if at % 7 == 0:
                await writer.drain()
                await asyncio.sleep(0)

    async with scripted_node(dribble) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            assert await ask_once(client, case, len(case.wire))
