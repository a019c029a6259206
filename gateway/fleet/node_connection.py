"""One kept HTTP/1.1 connection for the gateway's own requests to a node, one request at a time.

state    event                                        next     the request
idle     `ask`                                        busy     -
idle     bytes come unasked, or the node hangs up     closed   -
busy     the answer is complete                       idle *   has its status and body
busy     lost; its body ends with the connection      closed   has its status and body
busy     lost otherwise, not HTTP, or too long        closed   fails with `NodeRequestError`
any      `abort`                                      closed   gets nothing: who waited has gone

* closed where the node says so, or has sent more than the answer.
"""

import asyncio
from typing import Any, NamedTuple, cast

import httptools

from gateway.core.json_text import parse_object

MAX_ANSWER = 1 << 22
"""Bytes of one answer: a page of metrics of a node with many adapters is a few hundred kilobytes."""

MAX_FRAMING = 1 << 16
"""Bytes of an answer beside its body: heads, trailers, and the sizes of chunks beyond one for each piece."""


class NodeRequestError(Exception):
    """A request of the gateway's own to a node failed: its connection broke, or its answer cannot be read."""


class NodeUnreachable(NodeRequestError):
    """No connection to the node came about; the cause is an OSError."""


class ConnectionClosed(NodeRequestError):
    """The node closed the connection. `unheard`: without a byte of an answer."""

    def __init__(self, message: str, unheard: bool) -> None:
        super().__init__(message)
        self.unheard = unheard


class NodeReply(NamedTuple):
    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object of the body, empty where it is none."""
        return parse_object(self.body)


class NodeConnection(asyncio.Protocol):
    """Bounded in bytes; seconds are the caller's to bound."""

    __slots__ = (
        "_body",
        "_complete",
        "_framed",
        "_keep_alive",
        "_parser",
        "_read",
        "_size",
        "_status",
        "_surplus",
        "_transport",
        "_trouble",
        "_waiter",
        "idle_since",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        """While an answer is awaited: with its bound methods it takes a kilobyte, and most connections are idle."""
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[NodeReply] | None = None
        self._body: list[bytes] = []
        self._read = self._size = self._status = 0
        self._framed = self._complete = self._surplus = self._keep_alive = False
        self._trouble: str | None = None
        self.idle_since = 0.0
        """Loop time, set by the client that keeps it."""

    @property
    def usable(self) -> bool:
        return self._transport is not None and self._waiter is None and not self._transport.is_closing()

    def ask(self, request: bytes, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[NodeReply]":
        """Send a whole request. Who stops waiting for its answer has to `abort`."""
        assert self.usable and self._transport is not None
        self._body = []
        self._read = self._size = self._status = 0
        self._framed = self._complete = self._keep_alive = False
        self._parser = httptools.HttpResponseParser(self)
        self._waiter = loop.create_future()
        self._transport.write(request)
        return self._waiter

    def abort(self) -> None:
        """Close at once."""
        self._waiter = self._parser = None  # which refers to this object
        if self._transport is not None:
            self._transport.abort()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._parser is None:  # unasked: it must not answer the next request
            self.abort()
            return
        self._read += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._surplus = True  # it is of no further use, whatever it has sent before
            if not self._complete:
                self._fail(NodeRequestError("its answer is not HTTP"))
                return
        if self._trouble is not None:
            self._fail(NodeRequestError(self._trouble))
        elif self._complete:
            self._finish()
        elif self._read > MAX_ANSWER + MAX_FRAMING:
            self._fail(NodeRequestError(f"its answer has more than {MAX_ANSWER} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is None:
            return
        if self._status and not self._framed and exc is None:
            self._finish()
        else:
            when = "in mid-answer" if self._read else "before it answered"
            self._fail(ConnectionClosed(f"the node closed the connection {when}", unheard=not self._read))

    def _finish(self) -> None:
        waiter, self._waiter, self._parser = self._waiter, None, None
        if self._transport is not None and (self._surplus or not self._keep_alive):
            self._transport.abort()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        if waiter is not None and not waiter.done():
            waiter.set_result(NodeReply(self._status, body))

    def _fail(self, error: NodeRequestError) -> None:
        waiter = self._waiter
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._surplus = self._surplus or self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        lower = name.lower()
        if lower == b"content-length" or (lower == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True
        elif lower == b"content-encoding" and value.lower() not in (b"", b"identity"):
            self._trouble = "its answer is compressed, although no compression was requested"

    def on_headers_complete(self) -> None:
        if self._complete or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status >= 200:  # an interim head is followed by another
            self._status = status
            self._keep_alive = self._parser.should_keep_alive()
            self._framed = self._framed or status in (204, 304)

    def on_body(self, data: bytes) -> None:
        if self._complete:
            return
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self._trouble = f"its answer has more than {MAX_ANSWER} bytes"
            self._body = []
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._status != 0
