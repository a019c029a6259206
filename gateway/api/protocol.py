"""uvicorn's HTTP protocol with the bounds that a public listener needs.

What uvicorn leaves open: a connection that never finishes its headers, headers without end, and a plain text
answer to what is not HTTP. A connection beyond the limit is answered and closed instead of being left waiting.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.api.call import request_id_of
from gateway.api.cycle import EXTENSION, Cycle
from gateway.api.errors import whole_answer
from gateway.core.dialects import DIALECTS
from gateway.core.errors import (
    GatewayError,
    HeadersTooLarge,
    InvalidRequest,
    RequestTooSlow,
    TooManyConnections,
)

MAX_AHEAD = 16
"""Requests that are read ahead of the one that is being answered."""

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Edge:
    """Bounds of the listeners: connections on the public one, bytes and seconds for a request's headers, seconds
    for a client to take something of what it was sent.

    `on_shutdown` is called once for every connection that is open when the server begins to shut down.
    """

    admin_port: int | None
    max_connections: int
    max_headers: int
    headers_timeout: float
    client_stall: float
    on_shutdown: Callable[[], None]


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. The application leaves its `Edge` in the lifespan state under `edge`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._edge = cast(Edge, self.app_state["edge"])
        self._late: asyncio.TimerHandle | None = None
        self._between_requests = True
        self._header_bytes = 0
        self._long_read = False
        self._unknown_coding = False
        self._stalled: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._unanswered: deque[Cycle] = deque()  # in the order of their requests: a client may send some ahead

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_public() and len(self.connections) > self._edge.max_connections:
            self._refuse(TooManyConnections("Too many connections are open: try again.", retry_after=1.0))
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_headers()
        self._stop_watching_unsent()
        super().connection_lost(exc)
        for cycle in self._unanswered:
            cycle.lose()
        self._unanswered.clear()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching_unsent()
        if self._unanswered and self._unanswered[0].on_writable is not None:
            self._unanswered[0].on_writable()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._long_read = len(data) > self._edge.max_headers
        if self._between_requests and _UPGRADE.search(data) is not None:
            data = _without_upgrade(data)
        super().data_received(data)
        if self._between_requests and self.parser is not None and not self.transport.is_closing():
            self._count_headers(len(data))

    def on_message_begin(self) -> None:
        self._unknown_coding = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            self._unknown_coding = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._between_requests = False
        self._header_bytes = 0
        self._got_headers()
        if self._unknown_coding:
            self._refuse(InvalidRequest("The only transfer-encoding of a body is chunked.", code="invalid_http"))
        elif self._long_read and self._length_of_headers() > self._edge.max_headers:
            self._refuse_long_headers()
        if self.transport.is_closing():
            return
        self._begin_cycle()

    def _begin_cycle(self) -> None:
        """What uvicorn does with complete headers, with our kind of cycle and without its options."""
        scope = self.scope
        version = self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = _split_target(self.url)
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {EXTENSION: cycle}  # type: ignore[dict-item]
        if self._unanswered:  # sent ahead: its turn comes when those before it are answered
            self.pipeline.appendleft((cycle, self.app))
            if len(self._unanswered) >= MAX_AHEAD:
                self.flow.pause_reading()  # not before: while nothing is read, nobody sees that the client left
        else:
            self._start_asgi_task(cycle, self.app)
        self._unanswered.append(cycle)

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:  # None: refused for its headers
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._between_requests = True
        if self.cycle is not None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._watch_unsent()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("This is not a valid HTTP request.", code="invalid_http"))

    def shutdown(self) -> None:
        self._edge.on_shutdown()
        super().shutdown()

    def _is_public(self) -> bool:
        return self.server is None or self.server[1] != self._edge.admin_port

    def _watch_unsent(self) -> None:
        if self._stalled is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._stalled = self.loop.call_later(self._edge.client_stall, self._check_unsent)

    def _check_unsent(self) -> None:
        """A client that took nothing in all this time is gone; closing would wait for it for ever."""
        self._stalled = None
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent > 0:
            self.transport.abort()
        elif unsent:
            self._watch_unsent()

    def _stop_watching_unsent(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _expect_headers(self) -> None:
        self._late = self.loop.call_later(self._edge.headers_timeout, self._headers_late)

    def _got_headers(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _count_headers(self, length: int) -> None:
        """Bytes came that do not complete the headers of a request (blank lines are such bytes, too).

        The rest of the request before is counted with them; it is less than a read.
        """
        if self._unanswered and self._header_bytes == 0 and self.scope is self._unanswered[-1].scope:
            return  # nothing of a next request has come
        self._header_bytes += length
        if self._header_bytes > self._edge.max_headers:
            self._refuse_long_headers()
        elif self._late is None:
            self._expect_headers()

    def _headers_late(self) -> None:
        self._late = None
        if self._header_bytes == 0:  # it never spoke: there is no request to answer
            self.transport.close()
        else:
            seconds = self._edge.headers_timeout
            self._refuse(RequestTooSlow(f"The headers did not arrive within {seconds:g} s."))

    def _length_of_headers(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse_long_headers(self) -> None:
        self._refuse(HeadersTooLarge(f"The headers are larger than {self._edge.max_headers} bytes."))

    def _refuse(self, error: GatewayError) -> None:
        """Answer below ASGI, for there is no request yet, and close."""
        waiting = self._unanswered
        if not waiting or (len(waiting) == 1 and not waiting[0].response_started):
            # else the answer would land in the middle of another one
            status, headers, body = whole_answer(error, DIALECTS[0], request_id_of({}))
            lines = b"".join(b"%b: %b\r\n" % pair for pair in [*headers, (b"connection", b"close")])
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.close()


def _split_target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, and query of a request's target; HttpParserInvalidURLError where it is none."""
    if url.startswith(b"/") and b"%" not in url and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
        return raw_path.decode("ascii"), raw_path, query
    parsed = httptools.parse_url(url)
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


def _without_upgrade(data: bytes) -> bytes:
    """The request that `data` begins, without its offer to speak another protocol.

    Java's HTTP client offers HTTP/2 with every request; a server that does not take it up answers as if it had not
    been made. The parser, however, would stop at it and lose the body.
    """
    head, blank, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-not-taken:", head) + blank + rest
