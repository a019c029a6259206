"""The relay through a whole gateway: what clients see when a node answers, breaks off or goes away."""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
import pytest

from gateway.core.http.sse import KEEP_ALIVE
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    ScriptedNode,
    answer,
    chunk,
    event,
    scripted_node,
)
from tests.support.raw import head, raw_client

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
STREAMED = {**ASK, "stream": True}
PLAIN = json.dumps({"id": "x", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode()

IN_TURN = {"policy": "round_robin"}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(PLAIN))


async def three_events(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD)
    for text in ("a", "b", "c"):
        writer.write(chunk(event(text)))
    writer.write(chunk(DONE) + LAST_CHUNK)


async def cut_after_two(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(event("a")) + chunk(event("b") + b'data: {"half'))
    await writer.drain()
    writer.close()


async def no_end(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(event("a")) + LAST_CHUNK)


async def silent(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    await node.until_hung_up(reader)


async def silent_stream(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(event("a")))
    await writer.drain()
    await node.until_hung_up(reader)


async def hangs_up_on_the_second(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """As a server does whose keep-alive time-out meets the next request."""
    if len(node.asked) == 2:
        writer.close()
    else:
        writer.write(answer(PLAIN))


async def post(url: str, body: object = ASK, path: str = CHAT, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(url + path, json=body, headers=headers)


async def test_plain_answer_passes_to_the_letter() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url)
        assert (got.status_code, got.content) == (200, PLAIN)
        assert json.loads(node.asked[0].body) == ASK


async def test_stream_passes_to_the_letter() -> None:
    async with scripted_node(three_events) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, STREAMED)
        assert got.content == event("a") + event("b") + event("c") + DONE
        assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert got.headers["x-accel-buffering"] == "no"
        assert got.headers["x-request-id"] == got.headers["request-id"]


async def test_the_node_sees_no_key_and_no_engine_headers() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url) as gateway:
        steering = {"X-Vllm-Priority": "0", "X-Session-ID": "s", "X-data-parallel-rank": "1", "X-Request-Id": "mine"}
        parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
        got = await post(gateway.url, **steering, Authorization="Bearer secret", traceparent=parent)
        seen = node.asked[0].headers
        assert not {name.lower() for name in (*steering, "Authorization")} & seen.keys()
        assert seen["traceparent"] == parent
        assert got.headers["x-request-id"] == "mine"


async def test_a_node_gets_ids_that_no_two_requests_share_where_it_is_to_have_them() -> None:
    """As vLLM names a request in its engine and in its log by the header."""
    async with scripted_node(plain) as node, running_gateway(node.url, telemetry={"node_request_ids": True}) as gateway:
        for _ in range(2):
            got = await post(gateway.url, **{"X-Request-Id": "mine"})
            assert got.headers["x-request-id"] == "mine"
        first, second = (asked.headers["x-request-id"] for asked in node.asked)
        assert first != second and first[:5] == second[:5] == "mine-" and len(first) == len("mine-") + 8


async def test_forbidden_fields_are_taken_out() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url) as gateway:
        await post(gateway.url, {**ASK, "priority": -9, "cache_salt": "x", "kv_transfer_params": {}, "top_k": 5})
        assert json.loads(node.asked[0].body) == {**ASK, "top_k": 5}


async def test_usage_is_asked_for_and_taken_out_again() -> None:
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4},"system_fingerprint":"f"}\n\n'

    async def with_usage(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(finish) + chunk(usage) + chunk(DONE) + LAST_CHUNK)

    async with scripted_node(with_usage) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, STREAMED)
        assert json.loads(node.asked[0].body)["stream_options"] == {"include_usage": True}
        assert got.content == event("a") + finish[:-3] + b',"system_fingerprint":"f"}\n\n' + DONE
        wanted = await post(gateway.url, {**STREAMED, "stream_options": {"include_usage": True}})
        assert wanted.content == event("a") + finish + usage + DONE
        page = await _metrics(gateway.admin_url)
        assert 'fleetgate_tokens_total{kind="output",model="nemotron-3-ultra",tenant="default"} 8.0' in page


@pytest.mark.parametrize("reply", [cut_after_two, no_end])
async def test_a_cut_stream_never_ends_as_if_whole(reply: object) -> None:
    """The node sends no token ids, so the stream cannot be resumed."""
    async with scripted_node(reply) as node, running_gateway(node.url) as gateway:  # type: ignore[arg-type]
        got = await post(gateway.url, STREAMED)
        assert got.status_code == 200
        assert b"[DONE]" not in got.content and b"half" not in got.content
        last = got.content.strip().split(b"\n\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_cut"


@pytest.mark.parametrize(
    ("path", "start"),
    [("/v1/messages", b'event: error\ndata: {"type":"error"'), ("/v1/responses", b"event: error\ndata: ")],
)
async def test_a_cut_is_told_in_the_dialect(path: str, start: bytes) -> None:
    async with scripted_node(cut_after_two) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, STREAMED, path)
        assert got.content.split(b"\n\n")[-2].startswith(start)


async def test_a_node_that_dies_before_answering_is_a_clear_error() -> None:
    async def die(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.close()

    async with scripted_node(die) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url)
        assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_cut")


async def test_a_stale_connection_costs_nothing() -> None:
    async with scripted_node(hangs_up_on_the_second) as node, running_gateway(node.url) as gateway:
        assert (await post(gateway.url)).status_code == 200
        assert (await post(gateway.url)).status_code == 200
        assert len(node.asked) == 3


async def test_connections_are_kept() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, health={"interval": 60}) as gateway:
        before = node.connections
        for _ in range(5):
            await post(gateway.url)
        assert node.connections == before + 1


async def test_the_next_node_is_tried_when_one_refuses() -> None:
    async with scripted_node(plain) as living, scripted_node(plain) as dying:
        async with running_gateway(living.url, dying.url, health={"interval": 60}, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            dead = next(node for node in gateway.app.fleet.nodes if node.spec.url == dying.url)
            await dying.stop()
            answers = [await post(gateway.url) for _ in range(6)]
            assert [got.status_code for got in answers] == [200] * 6
            assert not dead.ready
            assert [node.in_flight for node in gateway.app.fleet.nodes] == [0, 0]


async def test_nodes_take_turns() -> None:
    async with scripted_node(plain) as one, scripted_node(plain) as two:
        async with running_gateway(one.url, two.url, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for _ in range(10):
                await post(gateway.url)
            assert (len(one.asked), len(two.asked)) == (5, 5)


@pytest.mark.parametrize("body", [ASK, STREAMED])
@pytest.mark.parametrize("reply", [silent, silent_stream])
async def test_a_client_that_leaves_frees_the_node_at_once(body: object, reply: object) -> None:
    async with scripted_node(reply) as node, limited_gateway(node.url) as gateway:  # type: ignore[arg-type]
        task = asyncio.create_task(post(gateway.url, body))
        await eventually(lambda: node.asked)
        await asyncio.sleep(0.05)
        task.cancel()
        await eventually(lambda: node.hung_up == 1, seconds=10)
        await nothing_held(gateway)
        page = await _metrics(gateway.admin_url)
        assert 'ending="client_gone"' in page


async def test_a_client_that_leaves_at_the_end_has_had_its_answer() -> None:
    """OpenAI's SDK closes the connection at `[DONE]`, before the end of the last HTTP chunk."""

    async def ends_late(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(DONE))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(LAST_CHUNK)

    async with scripted_node(ends_late) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(timeout=10) as client:
            async with client.stream("POST", gateway.url + CHAT, json=STREAMED) as got:
                async for piece in got.aiter_bytes():
                    if DONE in piece:
                        break
        await eventually(lambda: gateway.app.relay.open_exchanges == 0)
        page = await _metrics(gateway.admin_url)
        assert 'ending="ok"' in page
        assert 'ending="client_gone"' not in page


async def test_a_client_that_leaves_at_the_end_unread_holds_nothing() -> None:
    """The node is paused for the client when that one leaves, and its last chunk is still to come."""
    left = asyncio.Event()

    async def large(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("x" * 9_000_000) + DONE))
        await writer.drain()
        await left.wait()
        writer.write(LAST_CHUNK)

    async with scripted_node(large) as node, limited_gateway(node.url) as gateway:
        async with raw_client(gateway.port) as client:
            await client.post(CHAT, STREAMED)
            connections: Any = gateway.server.server_state.connections
            await eventually(lambda: any(each.flow.write_paused for each in connections))
        await eventually(lambda: not connections)
        left.set()
        await nothing_held(gateway)


async def test_a_client_that_leaves_is_noticed_after_a_large_body_in_one_read() -> None:
    async with scripted_node(silent) as node, limited_gateway(node.url) as gateway:
        async with raw_client(gateway.port) as client:
            await client.post(CHAT, {**ASK, "pad": "x" * 100_000})
            await eventually(lambda: node.asked)
        await eventually(lambda: node.hung_up == 1, 10)
        await nothing_held(gateway)


@pytest.mark.parametrize("body", [ASK, STREAMED])
async def test_the_clients_deadline_stops_the_node(body: object) -> None:
    async with scripted_node(silent) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, body, **{"x-request-timeout": "0.1"})
        assert (got.status_code, got.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert got.headers["x-should-retry"] == "false"
        await eventually(lambda: node.hung_up == 1)


async def test_the_clients_deadline_in_mid_stream() -> None:
    async with scripted_node(silent_stream) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, STREAMED, **{"x-request-timeout": "0.2"})
        assert got.content.startswith(event("a"))
        assert b'"code":"deadline_exceeded"' in got.content
        await eventually(lambda: node.hung_up == 1)


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 99",),
        ("content-length: 99", "expect: 100-continue"),
        ("transfer-encoding: chunked",),
        ("transfer-encoding: chunked", "content-encoding: gzip"),
    ],
)
async def test_the_clients_deadline_passes_while_its_body_comes(path: str, lines: tuple[str, ...]) -> None:
    async with scripted_node(plain) as node, limited_gateway(node.url) as gateway:
        async with raw_client(gateway.port) as client:
            await client.send(head("POST", path, "x-request-timeout: 0.05", *lines))
            got = await client.answer()
            while got.status == 100:
                got = await client.answer()
        assert got.status == 504 and b"x-request-timeout" in got.body
        await nothing_held(gateway)
        assert not node.asked


@pytest.mark.parametrize("given", ["0", "-1", "soon", "nan", "inf", "1e9"])
async def test_a_deadline_that_is_none_is_refused(given: str) -> None:
    async with scripted_node(plain) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, **{"x-request-timeout": given})
        assert (got.status_code, got.json()["error"]["param"]) == (400, "x-request-timeout")


async def test_silence_is_bridged_by_comments() -> None:
    async def slow(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(0.2)
        await three_events(node, asked, reader, writer)

    async with scripted_node(slow) as node, running_gateway(node.url, timeouts={"keep_alive": 0.05}) as gateway:
        got = await post(gateway.url, STREAMED)
        assert got.content.startswith(KEEP_ALIVE)
        assert got.content.replace(KEEP_ALIVE, b"") == event("a") + event("b") + event("c") + DONE


async def test_an_error_after_comments_is_an_event() -> None:
    async def late_refusal(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(0.2)
        writer.write(answer(b'{"error":{"message":"too long","code":400}}', "400 Bad Request"))

    settings = {"keep_alive": 0.05}
    async with scripted_node(late_refusal) as node, running_gateway(node.url, timeouts=settings) as gateway:
        got = await post(gateway.url, STREAMED)
        assert got.status_code == 200
        assert b'data: {"error":{"message":"too long"' in got.content


@pytest.mark.parametrize(
    ("reply", "body", "limit", "told"),
    [
        (silent, ASK, "non_streaming", 504),
        (silent, STREAMED, "first_byte", 504),
        (silent_stream, STREAMED, "idle", 200),
    ],
)
async def test_a_silent_node_is_given_up(reply: object, body: object, limit: str, told: int) -> None:
    async with scripted_node(reply) as node, running_gateway(node.url, timeouts={limit: 0.1}) as gateway:  # type: ignore[arg-type]
        got = await post(gateway.url, body)
        assert got.status_code == told
        assert b"upstream_timeout" in got.content
        await eventually(lambda: node.hung_up == 1)


async def test_garbage_is_a_clear_error() -> None:
    async def garbage(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with scripted_node(garbage) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url)
        assert (got.status_code, got.json()["error"]["code"]) == (502, "bad_upstream_response")


async def test_node_errors_pass_as_they_are() -> None:
    refusal = b'{"error":{"message":"no","type":"BadRequestError","param":null,"code":400}}'

    async def refuse(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(refusal, "400 Bad Request"))

    async with scripted_node(refuse) as node, running_gateway(node.url) as gateway:
        for body in (ASK, STREAMED):
            got = await post(gateway.url, body)
            assert (got.status_code, got.content) == (400, refusal)


async def test_an_answer_before_the_body_was_taken() -> None:
    """The node answers 400 from the headers alone and never reads a body of several megabytes."""

    async def early(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b'{"error":{"message":"early"}}', "400 Bad Request"))
        await writer.drain()
        await reader.read()

    async with scripted_node(early, reads_bodies=False) as node, running_gateway(node.url) as gateway:
        got = await post(gateway.url, {**ASK, "padding": "x" * 8_000_000})
        assert (got.status_code, got.json()["error"]["message"]) == (400, "early")


async def test_a_slow_reader_slows_the_node_down() -> None:
    """Backpressure goes through: the node cannot push more than the buffers in between hold."""
    sent = 0

    async def flood(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        nonlocal sent
        writer.write(STREAM_HEAD)
        for _ in range(4000):
            writer.write(chunk(event("x" * 16_000)))
            await writer.drain()
            sent += 1
        writer.write(chunk(DONE) + LAST_CHUNK)

    async with scripted_node(flood) as node, running_gateway(node.url) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=65536)
        body = json.dumps(STREAMED).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readexactly(1000)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 2000, "64 MB were taken although nobody read them"
        rest = bytearray()
        while piece := await reader.read(1 << 20):
            rest += piece
        assert sent == 4000
        assert rest.endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
        writer.close()


async def test_a_reader_that_stopped_is_left() -> None:
    async def flood(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD)
        try:
            while True:
                writer.write(chunk(event("x" * 16_000)))
                await writer.drain()
        finally:
            node.hung_up += 1

    async with scripted_node(flood) as node, running_gateway(node.url, timeouts={"client_stall": 0.3}) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=65536)
        body = json.dumps(STREAMED).encode()
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await reader.readexactly(1000)
        await eventually(lambda: node.hung_up == 1)
        assert gateway.app.fleet.nodes[0].in_flight == 0
        writer.close()


async def _metrics(admin_url: str) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{admin_url}/metrics")).text
