"""One client's request of the data plane, from the first byte of its body to the last byte of its answer.

No ASGI: a piece of an answer costs one format and one write. A head goes out together with the first piece of its body:
one system call less for a plain answer, one packet less before a stream's first event. The relay pushes from the node's
`data_received`, straight into the client's connection.

    the body        the answer                              next
    complete        complete                                the connection's next request
    still to come   complete: the request was refused       lingering: closed once the body is there, or enough of it
    still to come   none: the pipeline awaits the body      the pipeline goes on once it is complete, too large or late
    any             broken off: the pipeline has ended      the connection is closed, so that the client sees it
    any             the client is gone                      its listener, or the waiter for the body, is called
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.aio.inline_future import InlineFuture
from gateway.api.body import RequestBody, RequestBounds
from gateway.api.errors import error_headers, shape_error
from gateway.api.flow_control import HIGH_WATER_LIMIT, TURN_BYTES
from gateway.api.request_head import Endpoint, RequestHead, brings_body, declared_length, request_id_of
from gateway.api.response_head import LAST_CHUNK, STATUS_LINE, check_values, header_lines
from gateway.api.server_connection import ServerConnection
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import AnswerTooLarge, BodyTooLarge, ClientGone, GatewayError, MemoryFull, RequestTooSlow
from gateway.core.http.content_coding import HEADER
from gateway.core.http.json_size import JsonSize
from gateway.upstream.downstream import ClientListener, Headers

LINGER_SECONDS = 2.0
LINGER_BYTES = 32 * 1024 * 1024
"""How much of an unwanted body is read and dropped, and for how long: closing on unread bytes would reset the
connection, and the answer could be lost on its way (RFC 9112, section 9.6)."""

EARLY_BYTES: Final = 64 * 1024
"""From this size on, a body is parsed only after its sender has been authenticated and its limits checked."""

UNSENT_BYTES: Final = 64 * 1024
UNSENT_SECONDS = 0.25
"""Memory of an answer that the client has not read is held beyond the request's end, and checked at this interval."""


class ClientRequest:
    """A `QueuedRequest` of its connection, and the `DownstreamRequest` of pipeline and relay."""

    begun = False
    gone = False
    status = 0
    response_complete = False
    keep_alive: bool
    _body_waiter: InlineFuture[None] | None = None
    _body_limit = 0
    _turn_bytes = 0
    _linger_timer: asyncio.TimerHandle | None = None
    _unsent_head: bytes = b""
    """The head, until there is something of the body."""
    _chunked = True
    _remaining: int | None = None
    """Bytes of the answer that its content-length still promises; None where it promised nothing."""
    _stream = False
    _held_bytes = 0
    _held_json: JsonSize | None = None
    _extra_headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        connection: ServerConnection,
        head: RequestHead,
        body: bytes | None,
        endpoint: Endpoint,
        bounds: RequestBounds,
        begin: Callable[["ClientRequest"], None],
    ) -> None:
        """`begin` is called when all requests before it are answered; `body` is None where it is still to come."""
        self.connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self.head = head
        self.headers: Mapping[bytes, bytes] = head.headers
        self.keep_alive = head.keep_alive
        self._body = RequestBody(bounds, body)
        if HEADER in head.headers and brings_body(head):
            self._body.set_coding(head.fields)
        self._memory = self._body.memory
        self.listener: ClientListener | None = None  # here: mypyc knows no default of the class that is a protocol's
        self.stream_filter: StreamFilter | None = None
        self.endpoint = endpoint
        self.request_id = request_id_of(head.headers)
        self._bounds = bounds
        self._begin = begin

    @property
    def address(self) -> str:
        """The client's address; behind trusted proxies, the one that they report."""
        return self.connection.address(self.head.fields)

    @property
    def started(self) -> bool:
        return self.status != 0

    # Its place in the connection's queue

    def begin(self) -> None:
        self.begun = True
        self._begin(self)

    def proceed(self) -> None:
        body = self._body
        whole = body.whole is not None
        if self._linger_timer is not None and (whole or body.length > LINGER_BYTES):
            self._stop_lingering()
        elif self._body_waiter is not None and (whole or body.refused is not None or body.length > self._body_limit):
            self._resume_reader(None)

    def feed(self, piece: bytes) -> None:
        body = self._body
        body.feed(piece)
        self._turn_bytes += len(piece)
        if self._turn_bytes >= TURN_BYTES:
            self._turn_bytes = 0
            self._flow.yield_turn(self.connection.loop)
        if self._body_waiter is None and not self.status and body.length > HIGH_WATER_LIMIT:
            self._flow.pause_reading()  # requests before it are unanswered, or its key is awaited

    def end_of_body(self) -> None:
        self._body.end()

    def on_gone(self) -> None:
        self.gone = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._resume_reader(ClientGone("The client closed its connection."))
        if self.listener is not None:
            self.listener.on_gone()
        if not self.begun:  # else the pipeline ends, and calls `close`
            self._memory.shrink(0)

    def on_full(self) -> None:
        if self.listener is not None:
            self.listener.on_full()

    def on_writable(self) -> None:
        if self.listener is not None:
            self.listener.on_writable()

    # Its body, as the pipeline reads it

    @property
    def weighty(self) -> bool:
        """Whether its body costs something to read: it has not come yet, is large, or is compressed."""
        body = self._body
        return body.whole is None or len(body.whole) > EARLY_BYTES or body.coding is not None

    @property
    def values(self) -> int:
        """The values of its body; 0 where it is small."""
        return self._body.values

    @property
    def strings(self) -> int:
        """The strings in its body; 0 where it is small."""
        return self._body.strings

    def shrink_body(self, size: int) -> None:
        """Hold `size` bytes for its body from now on."""
        self._memory.shrink(size)

    def grow_body(self, size: int) -> None:
        """Hold `size` bytes more for its body."""
        memory = self._memory
        if memory.size + size > memory.most:
            raise BodyTooLarge(
                f"The conversation needs {memory.size + size} bytes of memory, and one tenant can have {memory.most}."
            )
        if not memory.acquire(size):
            raise MemoryFull("The memory for request bodies is used up; retry in 1 s.", retry_after=1.0)

    async def read_body(self, owner: str) -> bytes:
        """The whole body, held as `owner`'s memory."""
        body, bounds = self._body, self._bounds
        self._memory.set_owner(owner)
        if body.whole is None and body.refused is None:
            await self._wait_for_body(bounds.max_body, bounds.body_timeout)
        if body.coding is not None:
            self._flow.resume_reading()
            await self._unpack(body)
        return self.take_body(owner)

    def take_body(self, owner: str) -> bytes:
        self._memory.set_owner(owner)
        self._flow.resume_reading()  # paused by a large body that was complete before the request began
        return self._body.detach()

    async def _wait_for_body(self, limit: int, seconds: float) -> None:
        """Until the body is complete, or known to have more than `limit` bytes; at most `seconds`."""
        body = self._body
        declared = declared_length(self.headers)
        if body.length > limit or declared > limit:
            return
        body.expect(declared)
        if body.refused is not None:
            return
        if self.head.expects and not body.length:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body_limit = limit
        self._flow.resume_reading()
        self._body_waiter = InlineFuture(self.connection.loop)
        timer = self.connection.loop.call_later(seconds, self._on_body_timeout, seconds)
        try:
            await self._body_waiter
        finally:
            timer.cancel()

    def _on_body_timeout(self, seconds: float) -> None:
        self._resume_reader(RequestTooSlow(f"The body did not arrive within {seconds:g} s."))

    def _resume_reader(self, error: GatewayError | None) -> None:
        waiter, self._body_waiter = self._body_waiter, None
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    async def _unpack(self, body: RequestBody) -> None:
        """Unpack a compressed body; where that takes more than a step, one body of a tenant at a time, and in steps
        that all tenants share: many such bodies would hold up the loop."""
        if body.unpack():
            return
        bounds, done = self._bounds, False
        async with bounds.lane(self._memory.owner):
            while not done:
                async with bounds.steps:
                    done = body.unpack()
                    await asyncio.sleep(0)
                if self.gone:
                    raise ClientGone("The client closed its connection.")

    # Its answer

    def hold(self, length: int, rewritten: bytes | None = None) -> None:
        self._held_bytes += length
        most = self._bounds.max_answer
        if self._held_bytes > most:
            raise _too_large(f"{most} bytes (requests.max_answer)")
        if rewritten is not None:
            held = self._held_json = self._held_json or JsonSize()
            before = held.size
            held.feed(rewritten)
            length = held.size - before
        if self._memory.size + length > self._memory.most:
            raise _too_large("one tenant's part of the memory (requests.memory)")
        if not self._memory.acquire(length):
            raise MemoryFull("The memory for answers is used up: use a stream, or retry.", retry_after=1.0)

    def add_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._extra_headers += tuple(headers)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        head = self._head_of(status, header_lines(headers), b"content-length: %d\r\n" % len(body))
        if not self.gone:
            self._complete(head if self.head.method == "HEAD" else head + body)

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        self._stream = stream
        self._render_head(status, headers)

    def _render_head(self, status: int, headers: Headers) -> None:
        """Begin the answer; its head is sent with the first piece of its body."""
        head = self.head
        chunked = status not in (204, 304) and not head.old
        for name, value in headers:
            if name == b"content-length":
                self._remaining = int(value)
                chunked = False
        self._chunked = chunked and head.method != "HEAD"
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        self._unsent_head = self._head_of(status, header_lines(headers), framing)

    def _head_of(self, status: int, lines: bytes, framing: bytes) -> bytes:
        """The head of the answer with these header `lines`, and the line that frames its body."""
        self.status = status
        if self._extra_headers:
            check_values(self._extra_headers)
            lines += header_lines(self._extra_headers)
        # An unread body would be parsed as the next request, or keep the connection for ever.
        self.keep_alive = self.keep_alive and self._body.whole is not None
        request_id = self.request_id.encode()
        return b"%b%b%b%bx-request-id: %b\r\nrequest-id: %b\r\n%b\r\n" % (
            STATUS_LINE[status],
            self.connection.default_lines(),
            lines,
            framing,
            request_id,
            request_id,
            b"" if self.keep_alive else b"connection: close\r\n",
        )

    def push(self, data: bytes) -> bool:
        if self.gone or not data:
            return True
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._unsent_head, len(data), data)
        else:
            data = self._unsent_head + self._counted(data)
        self._unsent_head = b""
        self._transport.write(data)
        return not self._flow.write_paused

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        return None if self._unsent_head or self.gone or not self._chunked else self._transport.write

    def finish(self, data: bytes = b"") -> None:
        if self.gone:
            return
        if self.head.method == "HEAD":
            last = self._unsent_head
        elif self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            last = b"".join((self._unsent_head, chunk, LAST_CHUNK))
        else:
            last = self._unsent_head + self._counted(data)
            if self._remaining:
                raise RuntimeError("the body is shorter than its content-length says")
        self._unsent_head = b""
        self._complete(last)

    def _complete(self, last: bytes) -> None:
        """Send the last bytes of the answer."""
        if self.response_complete:
            raise RuntimeError("the response is complete")
        if last:
            self._transport.write(last)
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self.connection.answered()

    def _counted(self, data: bytes) -> bytes:
        """The bytes of an unchunked body that are sent, counted against its content-length; none for HEAD."""
        if self.head.method == "HEAD":
            return b""
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                raise RuntimeError("the body is longer than its content-length says")
        return data

    def fail(self, error: GatewayError) -> None:
        """An error answer; in a stream that has begun an event; a plain answer that has begun is left cut off."""
        if self.gone or self.response_complete:
            return
        if self.status == 0:
            shape = shape_error(error, self.request_id)
            body = self.endpoint.dialect.error(shape)
            headers = error_headers(error, body)
            check_values(headers)
            self._render_head(shape.status, headers)
            self._finish_and_linger(body)
        elif self._stream:
            number = 0 if self.stream_filter is None else self.stream_filter.next_number
            self.finish(self.endpoint.dialect.error_event(shape_error(error, self.request_id), number))

    # Its end

    def close(self) -> None:
        """The pipeline has ended, in whatever way."""
        self.listener = None
        self.stream_filter = None
        self._release_memory()
        if not (self.response_complete or self.gone or self._linger_timer is not None):
            self._transport.close()  # nobody goes on with the answer

    def _release_memory(self) -> None:
        """Hold no more than the part of the answer that the client has not read."""
        unsent = self._unread() if self._memory.size > UNSENT_BYTES else 0
        self._memory.shrink(unsent)
        if unsent:
            self.connection.loop.call_later(UNSENT_SECONDS, self._release_memory)

    def _unread(self) -> int:
        try:
            return self.connection.unsent()
        except (RuntimeError, AttributeError):  # closed
            return 0

    def _finish_and_linger(self, data: bytes) -> None:
        """Answer, and close the connection; later where the request's body is still coming."""
        if self._body.whole is not None:
            self.finish(data)
            return
        self._body.drop()
        self.push(data)
        self._flow.resume_reading()
        self._linger_timer = self.connection.loop.call_later(LINGER_SECONDS, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
            self.finish()


def _too_large(bound: str) -> AnswerTooLarge:
    return AnswerTooLarge(
        f"The answer is larger than {bound}, and must be buffered whole: use a stream, or lower max_tokens."
    )
