"""uvicorn's HTTP protocol with the bounds that a public listener needs.

What uvicorn leaves open: a connection that never finishes its headers, headers without end, and a plain text
answer to what is not HTTP. A connection beyond the limit is answered and closed instead of being left waiting.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.api.call import request_id_of
from gateway.api.errors import whole_answer
from gateway.core.dialects import DIALECTS
from gateway.core.errors import (
    GatewayError,
    HeadersTooLarge,
    InvalidRequest,
    RequestTooSlow,
    TooManyConnections,
)

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Edge:
    """Bounds of the listeners: connections on the public one, bytes and seconds for a request's headers.

    `on_shutdown` is called once for every connection that is open when the server begins to shut down.
    """

    admin_port: int | None
    max_connections: int
    max_headers: int
    headers_timeout: float
    on_shutdown: Callable[[], None]


class OneWriteCycle(RequestResponseCycle):
    """uvicorn's side of one request, but a head goes out together with the first piece of its body: one system
    call less for a plain answer, and one packet less before a stream's first event."""

    _head: bytes = b""

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._head = self._render_head(message)
        elif self.response_complete:
            raise RuntimeError(f"{message['type']} after the response was complete")
        else:
            self._send_body(message["body"], message.get("more_body", False))

    def _render_head(self, message: Any) -> bytes:
        self.response_started = True
        self.waiting_for_100_continue = False
        headers = message["headers"]
        self.chunked_encoding = self.scope["method"] != "HEAD" and message["status"] not in (204, 304)
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
        lines = [b"%b: %b\r\n" % pair for pair in self.default_headers]
        lines += [b"%b: %b\r\n" % pair for pair in headers]
        if _CONTROL.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a response header has a control character in it")
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive and (b"connection", b"close") not in headers:
            lines.append(b"connection: close\r\n")
        return b"".join((STATUS_LINE[message["status"]], *lines, b"\r\n"))

    def _send_body(self, body: bytes, more: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.transport.write(head)
        elif self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(b"".join((head, chunk, b"" if more else b"0\r\n\r\n")))
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the body is not as long as its content-length says")
            self.transport.write(head + body if head else body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. The application leaves its `Edge` in the lifespan state under `edge`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._edge = cast(Edge, self.app_state["edge"])
        self._late: asyncio.TimerHandle | None = None
        self._in_headers = True
        self._header_bytes = 0
        self._long_read = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_public() and len(self.connections) > self._edge.max_connections:
            self._refuse(TooManyConnections("Too many connections are open: try again.", retry_after=1.0))
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_headers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._long_read = len(data) > self._edge.max_headers
        super().data_received(data)
        if self._in_headers and self.parser is not None:
            self._header_bytes += len(data)
            if self._header_bytes > self._edge.max_headers:
                self._refuse_long_headers()
            elif self._late is None:
                self._expect_headers()

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._got_headers()
        if self._long_read and sum(len(n) + len(v) for n, v in self.headers) > self._edge.max_headers:
            self._refuse_long_headers()
            return
        super().on_headers_complete()
        self.cycle.__class__ = OneWriteCycle  # uvicorn makes its own kind; it differs in nothing but `send`

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:  # None: refused for its headers
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("This is not a valid HTTP request.", code="invalid_http"))

    def shutdown(self) -> None:
        self._edge.on_shutdown()
        super().shutdown()

    def _is_public(self) -> bool:
        return self.server is None or self.server[1] != self._edge.admin_port

    def _expect_headers(self) -> None:
        self._late = self.loop.call_later(self._edge.headers_timeout, self._headers_late)

    def _got_headers(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _headers_late(self) -> None:
        self._late = None
        if self._header_bytes == 0:  # it never spoke: there is no request to answer
            self.transport.close()
        else:
            seconds = self._edge.headers_timeout
            self._refuse(RequestTooSlow(f"The headers did not arrive within {seconds:g} s."))

    def _refuse_long_headers(self) -> None:
        self._refuse(HeadersTooLarge(f"The headers are larger than {self._edge.max_headers} bytes."))

    def _refuse(self, error: GatewayError) -> None:
        """Answer below ASGI, for there is no request yet, and close."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering:  # else the answer would land in the middle of another one
            status, headers, body = whole_answer(error, DIALECTS[0], request_id_of({}))
            lines = b"".join(b"%b: %b\r\n" % pair for pair in [*headers, (b"connection", b"close")])
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.close()
