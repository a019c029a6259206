"""One client connection: uvicorn's HTTP protocol, with the bounds of a public listener and a data plane below ASGI.

What uvicorn leaves open: a connection that never finishes its headers, headers without end, and a plain text
answer to what is not HTTP. A connection beyond the limit is answered and closed instead of being left waiting.

Requests become turns, in their order: a `ClientCall` for the data plane, an `AsgiCycle` for the rest. The parser only
notes what it finds; a turn begins and goes on after it has returned, so that no story runs inside of it.

    what comes                               while                  what happens
    one whole request, its head known        nothing is unanswered  a call, with its body; the parser is not asked
    anything else                            any                    the parser is fed, and finds:
      a complete head                        the listener is admin  an ASGI cycle, unanswered
      a complete head                        its path is listed     a call, unanswered; else an ASGI cycle
      a piece, or the end, of a body         its turn waits         noted with it
      bytes of a head that is not complete   any                    counted and timed
      no HTTP                                any                    refused, and closed
    after each read, and after each answer   any                    the first unanswered turn begins, or goes on
    the client leaves                        any                    all that are unanswered are told
"""

import asyncio
from collections import deque
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.api.asgi import asgi_turn
from gateway.api.call import request_id_of
from gateway.api.edge import Edge, Turn
from gateway.api.errors import whole_answer
from gateway.api.heads import Fields, Head, Route, is_usual, split_target, without_upgrade
from gateway.api.unsent import UnsentWatch
from gateway.core.dialects import DIALECTS
from gateway.core.errors import (
    GatewayError,
    HeadersTooLarge,
    InvalidRequest,
    RequestTooSlow,
    TooManyConnections,
)
from gateway.core.familiar import Familiar

FIRST_REQUEST_GRACE = 1.0
"""Seconds that a connection without a request yet is kept when the server shuts down."""

LOOK_AGAIN = 0.02

MAX_AHEAD = 16
"""Requests that are read ahead of the one that is being answered."""

MAX_STRANGERS = 8
"""Heads of one connection that are kept to be known again, one after the other: then they seem always to differ."""


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. The application leaves its `Edge` in the lifespan state under `edge`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._edge = cast(Edge, self.app_state["edge"])
        self._public = True
        self._late: asyncio.TimerHandle | None = None
        self._between_requests = True
        self._header_bytes = 0
        self._long_read = False
        self._unknown_coding = False
        self._unsent: UnsentWatch | None = None
        self._unanswered: deque[Turn] = deque()  # in the order of their requests: a client may send some ahead
        self._arriving: Turn | None = None  # the one whose body the parser is in
        self._advancing = False
        self._idle: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._messages = self._completed = 0  # that the parser has begun, and ended
        self._uncounted = False
        self._next_begun = False
        self._familiar: Familiar[tuple[Route, Head]] | None = None
        self._complete_head: Head | None = None
        self._route: Route | None = None
        self._strangers = 0
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unsent = UnsentWatch(transport, self.loop, self._edge.client_stall)
        self._public = self.server is None or self.server[1] != self._edge.admin_port
        if self._public and len(self.connections) > self._edge.max_connections:
            self._refuse(TooManyConnections("Too many connections are open: try again.", retry_after=1.0))
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_headers()
        if self._unsent is not None:
            self._unsent.stop()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)
        unanswered = tuple(self._unanswered)
        self._unanswered.clear()
        for turn in unanswered:
            turn.lose()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unsent is not None:
            self._unsent.look()
        if self._unanswered:
            self._unanswered[0].on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent is not None:
            self._unsent.stop()
        if self._unanswered:
            self._unanswered[0].on_writable()

    # A request's way in

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        familiar = self._familiar
        if familiar is not None and not self._unanswered and self._between_requests and not self._header_bytes:
            body = familiar.body_in(data)
            if body is not None:
                if self._late is not None:
                    self._got_headers()
                self._unanswered.append(self._edge.front.open(self, *familiar.known, body))
                self._advance()
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        whole = self._between_requests and not self._header_bytes
        messages, completed = self._messages, self._completed
        self._long_read = len(data) > self._edge.max_headers
        if self._between_requests:
            data = without_upgrade(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._between_requests:
            self._count_headers(len(data) if self._completed == completed else 1)
            if whole and self._messages == messages + 1 and self._header_bytes == 0:
                self._remember(data)
        self._advance()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._unknown_coding = False
        self._messages += 1
        self._next_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            self._unknown_coding = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._between_requests = self._next_begun = False
        self._header_bytes = 0
        self._arriving = None
        self._got_headers()
        if self._unknown_coding:
            self._refuse(InvalidRequest("The only transfer-encoding of a body is chunked.", code="invalid_http"))
        elif (self._long_read or self._uncounted) and self._length_of_headers() > self._edge.max_headers:
            self._refuse_long_headers()
        if self.transport.is_closing():
            return
        turn = self._arriving = self._turn(self._head())
        self._unanswered.append(turn)
        if len(self._unanswered) > MAX_AHEAD:
            self.flow.pause_reading()  # not before: while nothing is read, nobody sees that the client left

    def on_body(self, body: bytes) -> None:
        if self._arriving is not None:  # None: refused for its headers
            self._arriving.feed(body)

    def on_message_complete(self) -> None:
        self._between_requests = True
        self._completed += 1
        self._uncounted = False
        if self._arriving is not None:
            self._arriving.end_of_body()
            self._arriving = None

    def _head(self) -> Head:
        version = self.parser.get_http_version()
        path, raw_path, query = split_target(self.url)
        return Head(
            method=self.parser.get_method().decode("ascii"),
            path=path,
            raw_path=raw_path,
            query=query,
            fields=self.headers,
            headers=dict(self.headers),
            old=version == "1.0",
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            expects=self.expect_100_continue,
        )

    def _turn(self, head: Head) -> Turn:
        self._route = self._edge.front.find(head) if self._public else None
        self._complete_head = head
        if self._route is not None:
            return self._edge.front.open(self, self._route, head, None)
        return asgi_turn(self, head, self.answered)

    def _remember(self, data: bytes) -> None:
        """Know the head of this request again, if it was a usual one. Not for clients whose heads always differ."""
        route, head = self._route, self._complete_head
        if route is None or head is None or self._strangers >= MAX_STRANGERS:
            return
        self._strangers += 1
        self._familiar = Familiar.of(data, (route, head)) if is_usual(head) else None

    # Requests in their order

    def _advance(self) -> None:
        """Begin the first unanswered request, or let it go on; the next one where it has got its answer with that."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._unanswered and not self.transport.is_closing():
                turn = self._unanswered[0]
                if turn.begun:
                    turn.proceed()
                else:
                    turn.begin()
                if self._unanswered and self._unanswered[0] is turn:
                    return
        finally:
            self._advancing = False

    def answered(self) -> None:
        """The first of the unanswered requests has got its answer."""
        if self._unanswered:  # not after the connection was lost
            self._unanswered.popleft()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._check_idle)
        if self._unsent is not None:
            self._unsent.look()
        if self._unanswered:
            self._advance()

    def _check_idle(self) -> None:
        """One timer for all pauses of a connection: it is set anew when it goes off, not with every request."""
        self._idle = None
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._unanswered or not self._between_requests or self._header_bytes:
            rest = float(self.timeout_keep_alive)
        if rest > 0:
            self._idle = self.loop.call_later(rest, self._check_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    # What the data plane asks of a connection

    def address(self, fields: Fields) -> str:
        return self._edge.front.layers.address(self.client, fields)

    def default_lines(self) -> bytes:
        """uvicorn makes a new list of them every second, for the date."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        return self._default_lines

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("This is not a valid HTTP request.", code="invalid_http"))

    def shutdown(self) -> None:
        self._edge.on_shutdown()
        self._leave(self.loop.time() + (0.0 if self._messages else FIRST_REQUEST_GRACE))

    def _leave(self, until: float) -> None:
        """Close after what is being answered. Who has just connected has a request under way: it is awaited, for a
        connection that is closed before it comes is a request lost."""
        for turn in self._unanswered:
            turn.keep_alive = False
        if not self._unanswered and (self._messages or self.loop.time() >= until):
            self.transport.close()
        elif not self._unanswered:
            self.loop.call_later(LOOK_AGAIN, self._leave, until)

    def _expect_headers(self) -> None:
        self._late = self.loop.call_later(self._edge.headers_timeout, self._headers_late)

    def _got_headers(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _count_headers(self, length: int) -> None:
        """Bytes came that do not complete the headers of a request (blank lines are such bytes, too).

        How many there are is not known where they came in one read with the end of the request before: then they
        are measured when the headers are complete, and counted as one until there are more.
        """
        if self._unanswered and self._header_bytes == 0 and not self._next_begun:
            return  # nothing of a next request has come
        self._uncounted = self._uncounted or length == 1
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
        if not waiting or (len(waiting) == 1 and not waiting[0].started):
            # else the answer would land in the middle of another one
            status, headers, body = whole_answer(error, DIALECTS[0], request_id_of({}))
            lines = b"".join(b"%b: %b\r\n" % pair for pair in [*headers, (b"connection", b"close")])
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.close()
