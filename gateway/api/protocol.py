"""One client connection: the bounds of a public listener, and a queue of requests in their order.

A request of the data plane is a `ClientRequest`, any other one an `AsgiCycle`, and bytes that are no request end in a
`RefusedRequest`. The parser (`request_parser`) only notes what it finds; a request begins and proceeds after the parser
has returned, so that no request runs inside of it.

    what comes                               while                     what happens
    one whole request, its head known        the queue is empty        a `ClientRequest`, with its body; no parsing
    anything else                            any                       the backlog, of which cuts go to the parser:
      a complete head                        the listener is admin     an `AsgiCycle` is queued
      a complete head                        its path is listed        a `ClientRequest` is queued; else an `AsgiCycle`
      a piece, or the end, of a body         its request waits         noted with it
      bytes of a head that is not complete   any                       counted and timed
      no HTTP, or more than a bound allows   any                       a refusal is queued; nothing is read any more
    after each read, and after each answer   the client reads answers  the first of the queue begins, or proceeds
    the client leaves                        any                       `on_gone` is called for the whole queue

No connection gets more of the process than its share: at most `MAX_AHEAD` requests are parsed ahead of an answer (the
bytes behind them stay in the backlog, and nothing more is read); at most `MAX_STEPS` requests proceed in one iteration
of the loop; and no request begins while more is written than the client has read.

An exception in any callback ends in `_fail`: it is logged, the client is answered with 500 and the connection closed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.api.asgi import AsgiCycle, refuse_coded
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.errors import problem_answer, whole_answer
from gateway.api.flow_control import FlowControl
from gateway.api.listener_settings import ListenerSettings
from gateway.api.queued_request import QueuedRequest, RefusedRequest
from gateway.api.request_head import Endpoint, Fields, RequestHead, is_usual, request_id_of
from gateway.api.request_parser import RequestParser
from gateway.api.response_head import STATUS_LINE, header_lines
from gateway.api.server_connection import ServerConnection, own_address, peer_address
from gateway.api.write_stall import WriteStallTimer
from gateway.core.dialects import DIALECTS
from gateway.core.errors import GatewayError, InternalError, RequestTooSlow, TooManyConnections
from gateway.core.http.addresses import plain_address
from gateway.core.http.head_cache import HeadCache
from gateway.core.memory import STRANGER

log = structlog.get_logger("fleetgate.connection")

FIRST_REQUEST_GRACE = 1.0
"""Seconds for which a shutdown keeps a connection that has sent no request yet."""

RECHECK_SECONDS = 0.02

MAX_AHEAD = 16
"""Requests that are parsed ahead of the one that is being answered."""

MAX_STEPS = 8
"""Requests of one connection that begin or proceed in one iteration of the loop."""

MAX_CUTS = 64
"""Cuts of one connection's bytes that are parsed before a request proceeds."""

LINGER_SECONDS = 1.0
"""For how long a client that was refused may go on sending."""

MAX_CACHED_HEADS = 8
"""Heads that one connection puts into its cache, one after the other: a client with more varies them all the time."""


class GatewayProtocol(ServerConnection):
    """One client connection. The application leaves its `ListenerSettings` in the lifespan state."""

    below: asyncio.Transport | None = None
    """Under TLS the transport of the encrypted bytes."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings = cast(ListenerSettings, self.app_state["listener_settings"])
        self._public = True
        self._counted = False
        self._address: str | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: WriteStallTimer | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._scheduled: asyncio.Handle | None = None
        self._running = False
        self._parser = RequestParser(self._on_head, self._settings.max_headers)
        self._queue: deque[QueuedRequest] = deque()
        """Requests without an answer, in their order: a client may send some ahead."""
        self._backlog = b""
        self._parsed = 0
        """Bytes of the backlog that the parser has had."""
        self._input_ended = False
        """Whether nothing more of this client is read."""
        self._head_cache: HeadCache[tuple[Endpoint, RequestHead]] | None = None
        self._heads_cached = 0
        self._endpoint: Endpoint | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = FlowControl(transport, self._schedule)
        self._stall_timer = WriteStallTimer(transport, self.loop, self._settings.client_stall, self.below)
        error = None if self._counted else self.count_in(transport)
        if error is not None:
            self._send_error(error, linger=False)  # there are too many to keep this one any longer
        else:
            self._start_head_timer()

    def count_in(self, transport: asyncio.Transport) -> TooManyConnections | None:
        """Count this connection among those of its listener; returns an error where it is one too many."""
        server, client = own_address(transport), peer_address(transport)
        self._public = server is None or server[1] != self._settings.admin_port
        self._counted = True
        self._address = plain_address(client[0]) if client else None
        return self._bounds_of_listener().enter(self._address)

    def count_out(self) -> None:
        if self._counted:
            self._bounds_of_listener().leave(self._address)
        self._counted = False

    def _bounds_of_listener(self) -> ConnectionBounds:
        return self._settings.connections if self._public else self._settings.admin_connections

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut every reference to this connection and from it: the collector runs too rarely to free cycles."""
        self._stop_head_timer()
        for timer in (self._idle_timer, self._scheduled, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._scheduled = self._linger_timer = None
        if self._stall_timer is not None:
            self._stall_timer.stop()
        super().connection_lost(exc)
        self.count_out()
        self.flow.close()
        self._drop_requests()
        self._parser.close()
        self._head_cache = self._endpoint = None

    def pause_writing(self) -> None:
        self.flow.write_paused = True
        if self._stall_timer is not None:
            self._stall_timer.check()
        if self._queue:
            self._try(self._queue[0].on_full)

    def resume_writing(self) -> None:
        self.flow.write_paused = False
        if self._stall_timer is not None:
            self._stall_timer.stop()
            self._stall_timer.check()  # what is left, or waits below TLS
        if self._queue:
            self._try(self._queue[0].on_writable)
        if self._queue or self._backlog:
            self._schedule()

    # A request's way in

    def data_received(self, data: bytes) -> None:
        if self._input_ended or self.transport.is_closing():
            return
        if self._backlog:
            self._backlog = self._backlog[self._parsed :] + data
            self._parsed = 0
            return  # `_run` is scheduled, or called after the next answer
        parser = self._parser
        fresh = parser.fresh
        if fresh and self._head_cache is not None and not self._queue:
            body = self._head_cache.body_in(data)
            if body is not None:
                if self._head_timer is not None:
                    self._stop_head_timer()
                self._run(body)
                return
        begun = parser.begun
        self._backlog = data
        self._run()
        if fresh and parser.begun == begun + 1 and parser.fresh and not self._backlog:
            self._cache_head(data)

    def _on_head(self, head: RequestHead) -> QueuedRequest:
        if self._head_timer is not None:
            self._stop_head_timer()
        if self._public:
            self._settings.dispatcher.middleware.warn_of_untrusted_proxy(self.client, head)
        dispatcher = self._settings.dispatcher
        self._endpoint = dispatcher.find(head) if self._public else dispatcher.find_played(head)
        if self._endpoint is not None:
            request: QueuedRequest = self._settings.dispatcher.open(self, self._endpoint, head, None)
        else:
            if not self._public:
                refuse_coded(head)
            request = AsgiCycle(self, head, self._settings.bounds)
        self._queue.append(request)
        return request

    def _cache_head(self, data: bytes) -> None:
        """Cache the head of this request, if it was a usual one. Not for clients whose heads always differ."""
        endpoint, head = self._endpoint, self._parser.last
        if endpoint is None or head is None or self._heads_cached >= MAX_CACHED_HEADS or not self._public:
            return
        self._heads_cached += 1
        self._head_cache = HeadCache.of(data, (endpoint, head)) if is_usual(head) else None

    # Requests in their order

    def _schedule(self) -> None:
        """Call `_run` in the loop's next iteration."""
        if self._scheduled is None:
            self._scheduled = self.loop.call_soon(self._run_scheduled)

    def _run_scheduled(self) -> None:
        self._scheduled = None
        self._run()

    def _run(self, body: bytes | None = None) -> None:
        """Parse what came; have the first of the queue begin or proceed, and the next one once that is answered.

        `body`: of a request whose head is the cached one.
        """
        if self._running:
            return
        self._running = True
        try:
            if body is not None and self._head_cache is not None:
                self._queue.append(self._settings.dispatcher.open(self, *self._head_cache.known, body))
                self._advance()
            else:
                self.flow.defer()  # a body is often more than is read ahead, and then wanted in the same run
                try:
                    self._run_steps()
                finally:
                    self.flow.apply()
        except Exception:  # noqa: BLE001 - it is logged there
            self._fail()
        finally:
            self._running = False

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # noqa: BLE001 - it is logged there
            self._fail()

    def _run_steps(self) -> None:
        for _ in range(MAX_STEPS):
            if self._backlog:
                self._parse()
            if self.transport.is_closing():
                return
            if not self._advance() and not self._may_parse():
                break
        else:
            self._schedule()
        self.flow.hold(bool(self._backlog))
        if self._parser.head_bytes and self._head_timer is None and not self._input_ended:
            self._time_head()

    def _may_parse(self) -> bool:
        """Whether there is something that may be parsed now: a request's step may have changed that."""
        if not self._backlog or self.flow.read_paused:
            return False
        return len(self._queue) < MAX_AHEAD or self._parser.arriving is not None

    def _parse(self) -> None:
        """Some cuts of the backlog."""
        data, parser, flow, waiting = self._backlog, self._parser, self.flow, self._queue
        at, end, cuts = self._parsed, len(self._backlog), MAX_CUTS
        try:
            while at < end and not flow.read_paused and (len(waiting) < MAX_AHEAD or parser.arriving is not None):
                if not cuts:
                    break
                cuts -= 1
                at = parser.feed(data, at)
                if parser.arriving is not None and self._must_begin(parser.arriving):
                    break
                if parser.fresh and parser.last is not None and not parser.last.keep_alive:
                    self._input_ended = True  # `connection: close`: this request is the client's last
                    at = end
        except GatewayError as error:
            self._queue_refusal(error)
        else:
            self._backlog, self._parsed = (data, at) if at < end else (b"", 0)

    def _must_begin(self, request: QueuedRequest) -> bool:
        """Whether a request begins before its body is read: bodies of unknown senders hold much of the memory, and its
        sender may be a known one."""
        memory = self._settings.bounds.memory
        first = not request.begun and self._queue[0] is request and not self.flow.write_paused
        return first and memory.held_by(STRANGER) > memory.most // 2

    def _advance(self) -> bool:
        """Have the first of the queue begin or proceed; whether it has its answer with that."""
        if not self._queue:
            return False
        request = self._queue[0]
        if request.begun:
            request.proceed()
        elif self.flow.write_paused:
            return False  # it begins when the client has read what was written
        else:
            request.begin()
        return not self._queue or self._queue[0] is not request

    def answered(self) -> None:
        if self._queue:  # not after the connection was lost
            self._queue.popleft()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._check_idle)
        if self._stall_timer is not None:
            self._stall_timer.check()
        if not self._running and (self._queue or self._backlog):
            self._schedule()  # by then this one has released what it held of its tenant's limits, say

    def _check_idle(self) -> None:
        """One timer for all pauses of a connection: it is set again when it fires, not with every request."""
        self._idle_timer = None
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._queue or self._backlog or self._head_timer is not None:
            rest = float(self.timeout_keep_alive)
        if rest > 0:
            self._idle_timer = self.loop.call_later(rest, self._check_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    # For requests

    def address(self, fields: Fields) -> str:
        middleware = self._settings.dispatcher.middleware
        if self._address is not None and not middleware.proxies:
            return self._address
        return middleware.address(self.client, fields)

    def unsent(self) -> int:
        return 0 if self._stall_timer is None else self._stall_timer.size

    def refuse(self, error: GatewayError) -> None:
        if not self.transport.is_closing():
            self._queue_refusal(error)
            self._run()

    def error_answer(self, error: GatewayError, request_id: str = "") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        request_id = request_id or request_id_of({})
        if self._public:
            return whole_answer(error, DIALECTS[0], request_id)
        return problem_answer(error, request_id)

    def close_after_answer(self) -> None:
        self._input_ended = True
        self._backlog, self._parsed = b"", 0
        if not self.transport.is_closing():
            self._close(linger=True)

    # The shutdown of the server

    def shutdown(self) -> None:
        self._settings.on_shutdown()
        self._close_when_answered(self.loop.time() + (0.0 if self._parser.begun else FIRST_REQUEST_GRACE))

    def _close_when_answered(self, until: float) -> None:
        """Close once the queue is empty. The first request of a new connection is awaited until loop time `until`: it
        is under way, and would be lost."""
        for request in self._queue:
            request.keep_alive = False
        if not self._queue and (self._parser.begun or self.loop.time() >= until):
            self.transport.close()
        elif not self._queue:
            self.loop.call_later(RECHECK_SECONDS, self._close_when_answered, until)

    # The time-out of heads

    def _time_head(self) -> None:
        """Time bytes that do not complete a head. Blank lines between requests are timed once all are answered."""
        parser = self._parser
        if parser.begun != parser.completed or not self._queue:
            self._start_head_timer()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.headers_timeout, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if not self._parser.head_bytes:  # nothing came: there is no request to answer
            self.transport.close()
        else:
            seconds = self._settings.headers_timeout
            self.refuse(RequestTooSlow(f"The headers did not arrive within {seconds:g} s."))

    # Refusals

    def _queue_refusal(self, error: GatewayError) -> None:
        """Read nothing more of this client, and answer with `error` behind the requests before."""
        self._input_ended = True
        self._backlog, self._parsed = b"", 0
        self._stop_head_timer()
        broken, self._parser.arriving = self._parser.arriving, None
        waiting = self._queue
        if broken is not None and waiting and waiting[-1] is broken:
            if broken.started:
                self.transport.close()  # it has an answer; its body could not be parsed
                return
            waiting.pop()
            broken.on_gone()
        waiting.append(RefusedRequest(error, self._send_error))

    def _send_error(self, error: GatewayError, request_id: str = "", linger: bool = True) -> None:
        """Answer with `error`, and close."""
        self._input_ended = True
        status, headers, body = self.error_answer(error, request_id)
        middleware = self._settings.dispatcher.middleware
        if self._public and middleware.adds_headers:
            headers += middleware.headers(self._parser.fields_so_far())
        lines = header_lines([*headers, (b"connection", b"close")])
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self._close(linger)

    def _close(self, linger: bool) -> None:
        if linger and self.transport.can_write_eof():
            self._linger()
        else:
            self.transport.close()
        if self._stall_timer is not None:
            self._stall_timer.check()  # closing waits for a client that reads nothing

    def _linger(self) -> None:
        """Read and drop what still comes, for a moment: closing on unread bytes would reset the connection, and the
        answer could be lost on its way (RFC 9112, section 9.6)."""
        self.transport.write_eof()
        self.flow.hold(False)
        self.flow.resume_reading()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _fail(self) -> None:
        """After an unexpected exception: the request that it hit must not hang."""
        request_id = request_id_of({})
        log.exception("connection_failed", request_id=request_id)
        first = self._queue[0] if self._queue else None
        if not self.transport.is_closing() and (first is None or not first.started):
            error = InternalError("Internal error of the gateway: its log has the details under the request id.")
            self._send_error(error, request_id, linger=False)
        self.transport.close()
        self._drop_requests()

    def _drop_requests(self) -> None:
        unanswered = [*self._queue]
        arriving = self._parser.arriving
        if arriving is not None and arriving not in unanswered:  # answered before its body was whole
            unanswered.append(arriving)
        self._queue.clear()
        self._parser.arriving = None
        self._backlog, self._parsed, self._input_ended = b"", 0, True
        for request in unanswered:
            self._try(request.on_gone)
