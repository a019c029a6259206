"""The gateway's own client of a node: what it makes of any bytes, what it keeps, and what it shares."""

import asyncio
import contextlib
import itertools
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.node_client import SURE_SECONDS, NodeClient, NodeRequestError, NodeUnreachable
from gateway.fleet.node_connection import MAX_ANSWER, ConnectionClosed, NodeConnection, NodeReply
from gateway.fleet.node_spec import NodeSpec
from gateway.upstream.pool import Pool
from tests.support.certificates import self_signed
from tests.support.node_clients import asking


@contextlib.asynccontextmanager
async def node(serve: Callable[[int, Reader, Writer], Any]) -> AsyncIterator[str]:
    """A server that does `serve(number of the connection, reader, writer)`, and then hangs up; yields its URL."""
    numbers = iter(range(1000))

    async def connected(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(next(numbers), reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def heads(reader: Reader, writer: Writer, answer: bytes) -> None:
    """Answer every request, until the client hangs up."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_one_connection_is_kept_and_what_is_asked_at_the_same_time_gets_another() -> None:
    begun, go_on = 0, asyncio.Event()

    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        nonlocal begun
        begun = number + 1
        await reader.readuntil(b"\r\n\r\n")
        if begun == 1:
            await go_on.wait()
        writer.write(OK)
        await heads(reader, writer, OK)

    async with node(serve) as url, asking(url) as client:
        first = asyncio.create_task(client.get("/a"))
        while not begun:
            await asyncio.sleep(0)
        assert await client.get("/b") == NodeReply(200, b"ok")
        go_on.set()
        assert await first == NodeReply(200, b"ok")
        assert [(await client.get("/c")).status for _ in range(5)] == [200] * 5
        assert begun == client.reconnected == 2


async def test_a_kept_connection_that_was_closed_is_made_anew_for_what_may_be_asked_twice() -> None:
    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # hangs up with the second request unanswered

    async with node(serve) as url, asking(url) as client:
        for _ in range(3):
            assert (await client.get("/")).body == b"ok"
        assert client.reconnected == 3
        with pytest.raises(ConnectionClosed):
            await client.post("/", {})


async def test_what_is_sent_once_goes_over_no_connection_that_was_idle_for_long() -> None:
    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        await heads(reader, writer, OK)

    async with node(serve) as url, asking(url) as client:
        await client.get("/")
        assert client._kept is not None
        client._kept.idle_since -= 2 * SURE_SECONDS
        assert (await client.get("/")).status == 200 and client.reconnected == 1
        client._kept.idle_since -= 2 * SURE_SECONDS
        await client.post("/x", {"a": 1})
        assert client.reconnected == 2


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", NodeReply(204, b"")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", NodeReply(200, b"ok")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, NodeReply(200, b"ok")),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", NodeReply(503, b"")),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", NodeReply(200, b"until the end")),
        (b"HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n", NodeReply(302, b"")),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\nok", NodeReply(200, b"ok")),
        (b"", "before it answered"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "in mid-answer"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", "in mid-answer"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok", "compressed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * MAX_ANSWER) + b"x" * 2 * MAX_ANSWER, "more than"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 2 * MAX_ANSWER, "more than"),
    ],
)
async def test_any_answer_is_read_or_refused(answer: bytes, reply: NodeReply | str) -> None:
    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with node(serve) as url, asking(url) as client, asyncio.timeout(60):
        if isinstance(reply, NodeReply):
            assert await client.get("/") == reply
        else:
            with pytest.raises(NodeRequestError, match=reply):
                await client.get("/")
            assert client._kept is None


async def test_a_surplus_answer_answers_nobody() -> None:
    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")
        await reader.read()

    async with node(serve) as url, asking(url) as client:
        for number in range(3):
            assert (await client.get("/")).body == b"ok"
            assert client.reconnected == number + 1


async def test_who_stops_waiting_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        closed.set()

    async with node(serve) as url, asking(url) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await client.get("/")
        await asyncio.wait_for(closed.wait(), 30)
        assert client._kept is None


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:80", "a" * 70 + ".invalid:80"])
async def test_a_node_that_takes_no_connection_is_unreachable(host: str) -> None:
    async with asking(f"http://{host}") as client:
        with pytest.raises(NodeUnreachable):
            await client.get("/")


async def test_a_closed_client_keeps_nothing() -> None:
    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        await heads(reader, writer, OK)

    async with node(serve) as url, asking(url) as client:
        client.close()
        assert (await client.get("/")).status == 200
        assert client._kept is None


async def test_a_node_is_sent_its_key_its_path_and_no_more() -> None:
    seen = []

    async def serve(number: int, reader: Reader, writer: Writer) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async with node(serve) as url:
        client = NodeClient(NodeSpec(f"{url}/base/", api_key="secret"))
        await client.get("/health")
        client.close()
    host = url.removeprefix("http://").encode()
    assert seen == [
        b"GET /base/health HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\nauthorization: Bearer secret\r\n\r\n"
        % host
    ]


class FakeTransport(asyncio.Transport):
    """Takes what is written, and says when it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: Any) -> None:
        """Goes nowhere."""

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b"one", b"two" * 100, b"\r\n0\r\n\r\n"))
    + b"0\r\n\r\n"
)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, len(CHUNKED)), max_size=12))
def test_where_an_answer_is_cut_changes_nothing(cuts: list[int]) -> None:
    loop = asyncio.new_event_loop()
    try:
        connection, transport = NodeConnection(), FakeTransport()
        connection.connection_made(transport)
        waiter = connection.ask(b"", loop)
        bounds = sorted({0, *cuts, len(CHUNKED)})
        for begin, end in itertools.pairwise(bounds):
            assert not waiter.done()
            connection.data_received(CHUNKED[begin:end])
        assert waiter.result() == NodeReply(200, b"one" + b"two" * 100 + b"\r\n0\r\n\r\n")
        assert connection.usable and not transport.aborted
        connection.connection_lost(None)
    finally:
        loop.close()


async def test_a_file_of_authorities_is_read_once_for_all_that_use_it_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the public ones takes 20 ms, in which the event loop stands still."""
    own = self_signed(tmp_path).cert
    read: list[str | None] = []
    make = ssl.create_default_context

    def note(*args: Any, **options: Any) -> ssl.SSLContext:
        read.append(options["cafile"])
        return make(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", note)
    for ca_file in (None, str(own), None, str(own)):
        client = NodeClient(NodeSpec("https://127.0.0.1:1", ca_file=ca_file))
        with pytest.raises(NodeUnreachable):
            await client.get("/")
        Pool("https://127.0.0.1:1", None, ca_file)
    assert read.count(str(own)) == 1 and read.count(None) <= 1
    own.write_bytes(own.read_bytes() + b"\n")
    with pytest.raises(NodeUnreachable):
        await client.get("/")
    assert read.count(str(own)) == 2
