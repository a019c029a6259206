"""The server's side of one request of the data plane, from the bytes of its body to those of its answer.

No ASGI: what it costs to send a piece of an answer is one format and one write. A head goes out together with the
first piece of its body: one system call less for a plain answer, one packet less before a stream's first event.

    the body        the answer                                next
    whole           complete                                  the connection's next request
    still to come   complete: it was refused                  lingering: closed once the body is there, or enough of it
    still to come   -, its story waits for the body           story goes on when it is whole, too large or too late
    any             broken off by the end of its story        the connection is closed, so that the client sees it
    any             the client is gone                        its listener, or whoever waits for the body, is told
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.aio.inline_future import InlineFuture
from gateway.api.body import RequestBody
from gateway.api.request_head import Fields, RequestHead
from gateway.core.errors import ClientGone, GatewayError, RequestTooSlow
from gateway.upstream.downstream import Headers

LINGER_SECONDS = 2.0
LINGER_BYTES = 32 * 1024 * 1024
"""How much of an unwanted body is taken in and forgotten, and for how long: closing on unread bytes would reset the
connection, and the answer could be lost on its way (RFC 9112, section 9.6)."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LAST_CHUNK = b"0\r\n\r\n"


class Connection(Protocol):
    """What a cycle has to know of its client's connection."""

    transport: asyncio.Transport
    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]]

    def address(self, fields: Fields) -> str:
        """Where the client is, for a request with these header fields."""

    def default_lines(self) -> bytes:
        """Header lines that every answer begins with."""

    def unsent(self) -> int:
        """Bytes that wait to be sent to the client."""

    def answered(self) -> None:
        """The first of the unanswered requests has got its answer."""


class Cycle:
    """One request on one client connection: a `QueuedRequest` of its protocol."""

    begun = False
    gone = False
    """Whether the client closed the connection before its answer was complete."""
    status = 0
    response_complete = False
    keep_alive: bool
    _wanted: InlineFuture[None] | None = None
    _lingering: asyncio.TimerHandle | None = None
    _rendered: bytes = b""
    """The head, until there is something of the body."""
    _chunked = True
    _left: int | None = None
    """Bytes of the answer that its content-length still promises; None where it promised nothing."""

    def __init__(self, connection: Connection, head: RequestHead, body: RequestBody) -> None:
        self.connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self.head = head
        self.headers: Mapping[bytes, bytes] = head.headers
        self.keep_alive = head.keep_alive
        self._body = body

    # The request's body, as the connection gets it

    def feed(self, piece: bytes) -> None:
        body = self._body
        body.feed(piece)
        if self._wanted is None and not self.status and body.length > HIGH_WATER_LIMIT:
            self._flow.pause_reading()  # it is not its turn, or whose it is has to be looked up

    def end_of_body(self) -> None:
        self._body.end()

    def proceed(self) -> None:
        """Bytes have come, or the last of them: go on where somebody waited for that."""
        body = self._body
        whole = body.whole is not None
        if self._lingering is not None and (whole or body.length > LINGER_BYTES):
            self._stop_lingering()
        elif self._wanted is not None and (whole or body.refused is not None or body.length > self._limit):
            self._settle(None)

    async def _wait_for_body(self, limit: int, seconds: float) -> None:
        """Until the body is whole, or known to have more than `limit` bytes; at most `seconds`."""
        body = self._body
        declared = _declared(self.headers)
        if body.length > limit or declared > limit:
            return
        body.expect(declared)
        if body.refused is not None:
            return
        if self.head.expects and not body.length:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._limit = limit
        self._flow.resume_reading()
        self._wanted = InlineFuture(self.connection.loop)
        timer = self.connection.loop.call_later(seconds, self._body_late, seconds)
        try:
            await self._wanted
        finally:
            timer.cancel()

    def _body_late(self, seconds: float) -> None:
        self._settle(RequestTooSlow(f"The body did not arrive within {seconds:g} s."))

    def _settle(self, error: GatewayError | None) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is None or wanted.done():
            return
        if error is None:
            wanted.set_result(None)
        else:
            wanted.set_exception(error)

    def lose(self) -> None:
        """The client's connection is gone."""
        self.gone = True
        if self._lingering is not None:
            self._lingering.cancel()
        self._settle(ClientGone("The client closed its connection."))

    # The answer

    def _render(self, status: int, headers: Headers, more_lines: bytes) -> None:
        """Begin the answer; its head is kept until there is something of the body."""
        self.status = status
        head = self.head
        chunked = status not in (204, 304) and not head.old
        for name, value in headers:
            if name == b"content-length":
                self._left = int(value)
                chunked = False
        self._chunked = chunked and head.method != "HEAD"
        # A body that nobody read would be taken for the next request, or keep the connection for ever.
        self.keep_alive = self.keep_alive and self._body.whole is not None
        lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        defaults = self.connection.default_lines()
        self._rendered = b"".join((STATUS_LINE[status], defaults, lines, more_lines, framing, closing, b"\r\n"))

    def push(self, data: bytes) -> bool:
        """Send a piece of the body; False asks for no more until `on_writable`."""
        if self.gone or not data:
            return True
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._rendered, len(data), data)
        else:
            data = self._rendered + self._counted(data)
        self._rendered = b""
        self._transport.write(data)
        return not self._flow.write_paused

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        """What sends a piece of the body that is an HTTP chunk already, from now on; None where it is to be pushed."""
        return None if self._rendered or self.gone or not self._chunked else self._transport.write

    def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body, which may be empty."""
        if self.gone:
            return
        if self.response_complete:
            raise RuntimeError("the response is complete")
        if self.head.method == "HEAD":
            last = self._rendered
        elif self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            last = b"".join((self._rendered, chunk, _LAST_CHUNK))
        else:
            last = self._rendered + self._counted(data)
            if self._left:
                raise RuntimeError("the body is shorter than its content-length says")
        self._rendered = b""
        if last:
            self._transport.write(last)
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self.connection.answered()

    def _counted(self, data: bytes) -> bytes:
        """What of a body that is no chunk goes out: nothing for HEAD."""
        if self.head.method == "HEAD":
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise RuntimeError("the body is longer than its content-length says")
        return data

    # The end

    def _finish_and_linger(self, data: bytes) -> None:
        """Answer, and close the connection; not at once where the request's body is still coming."""
        if self._body.whole is not None:
            self.finish(data)
            return
        self._body.drop()
        self.push(data)
        self._flow.resume_reading()
        self._lingering = self.connection.loop.call_later(LINGER_SECONDS, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
            self.finish()

    def _break_off(self) -> None:
        """Nobody will go on with the answer."""
        if not (self.response_complete or self.gone or self._lingering is not None):
            self._transport.close()


def _declared(headers: Mapping[bytes, bytes]) -> int:
    """What a request says that its body's length is; 0 where it says nothing."""
    digits = headers.get(b"content-length", b"").lstrip(b"0")
    return int(digits[:20]) if digits.isdigit() else 0


def check_headers(headers: Headers) -> None:
    """Raises RuntimeError where a value could end its line. (What came from a node has been through its parser.)"""
    if _CONTROL.search(b"".join([value for _, value in headers])):
        raise RuntimeError("a response header has a control character in it")
