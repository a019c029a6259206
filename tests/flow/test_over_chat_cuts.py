"""A node that dies at any byte of a chat stream that stands for another dialect: the client's answer is whole or says
that it is not."""

import json
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from tests.dialects.over_chat.chat_streams import CALLED, THOUGHT
from tests.support.gateways import running_gateway
from tests.support.nodes import LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, chunk, scripted_node

ASKED = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, tuple[dict[str, Any], bytes]] = {
    "/v1/messages": ({"messages": ASKED, "max_tokens": 9}, b"event: message_stop"),
    "/v1/responses": ({"input": ASKED}, b"event: response.completed"),
}
WIRES = {
    "thinking": STREAM_HEAD + b"".join(chunk(part + b"\n\n") for part in THOUGHT.split(b"\n\n")[:-1]) + LAST_CHUNK,
    "calls": STREAM_HEAD + b"".join(chunk(part + b"\n\n") for part in CALLED.split(b"\n\n")[:-1]) + LAST_CHUNK,
}
AUTHORITIES = ssl.create_default_context()
SETTINGS: dict[str, Any] = {
    "health": {"interval": 60},
    "models": [{"name": MODEL, "over_chat": True}],
}
EVERY = pytest.mark.parametrize("path", REQUESTS)
EVERY_WIRE = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())


async def cut_everywhere(path: str, wire: bytes, places: Iterable[int], reset: bool) -> int:
    """Ask once for every place at which the node's connection ends; returns how many answers were whole."""
    place = len(wire)

    async def cut(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(wire[:place])
        await writer.drain()
        if reset:
            writer.transport.abort()
        writer.close()

    body, end = REQUESTS[path]
    whole = 0
    async with scripted_node(cut) as node, running_gateway(node.url, **SETTINGS) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=10, verify=AUTHORITIES) as client:
            told = (await client.post(path, json={"model": MODEL, "stream": True, **body})).content
            assert end in told
            for place in places:
                got = await client.post(path, json={"model": MODEL, "stream": True, **body})
                whole += check(got, told, end, place)
        assert gateway.app.relay.open_exchanges == 0
        assert gateway.app.fleet.nodes[0].in_flight == 0
    return whole


def check(got: httpx.Response, told: bytes, end: bytes, place: int) -> bool:
    """Its end or an error, never both or neither; and before that nothing but what the whole answer says."""
    if got.status_code != httpx.codes.OK:
        assert got.status_code == httpx.codes.BAD_GATEWAY, f"at byte {place}: {got.text}"
        assert json.loads(got.content)["error"]["message"]
        return False
    assert (end in got.content) != (b"event: error" in got.content), f"at byte {place}: {got.content!r}"
    assert told.startswith(got.content.partition(b"event: error")[0]), f"at byte {place}: {got.content!r}"
    return end in got.content


@EVERY
@EVERY_WIRE
async def test_a_stream_cut_at_some_bytes(path: str, wire: bytes) -> None:
    assert await cut_everywhere(path, wire, range(0, len(wire), 131), reset=False) < 3


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@EVERY
@EVERY_WIRE
async def test_a_stream_cut_at_every_byte(path: str, wire: bytes, reset: bool) -> None:
    whole = await cut_everywhere(path, wire, range(len(wire) + 1), reset)
    # After the end of its last event (and before that of the last chunk) an answer is whole, cut or not.
    assert 1 <= whole <= len(LAST_CHUNK) + len(b"\r\n") + 1 if not reset else whole >= 0
