"""One HTTP/1.1 connection to a node, kept alive between exchanges.

Theory. A node's answer is framed by a Content-Length, by chunks, or by the end of the connection (RFC 9112,
section 6.3). llhttp (through httptools) does the parsing, strictly; this module adds what a client must know
besides: whose turn it is, whether the answer is whole, and whether the connection may be used again. Nothing
awaits here: bytes go from `data_received` straight into the receiver, so no task is woken for an event.

A read that is exactly one chunk, as nearly every event is, goes past the parser, which stands between two chunks before
it and after it.

    state    what happens                                    next     the receiver is told
    IDLE     send()                                          WAITING  -
    IDLE     bytes come unasked, or the node hangs up        CLOSED   -
    WAITING  interim head (1xx)                              WAITING  -
    WAITING  head                                            BODY     on_head
    WAITING  lost at once; used before, not a byte heard     CLOSED   on_error(StaleConnection)
    WAITING  lost otherwise                                  CLOSED   on_error(UpstreamCut)
    BODY     exactly one chunk                               BODY     on_chunk, framed and unframed
    BODY     another part of the body                        BODY     on_data, once per read
    BODY     framing says complete                           IDLE *   on_end
    BODY     lost, body framed by the end of the connection  CLOSED   on_end
    BODY     lost otherwise                                  CLOSED   on_error(UpstreamCut)
    any      not HTTP, or a head without end                 CLOSED   on_error(BadUpstreamResponse)
    any      the receiver raises                             CLOSED   on_broken with what it raised
    any      abort()                                         CLOSED   nothing: the caller knows

    * CLOSED where it cannot be used again: `Connection: close`, surplus bytes, or a request not yet sent whole.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, cast

import httptools

from gateway.core.errors import BadUpstreamResponse, StaleConnection, UpstreamCut, UpstreamError
from gateway.core.http.chunks import data_of_chunk
from gateway.core.http.head_cache import HeadCache

MAX_QUIET_BYTES = 65_536
"""Bytes that may come in without a finished head or a piece of the body: bounds heads, trailers and chunk noise."""


STALE_SECONDS = 1.0
"""How long after a request was sent a close without a byte counts as a stale connection."""


class ResponseHead(NamedTuple):
    """Status and headers of an answer; names in lower case, in the order they came."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    content_type: bytes = b""
    coding: tuple[bytes, bytes] | None = None
    """The header that says that the body is compressed, None where none does."""


class Receiver(Protocol):
    """Who an answer goes to. Exactly one of `on_end`, `on_error` and `on_broken` ends it, unless it was aborted."""

    def on_head(self, head: ResponseHead) -> None: ...
    def on_chunk(self, chunk: bytes, data: bytes) -> None:
        """A part of the body that came as one chunk: the chunk as it came, and its data."""

    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: UpstreamError) -> None: ...
    def on_broken(self, error: Exception) -> None:
        """One of the other callbacks raised `error`; the node's connection is closed, or free again."""


class NodeHeadCache:
    """What the connections to one node remember of its answers: the head of the last plain one."""

    familiar: HeadCache[ResponseHead] | None = None


class ConnectionState(Enum):
    IDLE = "idle"
    WAITING = "waiting"
    BODY = "body"
    CLOSED = "closed"


class UpstreamConnection(asyncio.Protocol):
    """An exchange at a time: `send`, then the receiver hears; `free` is called when the next one may come."""

    __slots__ = (
        "_body",
        "_complete",
        "_exchanges",
        "_free",
        "_head",
        "_head_told",
        "_headers",
        "_heard",
        "_keep_alive",
        "_memory",
        "_on_chunk",
        "_parser",
        "_paused",
        "_quiet_bytes",
        "_receiver",
        "_sent_at",
        "_state",
        "_surplus",
        "_transport",
        "_until_eof",
        "idle_since",
    )

    def __init__(self, free: Callable[["UpstreamConnection"], None], memory: NodeHeadCache | None = None) -> None:
        """`free(connection)` hands a reusable connection back to its pool."""
        self._memory = memory or NodeHeadCache()
        self._free = free
        self._state = ConnectionState.IDLE
        self._exchanges = 0
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._paused = False
        self._sent_at = 0.0
        self.idle_since = 0.0  # time.monotonic, set by the pool
        self._forget_exchange()

    def _forget_exchange(self) -> None:
        self._heard = False
        self._quiet_bytes = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: ResponseHead | None = None
        self._head_told = False
        self._body: list[bytes] = []
        self._complete = False
        self._on_chunk: Callable[[bytes, bytes], None] | None = None
        self._surplus = False
        self._keep_alive = False
        self._until_eof = False

    # What the caller does

    @property
    def usable(self) -> bool:
        """Whether the next exchange may start on this connection."""
        return self._state is ConnectionState.IDLE and self._transport is not None and not self._transport.is_closing()

    def send(self, parts: Sequence[bytes], receiver: Receiver) -> None:
        """Write a whole request (head and body as `parts`); the answer goes to `receiver`."""
        if self._state is not ConnectionState.IDLE or self._transport is None:
            raise RuntimeError(f"send() on a connection that is {self._state.value}")
        self._forget_exchange()
        self._state = ConnectionState.WAITING
        self._exchanges += 1
        self._sent_at = time.monotonic()
        self._receiver = receiver
        self._transport.writelines(parts)

    def pause(self) -> None:
        """Stop reading: the node's socket fills up and the node waits. Nothing where its answer is over."""
        if (
            not self._paused
            and self._receiver is not None
            and self._transport is not None
            and not self._transport.is_closing()
        ):
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on after `pause`."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, in whatever state: the node sees it and stops working. The receiver hears nothing."""
        self._state = ConnectionState.CLOSED
        self._on_chunk = None
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        try:
            if self._on_chunk is not None and (event := data_of_chunk(data)):
                self._on_chunk(data, event)
            else:
                self._read(data)
        except Exception as error:  # noqa: BLE001 - a node may send anything, and none of it may leave a request waiting
            self._break(error)

    def _read(self, data: bytes) -> None:
        if (
            self._state is ConnectionState.IDLE
        ):  # nothing was asked: whatever this is, it must not answer the next request
            self.abort()
            return
        if self._state is ConnectionState.CLOSED:
            return
        first, self._heard = not self._heard, True
        familiar = self._memory.familiar
        if first and familiar is not None and (body := familiar.body_in(data)) is not None:
            self._take_familiar(familiar.known, body)
            return
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._fail(BadUpstreamResponse("The node's answer is not HTTP."))
                return
            self._surplus = True
        if first and self._complete:
            self._remember(data)
        if not data.endswith(b"\r\n"):  # perhaps in the first line of the next chunk
            self._on_chunk = None
        self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_chunk = None
        state, receiver = self._state, self._receiver
        self._state = ConnectionState.CLOSED
        self._receiver = None
        if receiver is None:
            return
        if state is ConnectionState.BODY and self._until_eof and exc is None:
            _end(receiver)
        elif state is ConnectionState.WAITING and self._exchanges > 1 and not self._heard and self._just_sent():
            _end(receiver, StaleConnection("The node closed a kept connection."))
        else:
            when = "in mid-answer" if state is ConnectionState.BODY else "before it answered"
            _end(receiver, UpstreamCut(f"The node closed the connection {when}; retry."))

    # What the parser finds: only noted here, told by _deliver, so that no receiver runs inside the parser

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None and not self._surplus:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._surplus:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headers = []
            return
        content_type, framed, coding = b"", status in (204, 304), None
        for name, value in self._headers:
            if name == b"content-type":
                content_type = content_type or value
            elif name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                framed = framed or b"chunked" in value.lower()
                coding = coding if value.lower() == b"chunked" else (name, value)
            elif name == b"content-encoding" and value.lower() not in (b"", b"identity"):
                coding = (name, value)
        self._head = ResponseHead(status, tuple(self._headers), content_type, coding)
        self._keep_alive = self._parser.should_keep_alive()
        self._until_eof = not framed

    def on_body(self, data: bytes) -> None:
        if not self._surplus:
            self._body.append(data)

    def on_chunk_header(self) -> None:
        self._on_chunk = None

    def on_chunk_complete(self) -> None:
        if self._receiver is not None and self._head is not None and not self._surplus:
            self._on_chunk = self._receiver.on_chunk  # the parser stands between two chunks

    def on_message_complete(self) -> None:
        self._on_chunk = None
        if self._head is not None:
            self._complete = True

    def _just_sent(self) -> bool:
        """Whether a close can be the race with the node's keep-alive time-out; later the node may have worked."""
        return time.monotonic() - self._sent_at < STALE_SECONDS

    # Answers that begin as the last one did

    def _remember(self, data: bytes) -> None:
        head = self._head
        if head is not None and head.status == 200 and self._keep_alive and not self._surplus and data[9:12] == b"200":
            fields = tuple(item for item in head.headers if item[0] != b"content-length")
            if not any(name == b"transfer-encoding" for name, _ in fields):
                self._memory.familiar = HeadCache.of(data, head._replace(headers=fields))

    def _take_familiar(self, head: ResponseHead, body: bytes) -> None:
        """A whole answer, of which the parser would say the same; it stays where it is, before the next message."""
        receiver = self._receiver
        assert receiver is not None
        self._state = ConnectionState.BODY
        self._head = head
        self._keep_alive = True
        receiver.on_head(head)
        if body and self._receiver is receiver:
            receiver.on_data(body)
        if self._receiver is receiver:
            self._finish(receiver)

    # Telling the receiver

    def _deliver(self) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        if self._head_told and not self._complete and len(self._body) == 1:  # an event in mid-stream
            self._quiet_bytes = 0
            receiver.on_data(self._body.pop())
            return
        if self._head is not None and not self._head_told:
            self._head_told = True
            self._state = ConnectionState.BODY
            self._quiet_bytes = 0
            receiver.on_head(self._head)
        if self._body and self._receiver is receiver:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
            self._quiet_bytes = 0
            receiver.on_data(body)
        if self._receiver is not receiver:  # aborted from within
            return
        if self._complete:
            self._finish(receiver)
        elif self._quiet_bytes > MAX_QUIET_BYTES:
            self._fail(BadUpstreamResponse("The node's headers or trailers are too large."))

    def _finish(self, receiver: Receiver) -> None:
        transport = self._transport
        assert transport is not None
        self._state = ConnectionState.IDLE
        unsent = transport.get_write_buffer_size() > 0
        if self._keep_alive and not self._surplus and not unsent and not transport.is_closing():
            self.resume()
            self._receiver = None
            self._free(self)
        else:
            self.abort()
        _end(receiver)

    def _fail(self, error: UpstreamError) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            _end(receiver, error)

    def _break(self, error: Exception) -> None:
        """The receiver raised in mid-answer: the rest of that answer is nobody's."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_broken(error)


def _end(receiver: Receiver, error: UpstreamError | None = None) -> None:
    """Tell a receiver its end; by then the connection may have another receiver, whom its failure must not meet."""
    try:
        if error is None:
            receiver.on_end()
        else:
            receiver.on_error(error)
    except Exception as failure:  # noqa: BLE001 - see `data_received`
        receiver.on_broken(failure)
