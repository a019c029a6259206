"""ASGI requests on a client connection: what an application sends becomes HTTP, whatever it and its client do."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
import uvicorn

from gateway.api.body import BodyLimits, RequestBounds
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.listener_settings import ListenerSettings
from gateway.api.middleware import Middleware
from gateway.api.protocol import GatewayProtocol
from gateway.api.request_head import RequestHead
from gateway.server.process import listen
from tests.support.gateways import QuietServer, eventually
from tests.support.raw import RawClient, head, raw_client

App = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
GET = head("GET", "/")


class NoDataPlane:
    """A dispatcher that leaves every request to the application."""

    def __init__(self) -> None:
        self.middleware = Middleware(cast(Any, None))

    def find(self, _: RequestHead) -> None:
        return None


@contextlib.asynccontextmanager
async def serving(app: App, body_timeout: float = 30) -> AsyncIterator[int]:
    """The port of a server of `app`."""
    settings = ListenerSettings(
        admin_port=None,
        connections=ConnectionBounds(100, 100, ()),
        admin_connections=ConnectionBounds(100, 100, ()),
        max_headers=4096,
        headers_timeout=30,
        client_stall=30,
        bounds=RequestBounds(BodyLimits(1 << 20, body_timeout, 1000, 1 << 20, 1 << 26)),
        tls=None,
        dispatcher=cast(Any, NoDataPlane()),
        on_shutdown=lambda: None,
    )

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)
            return
        await receive()
        scope["state"]["listener_settings"] = settings
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    config = uvicorn.Config(with_lifespan, http=GatewayProtocol, ws="none", lifespan="on", log_config=None)
    server, listener = QuietServer(config), listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([listener]))
    try:
        await eventually(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 60)


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sending(*messages: dict[str, Any]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def length(size: int) -> tuple[bytes, bytes]:
    return b"Content-Length", b"%d" % size


@pytest.mark.parametrize(
    ("messages", "framing"),
    [
        ([start(), body(b"ab", True), body(b"cd")], "chunked"),
        ([start(), body(b"", True), body(b"abcd", True), body(b"")], "chunked"),
        ([start(200, length(4)), body(b"abcd")], "4"),
        ([start(200, length(4)), body(b"ab", True), body(b"cd")], "4"),
    ],
)
async def test_a_body_is_framed_as_declared_or_chunked(messages: list[Any], framing: str) -> None:
    async with serving(sending(*messages)) as port, raw_client(port) as client:
        for _ in range(2):
            await client.send(GET)
            got = await client.answer("GET")
            assert (got.status, got.body) == (200, b"abcd")
            assert got.headers.get("transfer-encoding", got.headers.get("content-length")) == framing
            assert "date" in got.headers
        await client.send(head("HEAD", "/"))
        got = await client.answer("HEAD")
        assert got.headers.get("content-length") == (None if framing == "chunked" else "4")
        await client.send(GET)
        assert (await client.answer("GET")).body == b"abcd", "HEAD has no body"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_not_framed(status: int) -> None:
    async with serving(sending(start(status), body(b""))) as port, raw_client(port) as client:
        for _ in range(2):
            await client.send(GET)
            got = await client.answer("GET")
            assert got.status == status
            assert not {"transfer-encoding", "content-length"} & got.headers.keys()


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "app",
    [
        fails,
        sending(),
        sending(body(b"a")),
        sending(start(200, (b"x: y", b"z"))),
        sending(start(200, (b"x", b"y\r\nz: 1"))),
        sending({"type": "websocket.accept"}),
    ],
    ids=["raises", "returns", "has no head", "has a header's name", "has a header's value", "is no HTTP"],
)
async def test_an_application_that_fails_before_its_answer_is_500(app: App) -> None:
    async with serving(app) as port, raw_client(port) as client:
        await client.send(GET)
        got = await client.answer("GET")
        assert (got.status, got.json()["error"]["code"]) == (500, "internal_error")
        assert got.headers["connection"] == "close"
        assert await client.closed()


@pytest.mark.parametrize(
    "messages",
    [
        [start(200, length(4)), body(b"abcde")],
        [start(200, length(4)), body(b"abc")],
        [start(200, length(4)), body(b"ab", True)],
        [start(), body(b"ab", True), start()],
    ],
    ids=["too long", "too short", "not complete", "a second head"],
)
async def test_an_answer_that_breaks_its_promise_is_cut_off(messages: list[Any]) -> None:
    async with serving(sending(*messages)) as port, raw_client(port) as client:
        await client.send(GET)
        status, headers = await client.answer_head()
        assert status == 200
        rest = await client.rest()
        assert len(rest) < 4 if "content-length" in headers else not rest.endswith(b"0\r\n\r\n")


async def test_what_an_application_does_after_its_answer_is_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"a"))
        assert (await receive())["type"] == "http.disconnect"
        await send(body(b"b"))

    async with serving(app) as port, raw_client(port) as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer("GET")).body == b"a"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message["body"])
        more = message["more_body"]
    await send(start())
    await send(body(b"".join(pieces)))


async def test_a_body_arrives_in_pieces_and_is_asked_for_where_its_client_waits() -> None:
    large = bytes(range(256)) * 1024
    async with serving(echo) as port, raw_client(port) as client:
        await client.send(head("POST", "/", "content-length: 3", "expect: 100-continue"))
        assert (await client.answer()).status == 100
        await client.send("abc")
        assert (await client.answer()).body == b"abc"
        await client.send(head("POST", "/", f"content-length: {len(large)}") + large)
        assert (await client.answer()).body == large
        await client.send(head("POST", "/", "transfer-encoding: chunked") + b"2\r\nab\r\n")
        await client.send(b"1\r\nc\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"abc"


async def test_a_body_that_is_late_is_refused() -> None:
    async with serving(echo, body_timeout=0.1) as port, raw_client(port) as client:
        await client.send(head("POST", "/", "content-length: 3") + b"a")
        assert (await client.answer()).status == 408
        assert await client.closed()


async def test_a_body_is_not_late_once_its_request_was_answered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, length(1)))
        await send(body(b"a"))

    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with serving(app, body_timeout=0.1) as port, raw_client(port) as client:
        await client.send(head("POST", "/", "content-length: 3") + b"a")
        assert (await client.answer()).body == b"a"
        await asyncio.sleep(0.3)
        assert await client.closed()
    assert errors == []


async def test_an_application_waits_for_a_client_that_reads_slowly() -> None:
    sent: list[int] = []
    piece, pieces = bytes(65_536), 400

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, length(len(piece) * pieces)))
        for number in range(pieces):
            await send(body(piece, number < pieces - 1))
            sent.append(number)

    async with serving(app) as port, slow_client(port) as client:
        await client.send(GET)
        await eventually(lambda: len(sent) > 0)
        before = -1
        while len(sent) != before:  # until it waits
            before = len(sent)
            await asyncio.sleep(0.2)
        assert len(sent) < pieces
        assert len((await client.answer("GET")).body) == len(piece) * pieces


async def test_an_application_that_waits_learns_that_its_client_has_left() -> None:
    ends: list[str] = []

    async def listens(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ends.append("receive")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        listening = asyncio.create_task(listens(receive))
        await send(start())
        for _ in range(400):
            await send(body(bytes(65_536), True))
        ends.append("send")
        await listening

    async with serving(app) as port:
        async with slow_client(port) as client:
            await client.send(GET)
            await client.reader.readexactly(1)
            await asyncio.sleep(0.2)
            client.writer.transport.abort()
        await eventually(lambda: sorted(ends) == ["receive", "send"])


@contextlib.asynccontextmanager
async def slow_client(port: int) -> AsyncIterator[RawClient]:
    """A client with a small buffer, which it does not read by itself."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=16_384)
    try:
        yield RawClient(reader, writer, 30)
    finally:
        writer.close()
