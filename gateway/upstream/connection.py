"""One HTTP/1.1 connection to a node, kept alive between exchanges.

Theory. `ResponseParser` finds the answers in what is read; this module adds what a client must know besides: whether an
answer is due, whether it is whole, and whether the connection may be used again. Nothing awaits here: bytes go from
`data_received` straight into the receiver, so no task is woken for an event.

A read that is exactly one chunk, as nearly every event is, goes past the parser, which stands between two chunks before
it and after it.

    state    event                                           next     the receiver's callback
    IDLE     send()                                          WAITING  -
    IDLE     bytes come unasked, or the node hangs up        CLOSED   -
    WAITING  interim head (1xx)                              WAITING  -
    WAITING  head                                            BODY     on_head
    WAITING  lost at once; used before, no byte received     CLOSED   on_error(StaleConnection)
    WAITING  lost otherwise                                  CLOSED   on_error(UpstreamCut)
    BODY     exactly one chunk                               BODY     on_chunk, framed and unframed
    BODY     another part of the body                        BODY     on_data, once per read
    BODY     framing says complete                           IDLE *   on_end
    BODY     lost, body framed by the end of the connection  CLOSED   on_end
    BODY     lost otherwise                                  CLOSED   on_error(UpstreamCut)
    any      not HTTP, or a head without end                 CLOSED   on_error(BadUpstreamResponse)
    any      the receiver raises                             CLOSED   on_broken with what it raised
    any      abort()                                         CLOSED   none: the caller knows

    * CLOSED where it cannot be used again: `Connection: close`, surplus bytes, or a request not yet sent whole. What
      `on_end` raises does not change this.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, cast

from gateway.core.errors import BadUpstreamResponse, StaleConnection, UpstreamCut, UpstreamError
from gateway.core.http.chunks import data_of_chunk
from gateway.upstream.node_head_cache import NodeHeadCache
from gateway.upstream.receiver import Receiver, end
from gateway.upstream.response_parser import ResponseHead, ResponseParser

MAX_QUIET_BYTES = 65_536
"""Bytes that may come in without a finished head or a piece of the body: bounds heads, trailers and chunk noise."""

STALE_SECONDS = 1.0
"""How long after a request was sent a close without a byte counts as a stale connection."""


class ConnectionState(Enum):
    IDLE = "idle"
    WAITING = "waiting"
    BODY = "body"
    CLOSED = "closed"


# By name: a member is found in its class four times slower.
IDLE: Final = ConnectionState.IDLE
WAITING: Final = ConnectionState.WAITING
BODY: Final = ConnectionState.BODY
CLOSED: Final = ConnectionState.CLOSED


class UpstreamConnection(asyncio.Protocol):
    """Carries one exchange at a time: `send`, then the receiver's callbacks, then `free` where it can be used again."""

    __slots__ = (
        "_exchanges",
        "_free",
        "_head_cache",
        "_heard",
        "_on_chunk",
        "_parser",
        "_paused",
        "_quiet_bytes",
        "_receiver",
        "_sent_at",
        "_state",
        "_transport",
        "idle_since",
    )

    def __init__(self, free: Callable[["UpstreamConnection"], None], head_cache: NodeHeadCache | None = None) -> None:
        """`free(connection)` hands a connection back to its pool; one that is not `usable` was lost while idle."""
        # What is read with each event comes first (see docs/architecture.md, "What is compiled").
        self._on_chunk: Callable[[bytes, bytes], None] | None = None
        """The receiver's, while the parser stands between two chunks."""
        self._head_cache = head_cache or NodeHeadCache()
        self._free = free
        self._state = IDLE
        self._exchanges = 0
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = ResponseParser()
        self._heard = False  # whether a byte has come since the request was sent
        self._quiet_bytes = 0
        self._paused = False
        self._sent_at = 0.0
        self.idle_since = 0.0  # time.monotonic, set by the pool

    # Called by the pool and the exchange

    @property
    def usable(self) -> bool:
        """Whether the next exchange may start on this connection."""
        return self._state is IDLE and self._transport is not None and not self._transport.is_closing()

    def send(self, parts: Sequence[bytes], receiver: Receiver) -> None:
        """Write a whole request (head and body as `parts`); the answer goes to `receiver`."""
        if self._state is not IDLE or self._transport is None:
            raise RuntimeError(f"send() on a connection that is {self._state.value}")
        self._parser.reset()
        self._on_chunk = None
        self._heard = False
        self._quiet_bytes = 0
        self._state = WAITING
        self._exchanges += 1
        self._sent_at = time.monotonic()
        self._receiver = receiver
        self._transport.writelines(parts)

    def pause(self) -> None:
        """Stop reading: the node's socket fills up and the node waits. Does nothing once the answer has ended."""
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
        """Close at once, in whatever state: the node sees it and stops working. The receiver gets no callback."""
        self._state = CLOSED
        self._on_chunk = None
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    # Called by the event loop

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

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_chunk = None
        state, receiver = self._state, self._receiver
        self._state = CLOSED
        self._receiver = None
        if receiver is None:
            if state is ConnectionState.IDLE:
                self._free(self)  # its pool forgets it
            return
        if state is BODY and self._parser.until_eof and exc is None:
            end(receiver)
        elif state is WAITING and self._exchanges > 1 and not self._heard and self._just_sent():
            end(receiver, StaleConnection("The node closed a kept connection."))
        else:
            when = "in mid-answer" if state is BODY else "before it answered"
            end(receiver, UpstreamCut(f"The node closed the connection {when}; retry."))

    def _just_sent(self) -> bool:
        """Whether a close can be the race with the node's keep-alive time-out; later the node may have worked."""
        return time.monotonic() - self._sent_at < STALE_SECONDS

    # From the bytes to the receiver

    def _read(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            if self._state is IDLE:  # unasked: whatever this is, it must not answer the next request
                self.abort()
            return
        first, self._heard = not self._heard, True
        familiar = self._head_cache.familiar
        if first and familiar is not None and (body := familiar.body_in(data)) is not None:
            self._deliver_whole(receiver, familiar.known, body)
            return
        parser = self._parser
        self._quiet_bytes += len(data)
        if not parser.feed(data):
            self._fail(receiver, BadUpstreamResponse("The node's answer is not HTTP."))
            return
        if first and parser.complete and parser.keep_alive and not parser.surplus and parser.head is not None:
            self._head_cache.remember(data, parser.head)
        self._on_chunk = receiver.on_chunk if parser.between_chunks else None
        self._deliver(receiver)

    def _deliver(self, receiver: Receiver) -> None:
        """Call the receiver back with what the parser found in one read."""
        parser = self._parser
        if self._state is BODY and not parser.complete and len(parser.body) == 1:  # a part in mid-body
            self._quiet_bytes = 0
            receiver.on_data(parser.body.pop())
            return
        if self._state is WAITING and parser.head is not None:
            self._state = BODY
            self._quiet_bytes = 0
            receiver.on_head(parser.head)
        if parser.body and self._receiver is receiver:
            body = parser.body[0] if len(parser.body) == 1 else b"".join(parser.body)
            parser.body = []
            self._quiet_bytes = 0
            receiver.on_data(body)
        if self._receiver is not receiver:  # aborted by it
            return
        if parser.complete:
            self._finish(receiver, parser.keep_alive and not parser.surplus)
        elif self._quiet_bytes > MAX_QUIET_BYTES:
            self._fail(receiver, BadUpstreamResponse("The node's headers or trailers are too large."))

    def _deliver_whole(self, receiver: Receiver, head: ResponseHead, body: bytes) -> None:
        """The same for a whole answer with a familiar head: the parser would find the same, and is not fed."""
        self._state = BODY
        receiver.on_head(head)
        if body and self._receiver is receiver:
            receiver.on_data(body)
        if self._receiver is receiver:
            self._finish(receiver, True)

    def _finish(self, receiver: Receiver, reusable: bool) -> None:
        """The answer is complete; `reusable`: the connection may carry another, as far as the answer says."""
        transport = self._transport
        assert transport is not None
        self._state = IDLE
        if reusable and transport.get_write_buffer_size() == 0 and not transport.is_closing():
            if self._paused:
                self.resume()
            self._receiver = None
            self._free(self)
        else:
            self.abort()
        end(receiver)

    def _fail(self, receiver: Receiver, error: UpstreamError) -> None:
        self.abort()
        end(receiver, error)

    def _break(self, error: Exception) -> None:
        """The receiver raised in mid-answer; the rest of that answer is dropped."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_broken(error)
