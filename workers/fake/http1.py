"""A small HTTP/1.1 server on asyncio and httptools, with its hands on the socket.

A web framework would hide what a fake node is for: cutting, resetting, splitting and garbling answers. What a client
sees of a healthy answer is what uvicorn sends: the same header lines in the same order, one chunk per write.
A connection serves one request at a time; the handler's task is cancelled when the client leaves.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, cast

import httptools

from workers.fake.faults import Fault

_LOG = logging.getLogger(__name__)
Headers = tuple[tuple[bytes, bytes], ...]
# http.HTTPStatus knows the phrases; the bytes are made once per status.
_PHRASES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


class Gone(Exception):
    """The client has left, or the fake node cut it off: nothing more can be written."""


class Broken(Exception):
    """A fault has ended the answer on the node's side."""


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: "Connection", path: str, method: str, headers: Headers) -> None:
        self.path = path
        self.method = method
        self.headers = headers
        self.body = bytearray()
        self.query = ""
        self.complete = asyncio.Event()
        self.keep_alive = True
        self.connection = connection
        self.started = False
        self.closed = False
        self.faults: tuple[Fault, ...] = ()
        self.stream_error = b""

    def header(self, name: bytes) -> str:
        """A header's value, or the empty string. `name` is in lower case."""
        return next((v.decode("latin-1") for k, v in self.headers if k == name), "")

    async def read(self) -> bytes:
        """The whole request body."""
        await self.complete.wait()
        return bytes(self.body)

    def head(self, status: int, headers: Headers, *, length: int | None) -> bytes:
        """The response head as bytes; chunked when `length` is None."""
        lines = [_PHRASES[status], b"date: ", formatdate(usegmt=True).encode(), b"\r\nserver: uvicorn\r\n"]
        if length is not None:
            lines.append(b"content-length: %d\r\n" % length)
        lines += [k + b": " + v + b"\r\n" for k, v in headers]
        lines.append(b"vary: Origin\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if length is None:
            lines.append(b"transfer-encoding: chunked\r\n")
        return b"".join(lines) + b"\r\n"

    def start(self, status: int, headers: Headers) -> None:
        """Sends the head of a chunked answer."""
        self.started = True
        self.write_raw(self.head(status, headers, length=None))

    def write(self, data: bytes) -> None:
        """Sends one chunk. Raises Gone when nobody is there."""
        self.write_raw(b"%x\r\n%b\r\n" % (len(data), data))

    def write_raw(self, data: bytes) -> None:
        """Sends bytes as they are. Raises Gone when nobody is there."""
        if self.closed or self.connection.transport.is_closing():
            raise Gone
        self.connection.transport.write(data)

    def end(self) -> None:
        """Ends a chunked answer; the connection is kept for the next request."""
        self.write_raw(b"0\r\n\r\n")
        self.finish()

    def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Sends a whole answer with its length."""
        self.started = True
        self.write_raw(self.head(status, headers, length=len(body)) + body)
        self.finish()

    def finish(self) -> None:
        """Marks the answer complete: the next request may come."""
        self.closed = True
        self.connection.finished(self)

    def cut(self) -> None:
        """Closes the connection in the middle (FIN, after what was written)."""
        self.closed = True
        self.connection.transport.close()

    def reset(self) -> None:
        """Closes the connection with a TCP reset."""
        self.closed = True
        self.connection.reset()


class Connection(asyncio.Protocol):
    """One TCP connection: parses requests, runs the handler for one at a time."""

    transport: asyncio.Transport

    def __init__(self, handle: Callable[[Exchange], Awaitable[None]], census: "set[Connection]") -> None:
        self._handle = handle
        self._census = census
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._reading: Exchange | None = None
        self._queue: list[Exchange] = []
        self.task: asyncio.Task[None] | None = None
        self._drained: Callable[[], None] | None = None
        self.full = False
        self._pause = 0.0

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        self._census.add(self)

    def data_received(self, data: bytes) -> None:
        if self._pause > 0:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pause, self._read_on)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"connection: close\r\ncontent-length: 30\r\n\r\nInvalid HTTP request received."
            )
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._census.discard(self)
        for exchange in self._queue:
            exchange.closed = True
        if self.task is not None:
            self.task.cancel()
        self.resume_writing()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        drained, self._drained = self._drained, None
        if drained is not None:
            drained()

    def when_drained(self, call: Callable[[], None]) -> None:
        """Calls back once when the client has taken enough for more to be written, or has left."""
        self._drained = call

    # httptools
    def on_message_begin(self) -> None:
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("ascii")
        exchange = Exchange(self, path, method, tuple(self._headers))
        exchange.query = query
        exchange.keep_alive = self._parser.should_keep_alive()
        self._reading = exchange
        if exchange.header(b"expect").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self._begin(exchange)

    def on_body(self, body: bytes) -> None:
        if self._reading is not None:
            self._reading.body += body

    def on_message_complete(self) -> None:
        if self._reading is not None:
            self._reading.complete.set()
            self._reading = None

    # one request after the other
    def _begin(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._handle(exchange)
        except (Gone, Broken):
            pass
        except Exception:  # noqa: BLE001 (the edge: a fault of the fake itself must not look like a hang)
            _LOG.exception("the fake node failed on %s", exchange.path)
            self.transport.abort()

    def finished(self, exchange: Exchange) -> None:
        """An answer is complete: close, or go on with the next request."""
        self._queue.remove(exchange)
        self.task = None
        if not exchange.keep_alive or not exchange.complete.is_set():
            self.transport.close()
        elif self._queue:
            self._begin(self._queue[0])

    def read_slowly(self, pause: float) -> None:
        """Takes what the client sends in small pieces, one in `pause` seconds."""
        self._pause = pause

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._queue

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
