"""What a second try must not do: begin an answer twice, repeat work, or be a client's means to switch nodes off."""

import asyncio
import contextlib
import json
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.certificates import self_signed
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import eventually
from tests.support.nodes import LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, event, scripted_node
from tests.support.raw import head, raw_client

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": []}


async def post(url: str, body: object, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=False, timeout=10) as client:
        return await client.post(url + CHAT, json=body, headers=headers)


async def test_a_kept_connection_that_closes_after_comments_does_not_begin_the_answer_twice() -> None:
    """The head is out with the first comment; and after so long the node may well have worked on the request."""

    async def silent_then_gone(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if len(node.asked) == 1:
            writer.write(answer(b"{}"))
        elif len(node.asked) == 2:
            await asyncio.sleep(0.3)
            writer.close()
        else:
            writer.write(STREAM_HEAD + chunk(event("again")) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    often, once = {"keep_alive": 0.05}, {"interval": 60}
    async with scripted_node(silent_then_gone) as node:
        async with limited_gateway(node.url, timeouts=often, health=once) as gateway:
            assert (await post(gateway.url, ASK)).status_code == 200
            got = await post(gateway.url, {**ASK, "stream": True})
            assert got.status_code == 200
            body = got.content.replace(b": keep-alive\n", b"")
            cut = b'"code":"upstream_cut"' in body
            assert cut or body == event("again") + b"data: [DONE]\n\n"
            await nothing_held(gateway)


async def test_a_node_that_dies_over_a_request_is_not_given_it_again() -> None:
    """A race with the node's keep-alive time-out is over within moments; later it was the request that killed it."""

    async def dies_of_it(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if len(node.asked) == 1:
            writer.write(answer(b"{}"))
            return
        await asyncio.sleep(1.5)
        writer.close()

    async with scripted_node(dies_of_it) as node, limited_gateway(node.url, health={"interval": 60}) as gateway:
        assert (await post(gateway.url, ASK)).status_code == 200
        got = await post(gateway.url, ASK)
        assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_cut")
        assert len(node.asked) == 2
        await nothing_held(gateway)


@contextlib.asynccontextmanager
async def slow_to_shake_hands(folder: Path) -> AsyncIterator[tuple[str, list[bool]]]:
    """A TLS node behind a port that, once told to, takes connections and says nothing."""
    certificate = self_signed(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.cert, certificate.key)

    async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"{}"))

    node = ScriptedNode(plain)
    inner = await asyncio.start_server(node.serve, "127.0.0.1", 0, ssl=context)
    inner_port = inner.sockets[0].getsockname()[1]
    silent: list[bool] = []

    async def copy(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def forward(reader: Reader, writer: Writer) -> None:
        if silent:
            await reader.read(-1)
            writer.close()
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", inner_port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    outer = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{outer.sockets[0].getsockname()[1]}", silent
    finally:
        outer.close()
        inner.close()


async def test_a_clients_short_deadline_does_not_take_a_node_out_of_service(tmp_path: Path) -> None:
    async with slow_to_shake_hands(tmp_path) as (url, silent):
        nodes = [{"url": url, "ca_file": str(tmp_path / "tls.crt")}]
        async with limited_gateway(nodes=nodes, health={"interval": 60}) as gateway:
            silent.append(True)
            got = await post(gateway.url, ASK, **{"x-request-timeout": "0.2"})
            assert (got.status_code, got.json()["error"]["code"]) == (504, "deadline_exceeded")
            assert gateway.app.fleet.nodes[0].ready, "the node was never given the time that it is allowed"
            await nothing_held(gateway)


async def test_a_node_is_not_asked_once_the_deadline_has_passed() -> None:
    """Also not on a connection that is kept: nobody waits for what it would begin."""

    async def quick(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"{}"))

    async with scripted_node(quick) as node, limited_gateway(node.url) as gateway:
        assert (await post(gateway.url, ASK)).status_code == 200
        late = await post(gateway.url, {**ASK, "user": "x" * 400_000}, **{"x-request-timeout": "0.0001"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert len(node.asked) == 1
        assert gateway.app.fleet.nodes[0].ready
        await nothing_held(gateway)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_a_plain_answer_that_nobody_reads_is_let_go(secure: bool, tmp_path: Path) -> None:
    """Its request is over and counted, what is left of it held, and the connection does not stay for ever."""

    async def large(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(json.dumps({"x": "x" * 24_000_000}).encode()))

    settings: dict[str, Any] = {"thinking": {"hide_reasoning": True}, "timeouts": {"client_stall": 1.0}}
    settings["requests"] = {"memory": 1 << 29}
    context = None
    if secure:
        made = self_signed(tmp_path)
        settings["listen"] = {"tls": {"cert": str(made.cert), "key": str(made.key)}}
        context = ssl.create_default_context(cafile=str(made.cert))
    async with scripted_node(large) as node, limited_gateway(node.url, **settings) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
        body = json.dumps(ASK).encode()
        writer.write(head("POST", CHAT, f"content-length: {len(body)}") + body)
        await eventually(lambda: node.asked)
        await eventually(lambda: gateway.app.fleet.nodes[0].in_flight == 0)
        assert gateway.app.memory.held > 1_000_000
        await eventually(lambda: not gateway.server.server_state.connections, 10)
        await eventually(lambda: gateway.app.memory.held == 0)
        await nothing_held(gateway)
        writer.transport.abort()


async def test_a_stream_that_nobody_reads_is_let_go() -> None:
    async def flood(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD)
        while True:
            writer.write(chunk(event("x" * 16_000)))
            await writer.drain()

    async with scripted_node(flood) as node, limited_gateway(node.url, timeouts={"client_stall": 0.3}) as gateway:
        async with raw_client(gateway.port) as client:
            await client.post(CHAT, {**ASK, "stream": True})
            await eventually(lambda: node.asked)
            await eventually(lambda: gateway.app.fleet.nodes[0].in_flight == 0)
            await eventually(lambda: not gateway.server.server_state.connections, 5)
            await nothing_held(gateway)


async def test_a_usage_that_arrives_in_two_pieces_is_counted() -> None:
    """Also in an answer that is too long to be held back whole."""
    raw = json.dumps({"x": "x" * 1_500_000, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode()

    async def in_two(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(raw)[: -len(raw)] + raw[:-20])
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.write(raw[-20:])

    async with scripted_node(in_two) as node, limited_gateway(node.url) as gateway:
        assert (await post(gateway.url, ASK)).content == raw
        async with httpx.AsyncClient(verify=False) as client:
            page = (await client.get(f"{gateway.admin_url}/metrics")).text
        assert f'fleetgate_tokens_total{{kind="output",model="{MODEL}",tenant="default"}} 4.0' in page
