"""One client connection: uvicorn's HTTP protocol, with the bounds of a public listener and a data plane below ASGI.

Requests become turns, in their order: a `ClientCall` for the data plane, an `AsgiCycle` for the rest, and a
`RefusedRequest` for what is no request. The parser (`request_parser`) only notes what it finds; a turn begins and goes
on after it has returned, so that no story runs inside of it.

    what comes                               while                     what happens
    one whole request, its head known        nothing is unanswered     a call, with its body; the parser is not asked
    anything else                            any                       the backlog, of which cuts go to the parser:
      a complete head                        the listener is admin     an ASGI cycle, unanswered
      a complete head                        its path is listed        a call, unanswered; else an ASGI cycle
      a piece, or the end, of a body         its turn waits            noted with it
      bytes of a head that is not complete   any                       counted and timed
      no HTTP, or more than a bound allows   any                       a refusal, unanswered; nothing is read any more
    after each read, and after each answer   the client takes answers  the first unanswered turn begins, or goes on
    the client leaves                        any                       all that are unanswered are told

Nobody gets more of the process than a share: at most `MAX_AHEAD` requests are parsed ahead of an answer, what came with
them stays in the backlog and nothing more is read; at most `SHARE` turns go on in one turn of the loop; and no turn
begins while more is written than the client takes.

An exception in any callback ends in `_fail`: it is logged, the client is answered with 500 and the connection closed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from gateway.api.asgi import asgi_turn, refuse_coded
from gateway.api.call import request_id_of
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.errors import detail_answer, whole_answer
from gateway.api.flow_control import ConnectionFlow
from gateway.api.listener_settings import ListenerSettings, QueuedRequest
from gateway.api.refused_request import RefusedRequest
from gateway.api.request_head import Endpoint, Fields, RequestHead, is_usual
from gateway.api.request_parser import RequestParser
from gateway.api.write_stall import WriteStallTimer
from gateway.core.dialects import DIALECTS
from gateway.core.errors import GatewayError, InternalError, RequestTooSlow, TooManyConnections
from gateway.core.http.addresses import plain_address
from gateway.core.http.head_cache import HeadCache
from gateway.core.memory import STRANGER

log = structlog.get_logger("fleetgate.connection")

FIRST_REQUEST_GRACE = 1.0
"""Seconds that a connection without a request yet is kept when the server shuts down."""

LOOK_AGAIN = 0.02

MAX_AHEAD = 16
"""Requests that are parsed ahead of the one that is being answered."""

SHARE = 8
"""Turns of one connection in one turn of the loop."""

CUTS = 64
"""Cuts of one connection's bytes that are parsed before a turn goes on."""

LINGER_SECONDS = 1.0
"""For how long a client that was refused may go on sending."""

MAX_STRANGERS = 8
"""Heads of one connection that are kept to be known again, one after the other: then they seem always to differ."""


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. The application leaves its `ListenerSettings` in the lifespan state under `edge`."""

    below: asyncio.Transport | None = None
    """Under TLS the transport of the encrypted bytes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = None  # type: ignore[assignment]  # uvicorn's own
        self._settings = cast(ListenerSettings, self.app_state["listener_settings"])
        self._public = True
        self._counted = False
        self._address: str | None = None
        self._late: asyncio.TimerHandle | None = None
        self._unsent: WriteStallTimer | None = None
        self._flow: ConnectionFlow
        self._parser = RequestParser(self._on_head, self._settings.max_headers)
        self._unanswered: deque[QueuedRequest] = deque()  # in the order of their requests: a client may send some ahead
        self._backlog = b""
        self._at = 0  # where in the backlog the parser goes on
        self._deaf = False  # nothing more of this client is wanted
        self._working = False
        self._again: asyncio.Handle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._familiar: HeadCache[tuple[Endpoint, RequestHead]] | None = None
        self._route: Endpoint | None = None
        self._strangers = 0
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._flow = ConnectionFlow(transport, self._soon)
        self._unsent = WriteStallTimer(transport, self.loop, self._settings.client_stall, self.below)
        error = None if self._counted else self.count_in(transport)
        if error is not None:
            self._tell(error, linger=False)  # there are too many to keep this one any longer
        else:
            self._expect_headers()

    def count_in(self, transport: asyncio.Transport) -> TooManyConnections | None:
        """Count this connection among those of its listener; the error is what to tell one too many."""
        server, client = get_local_addr(transport), get_remote_addr(transport)
        self._public = server is None or server[1] != self._settings.admin_port
        self._counted = True
        self._address = plain_address(client[0]) if client else None
        return self._bounds_of_listener().enter(self._address)

    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return 0 if self._unsent is None else self._unsent.size

    def count_out(self) -> None:
        if self._counted:
            self._bounds_of_listener().leave(self._address)
        self._counted = False

    def _bounds_of_listener(self) -> ConnectionBounds:
        return self._settings.connections if self._public else self._settings.admin_connections

    def connection_lost(self, exc: Exception | None) -> None:
        """What holds this connection, and what it holds, is let go of: nobody looks for rings."""
        self._got_headers()
        for timer in (self._idle, self._again, self._lingering):
            if timer is not None:
                timer.cancel()
        self._idle = self._again = self._lingering = None
        if self._unsent is not None:
            self._unsent.stop()
        super().connection_lost(exc)
        self.count_out()
        self._lose_all()
        self._parser.close()
        self._flow.close()
        self._familiar = self._route = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unsent is not None:
            self._unsent.check()
        if self._unanswered:
            self._try(self._unanswered[0].on_full)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent is not None:
            self._unsent.stop()
            self._unsent.check()  # what is left, or waits below TLS
        if self._unanswered:
            self._try(self._unanswered[0].on_writable)
        if self._unanswered or self._backlog:
            self._soon()

    # A request's way in

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return
        if self._backlog:
            self._backlog = self._backlog[self._at :] + data
            self._at = 0
            return  # the turn that left a backlog goes on with it
        parser = self._parser
        fresh = parser.fresh
        if fresh and self._familiar is not None and not self._unanswered:
            body = self._familiar.body_in(data)
            if body is not None:
                if self._late is not None:
                    self._got_headers()
                self._go_on(body)
                return
        begun = parser.begun
        self._backlog = data
        self._go_on()
        if fresh and parser.begun == begun + 1 and parser.fresh and not self._backlog:
            self._remember(data)

    def _on_head(self, head: RequestHead) -> QueuedRequest:
        if self._late is not None:
            self._got_headers()
        if self._public:
            self._settings.dispatcher.middleware.doubt(self.client, head)
        self._route = self._settings.dispatcher.find(head) if self._public else None
        if self._route is not None:
            turn: QueuedRequest = self._settings.dispatcher.open(self, self._route, head, None)
        else:
            if not self._public:
                refuse_coded(head)
            turn = asgi_turn(self, head, self._settings.bounds, self.answered, self._refuse_late, self._last_word)
        self._unanswered.append(turn)
        return turn

    def _remember(self, data: bytes) -> None:
        """Know the head of this request again, if it was a usual one. Not for clients whose heads always differ."""
        route, head = self._route, self._parser.last
        if route is None or head is None or self._strangers >= MAX_STRANGERS:
            return
        self._strangers += 1
        self._familiar = HeadCache.of(data, (route, head)) if is_usual(head) else None

    # Requests in their order

    def _soon(self) -> None:
        """Go on in the loop's next turn."""
        if self._again is None:
            self._again = self.loop.call_soon(self._go_on_now)

    def _go_on_now(self) -> None:
        self._again = None
        self._go_on()

    def _go_on(self, body: bytes | None = None) -> None:
        """Parse what came, and have the first unanswered request begin or go on; the next one when it is answered.

        `body`: of a request that has come with the familiar head.
        """
        if self._working:
            return
        self._working = True
        try:
            if body is not None and self._familiar is not None:
                self._unanswered.append(self._settings.dispatcher.open(self, *self._familiar.known, body))
                self._advance()
            else:
                self._work()
        except Exception:  # noqa: BLE001 - it is logged there
            self._fail()
        finally:
            self._working = False

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # noqa: BLE001 - it is logged there
            self._fail()

    def _work(self) -> None:
        for _ in range(SHARE):
            if self._backlog:
                self._parse()
            if self.transport.is_closing():
                return
            if not self._advance() and not self._may_parse():
                break
        else:
            self._soon()
        self._flow.hold(bool(self._backlog))
        if self._parser.head_bytes and self._late is None and not self._deaf:
            self._time_head()

    def _may_parse(self) -> bool:
        """Whether there is something that may be parsed now: a turn's step may have changed that."""
        if not self._backlog or self.flow.read_paused:
            return False
        return len(self._unanswered) < MAX_AHEAD or self._parser.arriving is not None

    def _parse(self) -> None:
        """Some cuts of the backlog."""
        data, parser, flow, waiting = self._backlog, self._parser, self.flow, self._unanswered
        at, end, cuts = self._at, len(self._backlog), CUTS
        try:
            while at < end and not flow.read_paused and (len(waiting) < MAX_AHEAD or parser.arriving is not None):
                if not cuts:
                    break
                cuts -= 1
                at = parser.feed(data, at)
                if parser.arriving is not None and self._must_begin(parser.arriving):
                    break
                if parser.fresh and parser.last is not None and not parser.last.keep_alive:
                    self._deaf = True  # the client has said that this one was its last
                    at = end
        except GatewayError as error:
            self._refuse(error)
        else:
            self._backlog, self._at = (data, at) if at < end else (b"", 0)

    def _must_begin(self, turn: QueuedRequest) -> bool:
        """Whether a request begins before its body is taken: strangers hold much, and its sender may be none."""
        memory = self._settings.bounds.memory
        first = not turn.begun and self._unanswered[0] is turn and not self.flow.write_paused
        return first and memory.held_by(STRANGER) > memory.most // 2

    def _advance(self) -> bool:
        """Begin the first unanswered request, or let it go on; whether it has got its answer with that."""
        if not self._unanswered:
            return False
        turn = self._unanswered[0]
        if turn.begun:
            turn.proceed()
        elif self.flow.write_paused:
            return False  # begun when the client has taken what was written
        else:
            turn.begin()
        return not self._unanswered or self._unanswered[0] is not turn

    def answered(self) -> None:
        """The first of the unanswered requests has got its answer."""
        if self._unanswered:  # not after the connection was lost
            self._unanswered.popleft()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._check_idle)
        if self._unsent is not None:
            self._unsent.check()
        if not self._working and (self._unanswered or self._backlog):
            self._soon()  # by then this one has given back what it held: its place among its tenant's, say

    def _check_idle(self) -> None:
        """One timer for all pauses of a connection: it is set anew when it goes off, not with every request."""
        self._idle = None
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._unanswered or self._backlog or self._late is not None:
            rest = float(self.timeout_keep_alive)
        if rest > 0:
            self._idle = self.loop.call_later(rest, self._check_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    # What the data plane asks of a connection

    def address(self, fields: Fields) -> str:
        return self._settings.dispatcher.middleware.address(self.client, fields)

    def default_lines(self) -> bytes:
        """uvicorn makes a new list of them every second, for the date."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        return self._default_lines

    def shutdown(self) -> None:
        self._settings.on_shutdown()
        self._leave(self.loop.time() + (0.0 if self._parser.begun else FIRST_REQUEST_GRACE))

    def _leave(self, until: float) -> None:
        """Close after what is being answered. Who has just connected has a request under way: it is awaited, for a
        connection that is closed before it comes is a request lost."""
        for turn in self._unanswered:
            turn.keep_alive = False
        if not self._unanswered and (self._parser.begun or self.loop.time() >= until):
            self.transport.close()
        elif not self._unanswered:
            self.loop.call_later(LOOK_AGAIN, self._leave, until)

    # Heads that are late

    def _time_head(self) -> None:
        """Bytes came that do not complete a head. Blank lines between requests are timed once all are answered."""
        parser = self._parser
        if parser.begun != parser.completed or not self._unanswered:
            self._expect_headers()

    def _expect_headers(self) -> None:
        self._late = self.loop.call_later(self._settings.headers_timeout, self._headers_late)

    def _got_headers(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _headers_late(self) -> None:
        self._late = None
        if not self._parser.head_bytes:  # it never spoke: there is no request to answer
            self.transport.close()
        else:
            seconds = self._settings.headers_timeout
            self._refuse_late(RequestTooSlow(f"The headers did not arrive within {seconds:g} s."))

    # Refusals

    def _refuse_late(self, error: GatewayError) -> None:
        """As `_refuse`, from outside of a turn of work."""
        if not self.transport.is_closing():
            self._refuse(error)
            self._go_on()

    def _refuse(self, error: GatewayError) -> None:
        """Nothing more is read of this client. It is told why when the requests before are answered."""
        self._deaf = True
        self._backlog, self._at = b"", 0
        self._got_headers()
        broken, self._parser.arriving = self._parser.arriving, None
        waiting = self._unanswered
        if broken is not None and waiting and waiting[-1] is broken:
            if broken.started:
                self.transport.close()  # told already; it was the body that could not be understood
                return
            waiting.pop()
            broken.lose()
        waiting.append(RefusedRequest(error, self._tell))

    def _tell(self, error: GatewayError, request_id: str = "", linger: bool = True) -> None:
        """Answer below ASGI, and close."""
        self._deaf = True
        request_id = request_id or request_id_of({})
        if self._public:
            status, headers, body = whole_answer(error, DIALECTS[0], request_id)
            middleware = self._settings.dispatcher.middleware
            if middleware.tell:
                headers += middleware.headers(self._parser.fields_so_far())
        else:
            status, headers, body = detail_answer(error, request_id)
        lines = b"".join(b"%b: %b\r\n" % pair for pair in [*headers, (b"connection", b"close")])
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self._end(linger)

    def _last_word(self) -> None:
        """A request was answered before its body was whole."""
        self._deaf = True
        self._backlog, self._at = b"", 0
        if not self.transport.is_closing():
            self._end(linger=True)

    def _end(self, linger: bool) -> None:
        if linger and self.transport.can_write_eof():
            self._linger()
        else:
            self.transport.close()
        if self._unsent is not None:
            self._unsent.check()  # closing waits for a client that takes nothing

    def _linger(self) -> None:
        """Take in and forget what still comes, for a moment: closing on bytes that were not read would reset the
        connection, and the answer could be lost on its way (RFC 9112, section 9.6)."""
        self.transport.write_eof()
        self._flow.hold(False)
        self.flow.resume_reading()
        self._lingering = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _fail(self) -> None:
        """An exception that nobody foresaw: the request that it hit must not hang."""
        request_id = request_id_of({})
        log.exception("connection_failed_unexpectedly", request_id=request_id)
        first = self._unanswered[0] if self._unanswered else None
        if not self.transport.is_closing() and (first is None or not first.started):
            error = InternalError("Something went wrong in the gateway; the request id finds it in its logs.")
            self._tell(error, request_id, linger=False)
        self.transport.close()
        self._lose_all()

    def _lose_all(self) -> None:
        unanswered = [*self._unanswered]
        arriving = self._parser.arriving
        if arriving is not None and arriving not in unanswered:  # answered before its body was whole
            unanswered.append(arriving)
        self._unanswered.clear()
        self._parser.arriving = None
        self._backlog, self._at, self._deaf = b"", 0, True
        for turn in unanswered:
            self._try(turn.lose)
