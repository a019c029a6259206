"""What one client can take of the process before anybody knows it: connections, bytes, seconds, turns of the loop."""

import asyncio
import contextlib
import json
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.asgi import MAX_BODY
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.protocol import MAX_AHEAD, GatewayProtocol
from gateway.app import ADMIN_CONNECTIONS
from tests.support.certificates import self_signed
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import RawClient, blocking_exchange, head, raw_client

CHAT = "/v1/chat/completions"
ASK = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}).encode()
HEALTH = head("GET", "/health")
REFUSED = head("POST", CHAT, "content-length: 1") + b"{"


async def hello(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


async def silent(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    await node.until_hung_up(reader)


@contextlib.asynccontextmanager
async def serving(reply: Any = hello, **settings: Any) -> AsyncIterator[RunningGateway]:
    async with scripted_node(reply) as node, running_gateway(node.url, **settings) as gateway:
        yield gateway


def connections(gateway: RunningGateway) -> list[GatewayProtocol]:
    return [each for each in gateway.server.server_state.connections if isinstance(each, GatewayProtocol)]


def held(gateway: RunningGateway) -> int:
    """Bytes and requests that connections keep for their clients: the largest of any, requests counted as 1 KiB."""
    sizes = [
        len(each._backlog) + 1024 * len(each._queue) + each.transport.get_write_buffer_size()
        for each in connections(gateway)
    ]
    return max(sizes, default=0)


async def one_answer(port: int, sent: bytes, method: str = "POST") -> Any:
    async with raw_client(port) as client:
        await client.send(sent)
        return await client.answer(method)


# Connections


async def test_connections_from_one_address_are_bounded() -> None:
    async with serving(listen={"max_connections_per_address": 3}) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw_client(gateway.port)) for _ in range(3)]
            for client in clients:
                await client.send(HEALTH)
                assert (await client.answer()).status == 200
            got = await one_answer(gateway.port, HEALTH)
            assert (got.status, got.json()["error"]["code"]) == (503, "too_many_connections")
            assert "127.0.0.1" in got.json()["error"]["message"]
            admin = gateway.admin_port
            assert (await one_answer(admin, HEALTH)).status == 200, "the admin listener is not bounded by clients"
        await eventually(lambda: not gateway.server.server_state.connections)
        assert (await one_answer(gateway.port, HEALTH)).status == 200


def test_a_network_of_ipv6_is_one_address() -> None:
    """Whoever has one has all of its 2^64 addresses."""
    bounds = ConnectionBounds(10, 2, ())
    places = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.1"]
    assert [bounds.enter(place) is None for place in places] == [True, True, False, True, True, True]
    for place in places:
        bounds.leave(place)
    assert not bounds._open


async def test_a_trusted_proxy_is_many_clients() -> None:
    bounds = {"max_connections_per_address": 1, "trusted_proxies": ["127.0.0.0/8"]}
    async with serving(listen=bounds) as gateway, contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            client = await stack.enter_async_context(raw_client(gateway.port))
            await client.send(HEALTH)
            assert (await client.answer()).status == 200


async def test_handshakes_are_counted_and_end(tmp_path: Path) -> None:
    """Clients that never shake hands take places, but not for longer than the headers' time-out."""
    made = self_signed(tmp_path)
    listen = {"tls": {"cert": made.cert, "key": made.key}, "max_connections_per_address": 2}
    async with serving(listen=listen, timeouts={"headers": 1.0}) as gateway:
        context = ssl.create_default_context(cafile=made.cert)
        async with raw_client(gateway.port) as first, raw_client(gateway.port) as second:
            await eventually(lambda: len(gateway.server.server_state.connections) == 2)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
            assert await first.closed()
            assert await second.closed()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
        client = RawClient(reader, writer, 10)
        await client.send(HEALTH)
        assert (await client.answer()).status == 200
        writer.close()


async def test_blank_lines_do_not_keep_an_idle_connection() -> None:
    async with serving() as gateway:
        gateway.server.config.timeout_keep_alive = 1
        async with raw_client(gateway.port) as client:
            await client.send(HEALTH + b"\r\n")
            assert (await client.answer()).status == 200
            assert await client.closed()


# Requests ahead


@pytest.mark.parametrize("request_", [REFUSED, HEALTH])
@pytest.mark.parametrize("reads", [False, True])
async def test_what_is_kept_of_requests_ahead_is_bounded(request_: bytes, reads: bool) -> None:
    """A client that sends requests without end, and reads all answers or none."""
    async with serving() as gateway, raw_client(gateway.port) as client:

        async def flood() -> None:
            while True:
                client.writer.write(request_ * 2000)
                await client.writer.drain()

        async def drain() -> None:
            while reads:
                await client.reader.read(1 << 16)

        tasks = [asyncio.create_task(flood()), asyncio.create_task(drain())]
        most = 0
        for _ in range(100):
            await asyncio.sleep(0.005)
            most = max(most, held(gateway))
        assert (await one_answer(gateway.port, HEALTH)).status == 200
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert 0 < most < 600_000, most


async def test_no_more_requests_are_parsed_than_are_read_ahead() -> None:
    async with serving(silent) as gateway, raw_client(gateway.port) as client:
        await client.send((head("POST", CHAT, f"content-length: {len(ASK)}") + ASK) * 500)
        await eventually(lambda: any(each._backlog for each in connections(gateway)))
        assert [len(each._queue) for each in connections(gateway)] == [MAX_AHEAD]


async def test_a_client_that_pipelines_does_not_hold_the_loop() -> None:
    """Turns of the loop, not seconds: while thousands of requests are answered others get theirs in between."""
    many = 4000
    async with serving() as gateway, raw_client(gateway.port, 60) as client:
        turns, done = 0, asyncio.Event()

        async def count() -> None:
            nonlocal turns
            while not done.is_set():
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        client.writer.write(REFUSED * many)
        for _ in range(many):
            assert (await client.answer()).status == 400
        done.set()
        await counting
        assert turns > many / 20


# Bodies


async def test_trailers_and_extensions_without_end_are_refused() -> None:
    chunked = head("POST", CHAT, "transfer-encoding: chunked") + b"2\r\n{}\r\n"
    wrong = head("PUT", CHAT, "transfer-encoding: chunked") + b"2\r\n{}\r\n"
    many = b"x: " + b"y" * 1000 + b"\r\n"
    long = b"x: " + b"y" * 1_000_000
    extended = b"".join(b"1;" + b"e" * 4000 + b"\r\n \r\n" for _ in range(500))
    async with serving(requests={"max_headers": 4096}) as gateway:
        for begin, statuses in ((chunked, {431}), (wrong, {405, 431})):  # 431 where it came in the head's read
            for more in (b"0\r\n" + many * 1000, b"0\r\n" + long, extended, b"1;" + b"e" * 1_000_000, b"0" * 1_000_000):
                async with raw_client(gateway.port) as client:
                    with contextlib.suppress(ConnectionError):
                        for at in range(0, len(more), 20_000):
                            await client.send((begin if at == 0 else b"") + more[at : at + 20_000])
                    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                        assert (await client.answer()).status in statuses
                await eventually(lambda: not connections(gateway))


async def test_chunks_of_one_byte_are_as_good_as_any() -> None:
    async with serving(requests={"max_headers": 1024}) as gateway, raw_client(gateway.port) as client:
        await client.send(head("POST", CHAT, "transfer-encoding: chunked"))
        for byte in ASK + b" " * 5000:
            client.writer.write(b"00000001\r\n%c\r\n" % byte)
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("first", [0, 1])
async def test_a_large_body_in_many_cuts_and_one_read_is_taken(first: int) -> None:
    """Its turn asks for a pause while it waits, and for more when it begins; also behind another request."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}).encode()
    body = body[:-1] + b" " * 100_000 + (b"\r\n\r\n" + b" " * 1000) * 400 + b"}"
    framings = (f"content-length: {len(body)}", "transfer-encoding: chunked")
    async with serving() as gateway:
        for framing, sent in zip(framings, (body, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)), strict=True):
            async with raw_client(gateway.port) as client:
                before = head("POST", CHAT, f"content-length: {len(ASK)}") + ASK
                await client.send(before * first + head("POST", CHAT, framing) + sent + HEALTH)
                for _ in range(first + 1):
                    assert (await client.answer()).status == 200
                assert (await client.answer("GET")).json() == {"status": "ok"}


async def test_bodies_for_the_other_routes_are_bounded() -> None:
    token = "the-token-of-this-test-0123"
    settings = {"admin": {"token": token}, "timeouts": {"body": 0.3}}
    async with serving(**settings) as gateway:
        admin = gateway.admin_port
        for port, path in ((gateway.port, "/nope"), (gateway.port, "/v1/models"), (admin, "/admin/drain")):
            auth = f"authorization: Bearer {token}"
            got = await one_answer(port, head("POST", path, auth, f"content-length: {MAX_BODY + 1}"))
            assert got.status == 413
            assert ("detail" in got.json(), "error" in got.json()) == (port == admin, port != admin)
        # The application reads it, byte by byte, and then no more comes.
        got = await one_answer(admin, head("POST", "/admin/drain", auth, "content-length: 99") + b"{")
        assert (got.status, got.json()["code"]) == (408, "request_too_slow")
        async with raw_client(admin) as client:
            with contextlib.suppress(ConnectionError):
                await client.send(head("POST", "/admin/drain", auth, "transfer-encoding: chunked"))
                for _ in range(40):
                    await client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                assert (await client.answer()).status == 413
        await eventually(lambda: not connections(gateway))


# Methods and failures


async def test_head_is_get_without_a_body_or_405() -> None:
    async with serving() as gateway, raw_client(gateway.port) as client:
        for path, status in (
            ("/health", 200),
            ("/v1/models", 200),
            (f"/v1/models/{MODEL}", 200),
            ("/nope", 404),
            (CHAT, 405),
            ("/v1/responses/resp_x", 404),
            ("/v1/responses/resp_x/cancel", 405),
        ):
            await client.send(head("HEAD", path))
            got = await client.answer("HEAD")
            assert (path, got.status) == (path, status)
            await client.send(head("GET", "/health"))  # what follows is an answer of its own: no body came between
            assert (await client.answer("GET")).json() == {"status": "ok"}
            if status == 405:
                assert got.headers["allow"]
    async with serving() as gateway, raw_client(gateway.port) as client:
        await client.send(head("HEAD", CHAT, "content-length: 9") + b"{")
        status, _ = await client.answer_head()
        await client.send(b"1234567 ")
        assert (status, await client.rest()) == (405, b"")


async def test_an_exception_in_a_callback_is_an_answer() -> None:
    """Nothing is known that raises there. So one is put in the way: a turn that cannot begin, or take its body."""

    class Broken:
        begun = started = False
        keep_alive = True

        def __getattr__(self, name: str) -> Any:
            def fail(*_: object) -> None:
                if name != "lose":
                    raise RuntimeError(name)

            return fail

    async with serving() as gateway:
        for sent in (b"", head("POST", CHAT, "content-length: 2") + b"{"):
            async with raw_client(gateway.port) as client:
                await eventually(lambda: connections(gateway))
                (connection,) = connections(gateway)
                if sent:
                    await client.send(sent)
                    await eventually(lambda: connection._queue)  # noqa: B023
                    connection._queue[0] = connection._parser.arriving = Broken()
                    await client.send(b"}")
                else:
                    connection._queue.append(Broken())
                    await client.send(HEALTH)
                got = await client.answer()
                assert (got.status, got.json()["error"]["code"]) == (500, "internal_error")
                assert await client.closed()
            await eventually(lambda: not connections(gateway))


@pytest.mark.parametrize("admin", [False, True])
async def test_a_refusal_arrives_although_its_client_still_sends(admin: bool) -> None:
    """Closing on bytes that were not read would reset the connection, and take the answer with it."""
    async with serving() as gateway:
        port = gateway.admin_port if admin else gateway.port
        pieces = [head("POST", CHAT, "host: again", "content-length: 3000000"), *[bytes(100_000)] * 30]
        for _ in range(5):
            sent, refusal = await blocking_exchange(port, pieces, pause=0.005)
            assert refusal.status == 400 and sent == sum(map(len, pieces))


@pytest.mark.parametrize("framing", ["content-length: 900000", "transfer-encoding: chunked"])
async def test_an_answer_before_the_whole_body_arrives(framing: str) -> None:
    """A long prompt for a path that is mistyped: the client reads which one was meant. What it sends is dropped."""
    pieces = [bytes(30_000)] * 30
    if "chunked" in framing:
        pieces = [b"7530\r\n" + piece + b"\r\n" for piece in pieces] * 2  # more than a body may have
    async with serving() as gateway:
        for port, status in ((gateway.port, 404), (gateway.admin_port, 415)):
            for _ in range(5):
                sent, got = await blocking_exchange(port, [head("POST", "/chat", framing), *pieces], pause=0.002)
                assert got.status == status and sent > sum(map(len, pieces))
        await eventually(lambda: not connections(gateway))


async def test_the_admin_listener_takes_so_many_connections_and_closes_the_rest() -> None:
    async with serving() as gateway, contextlib.AsyncExitStack() as stack:
        port = gateway.admin_port
        held = [await stack.enter_async_context(raw_client(port)) for _ in range(ADMIN_CONNECTIONS // 2)]
        for client in held:
            await client.send(HEALTH)
            assert (await client.answer("GET")).status == 200
        assert (await one_answer(port, b"")).status == 503
        async with raw_client(gateway.port) as client:
            await client.send(HEALTH)
            assert (await client.answer("GET")).status == 200
        await held.pop().send("x\r\n\r\n")
        await eventually(lambda: len(connections(gateway)) < ADMIN_CONNECTIONS // 2)
        assert (await one_answer(port, HEALTH, "GET")).status == 200
