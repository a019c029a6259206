"""One request on one node, from the sent request to the last byte; the answer is passed on as it comes.

Both sides call an `Exchange`: the node's connection with pieces of the answer, the client's side when the client leaves
or can take bytes again. Nothing here awaits, so an event costs no task switch; the relay awaits `done`.

Streams are committed late: the client's head is sent with the first event that says something of the answer (a comment
does not, nor does `response.created`), so that another node can be tried until then. Where that takes long, the head is
sent ahead, followed by comments (pings in messages), to keep load balancers from cutting the connection. Plain answers
are held back whole, up to a bound, for the same reason.

A stream filter may ask for a follow-up: the node's request is closed, and another one, if possible to the same node,
continues the client's answer. That is another exchange with the same filter; `done` returns the follow-up.
"""

import asyncio
import re
import time
from collections.abc import Callable

from gateway.aio.inline_future import InlineFuture
from gateway.core.dialects.answers import find_error_status
from gateway.core.dialects.stream_filter import COLON, STOP, FollowUpRequest, StreamFilter, gave_up, says_nothing
from gateway.core.errors import (
    BadUpstreamResponse,
    ClientGone,
    GatewayError,
    NodeAnswer,
    NodeLeaving,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.http.sse import KEEP_ALIVE, PING, event_data, split_events
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.fleet.node import Lease, Node
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.downstream import DownstreamRequest, Headers
from gateway.upstream.failed_answers import FAILED_STATUSES, deadline_exceeded, node_error, unreadable
from gateway.upstream.request_heads import STREAM_HEADERS, STREAM_TYPE, is_stream, passed_headers, unfit
from gateway.upstream.response_parser import ResponseHead
from gateway.upstream.timeouts import UpstreamTimeouts

HELD_BYTES = 1 << 20
"""The most bytes of a plain answer that is held until it is whole; a longer one is passed on piece by piece."""

UNCOUNTED = 64 * 1024
"""Bytes of a plain answer that are held without asking for memory, as a buffer is."""

ASSEMBLED = 4
"""Bytes that come for each byte held of an assembled answer: an event of one token has 250, and about 60 stay."""

_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_MAY_END_EVENT = re.compile(rb"\A[\r\n]|[\r\n][\r\n]")

TAIL_BYTES = 2048
"""Bytes kept of a piece that was passed on: its usage may continue in the next."""


class Exchange:
    """The receiver of a node's answer and the listener to the client's side."""

    __slots__ = (
        "_at_work",
        "_begun",
        "_between",
        "_call",
        "_carried",
        "_committed",
        "_connection",
        "_deadline",
        "_events",
        "_head",
        "_held",
        "_held_bytes",
        "_last",
        "_last_chunk",
        "_last_push",
        "_look",
        "_look_at",
        "_loop",
        "_node",
        "_paused",
        "_paused_at",
        "_paused_for",
        "_prelude",
        "_quiet",
        "_request",
        "_sent_at",
        "_shows_life",
        "_stats",
        "_tail",
        "_timing",
        "_work_noted",
        "_write",
        "done",
        "due",
        "lease",
        "stream_filter",
    )

    def __init__(
        self,
        request: NodeRequest,
        call: DownstreamRequest,
        connection: UpstreamConnection,
        timing: UpstreamTimeouts,
        stats: RequestStats,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        lease: Lease,
        carried: StreamFilter | None,
        look: Callable[[Node, float], float],
    ) -> None:
        """`deadline`: loop time, infinite where the client gave none. `carried`: the filter that asked for this
        request as a follow-up. `look(node, now)` ends what waits on a node that hangs, and returns the loop time of the
        next look."""
        self._loop = loop
        self.done: InlineFuture[FollowUpRequest | None] = InlineFuture(loop)
        self._request = request
        self._shows_life = request.shows_life
        self._carried = carried
        self.lease = lease
        self._node = lease.node
        self._look = look
        self._call = call
        self._connection = connection
        self._timing = timing
        self._stats = stats
        self._deadline = deadline
        self._head: ResponseHead | None = None
        self.stream_filter: StreamFilter | None = None
        self._held: list[bytes] | None = []
        self._held_bytes = 0
        self._tail = b""
        self._prelude: list[bytes] = []
        """The events before the first that says something of the answer; they are sent with it."""
        self._between = True
        """Whether the next piece of a stream begins an event, or a line behind a comment."""
        self._quiet = False
        """Whether the event of the last piece says nothing of the answer."""
        self._committed = call.started  # by comments, during an attempt that failed
        self._write: Callable[[bytes], None] | None = None
        """Sends an HTTP chunk to the client; None until the first event has been sent."""
        self._events = 0
        """The number of the node's events, hidden and held ones included."""
        self._begun = 0.0
        self._work_noted = False
        self._paused = False
        self._paused_at = self._paused_for = 0.0
        self._at_work = False
        """Whether the node sent something that the client does not get, such as hidden thinking."""
        self._sent_at = self._last = self._last_push = self._last_chunk = now = loop.time()
        self._look_at = now + timing.silence
        self.due = min(deadline, now + timing.shortest)
        call.listener = self

    # The node's side

    def on_head(self, head: ResponseHead) -> None:
        self._head = head
        self._last = self._loop.time()
        error = unfit(head)
        if error is not None:
            self.fail(error)
        elif head.status != 200:
            return
        elif self._carried is not None:
            self.stream_filter = self._carried
            self._stats.answered = True
        elif is_stream(head):
            self.stream_filter = self._request.stream_filter()
        elif self._request.needs_stream:
            self.fail(BadUpstreamResponse("The node did not stream its answer, although a stream was requested."))

    def on_data(self, data: bytes) -> None:
        if self.stream_filter is not None and self._is_quiet(data):
            self._pass_quietly(self.stream_filter.feed(data))
            if self.stream_filter.follow_up is not None:
                self._connection.abort()
                self._take_follow_up(self.stream_filter)
            return
        self._last = self._loop.time()
        if self._shows_life:
            self._node.heard_at = self._last
            self.lease.heard = True
        if self.stream_filter is None:
            self._hold(data)
            return
        self._begun = self._begun or self._last
        self._events += data.count(b"\n\n") or data.count(b"\r\n\r\n")
        events = self.stream_filter.feed(data)
        if events:
            self._pass(events)
        else:
            self._at_work = True
            if self._request.assembles and not self._keep(len(data) // ASSEMBLED):
                return
        if self.stream_filter.follow_up is not None:
            self._connection.abort()
            self._take_follow_up(self.stream_filter)

    def _is_quiet(self, data: bytes) -> bool:
        """Whether a piece of a stream says nothing of the answer. That shows at the beginning of an event; within one a
        colon is as likely as any other byte."""
        if self._between:
            self._quiet = says_nothing(data)
        elif self._quiet and (end := _MAY_END_EVENT.search(data)):
            rest = data[end.end() :]
            self._quiet = not rest or says_nothing(rest)
        self._between = data.endswith(_EVENT_ENDS) or (
            data.endswith(b"\n") and data[data.rfind(b"\n", 0, -1) + 1] == COLON
        )
        return self._quiet

    def _pass_quietly(self, events: bytes) -> None:
        """Pass on events that say nothing of the answer: they are no sign of life, no work and no token."""
        if events:
            self._pass(events)
            if self._stats.first_byte is not None:
                self._last_push = self._loop.time()

    def on_chunk(self, chunk: bytes, data: bytes) -> None:
        # The path of nearly every event: it assigns few attributes, which cost more than the filter.
        write, stream_filter = self._write, self.stream_filter
        if write is None or stream_filter is None or not stream_filter.passes(data):
            self.on_data(data)
            return
        self._last_chunk = self._node.heard_at = self._loop.time()
        self._events += 1
        write(chunk)

    def on_end(self) -> None:
        if self.stream_filter is not None:
            self._end_stream(self.stream_filter)
        elif self._held is not None:
            body = b"".join(self._held)
            self._held.clear()
            self._end_plain(body)
        else:
            self._call.finish()
            self._resolve(None)

    def on_error(self, error: UpstreamError) -> None:
        if self.stream_filter is not None and self.stream_filter.ended:  # the answer was complete
            self._end_stream(self.stream_filter)
        else:
            self._resolve(error)

    def on_broken(self, error: Exception) -> None:
        if not self.done.done():
            self._resolve(unreadable(error))

    @property
    def waits(self) -> bool:
        """Whether nothing of this answer has reached the client."""
        return not self._stats.answered

    # The client's side

    def on_gone(self) -> None:
        if self.stream_filter is not None and self.stream_filter.ended:
            self._write = None
            self.on_writable()  # paused for the client, the node's end would never be read
            return  # it has all it asked for (SDKs leave at [DONE]); the node ends by itself
        self.fail(ClientGone("The client closed its connection."))

    def on_full(self) -> None:
        if not self._paused:
            self._paused_at = self._loop.time()
        self._paused = True
        self._connection.pause()

    def on_writable(self) -> None:
        if self._paused:
            self._paused = False
            self._last = self._loop.time()
            self._paused_for += self._last - self._paused_at
            self._connection.resume()

    # Ends

    def fail(self, error: GatewayError) -> None:
        """End the exchange with `error`, closing the node's connection at once so that it works for nobody."""
        if not self.done.done():
            self._connection.abort()
            self._resolve(error)

    def stop(self) -> None:
        """Close the node's connection, without a result: `done` is not awaited any more."""
        self._connection.abort()
        self._note_work()
        self._note_usage()
        self._call.listener = None

    def _end_stream(self, stream_filter: StreamFilter) -> None:
        held = stream_filter.flush()
        if stream_filter.follow_up is not None:
            self._take_follow_up(stream_filter)
            return
        self._stats.reported = stream_filter.usage
        self._stats.wasted = stream_filter.wasted
        self._stats.node_failed = stream_filter.failed
        if self._request.assembles:
            self._end_assembled(stream_filter, held)
            return
        if held:
            self._pass(held)
        if stream_filter.ended or stream_filter.failed:
            if not self._committed:
                self._commit()
            self._call.finish()
            self._resolve(None)
        else:
            self._resolve(UpstreamCut("The node ended its stream before the answer was complete; retry."))

    def _end_assembled(self, stream_filter: StreamFilter, body: bytes) -> None:
        if stream_filter.failed:
            self._resolve(node_error(find_error_status(body), body))
        elif not stream_filter.ended:
            self._resolve(UpstreamCut("The node ended its stream before the answer was complete: retry."))
        else:
            self._answer_plain(200, [(b"content-type", b"application/json")], body)

    def _end_plain(self, body: bytes) -> None:
        assert self._head is not None
        status = self._head.status
        if self._committed or self._carried is not None:  # the answer has begun: its error can only be the gateway's
            self._resolve(node_error(status, body, self._head))
            return
        if status in FAILED_STATUSES:
            answer = NodeAnswer(status, passed_headers(self._head), self._request.plain(status, body))
            self._resolve(node_error(status, body, self._head, answer))
            return
        if status == 200 and self._request.gave_up(body):
            self._resolve(gave_up())
            return
        self._stats.reported = self._request.usage(body) if status == 200 else None
        self._answer_plain(status, passed_headers(self._head), body)

    def _answer_plain(self, status: int, headers: Headers, body: bytes) -> None:
        body = self._request.plain(status, body)
        self._first_byte()
        headers.append((b"content-length", b"%d" % len(body)))
        self._call.start(status, headers, stream=False)
        self._call.finish(body)
        self._resolve(None)

    def _take_follow_up(self, stream_filter: StreamFilter) -> None:
        """End this exchange with the follow-up that its filter asks for."""
        follow_up, stream_filter.follow_up = stream_filter.follow_up, None
        if follow_up is STOP:
            self._end_stream(stream_filter)
            return
        if self._prelude:  # the next exchange begins with what follows
            self._pass(b"")
        self._note_work()
        self._call.listener = None
        if not self.done.done():
            self.done.set_result(follow_up)

    def _resolve(self, error: GatewayError | None) -> None:
        self._note_work()
        self._call.listener = None
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self._note_usage()
            if (
                isinstance(error, UpstreamCut | NodeLeaving)
                and not self._request.ask.stream
                and not self._stats.answered
                and not self._events
            ):
                self._stats.lost_seconds += self._loop.time() - self._sent_at
            self.done.set_exception(error)

    def _note_usage(self) -> None:
        """Keep the usage that the node reported before its answer was cut."""
        if self.stream_filter is not None and self._stats.reported is None:
            self._stats.reported = self.stream_filter.usage

    def _note_work(self) -> None:
        if self._work_noted:
            return
        self._work_noted = True
        now = self._loop.time()
        last = max(self._last, self._last_chunk)
        flowed = last - self._begun if self._begun else 0.0
        self._stats.work.add(self._events, now - self._sent_at, flowed, self._paused_for, now - last)

    # Passing on

    def _pass(self, data: bytes) -> None:
        if self._stats.first_byte is None:
            if self.stream_filter is not None:
                if self.stream_filter.failed and self._fails_early(data):
                    return
                if self._shows_life and says_nothing(data):
                    self._begun, self._events = 0.0, 0
                    if self._keep(len(data)):
                        self._prelude.append(data)
                    return
                if self._prelude:
                    data = b"".join((*self._prelude, data))
                    self._prelude.clear()
            self._first_byte()
        if not self._committed:
            self._commit()
        self._last_push = self._last
        if not self._call.push(data):
            self.on_full()
        self._write = self._call.write_chunk if self._shows_life else None

    def _fails_early(self, events: bytes) -> bool:
        """A stream that begins with the node's own failure has not begun: another node may be asked."""
        errors = [found for event in split_events(events) if b'"error"' in (found := event_data(event))]
        data = errors[-1] if errors else b""
        status = find_error_status(data)
        if status not in FAILED_STATUSES:
            return False
        answer = None
        if self._head is not None and not self._committed:
            body = b"".join((*self._prelude, events))
            answer = NodeAnswer(200, passed_headers(self._head) + STREAM_HEADERS, body, stream=True)
        self.fail(node_error(status, data, None, answer))
        return True

    def _first_byte(self) -> None:
        if self._head is not None and self._head.status == 200:
            self.lease.answered = True
            if self._shows_life and self.lease.node.doubted:
                self.lease.node.answered(self._last)
        if self._stats.first_byte is None:
            self._stats.answered = True
            self._stats.first_byte = time.perf_counter()  # uvloop's own clock ticks in milliseconds
            if self.lease.prefill is not None:
                self.lease.prefill.first_byte(self._loop.time())

    def _commit(self) -> None:
        """Send the head of a stream: the node's, or where it has not answered yet, the one that it will send."""
        self._committed = True
        headers = [(b"content-type", STREAM_TYPE + b"; charset=utf-8")]
        if self._head is not None:
            headers = passed_headers(self._head)
        self._call.start(200, headers + STREAM_HEADERS, stream=True)

    def _hold(self, data: bytes) -> None:
        if self._held is None:
            seen = self._tail + data
            self._stats.reported = self._request.usage(seen) or self._stats.reported
            self._tail = seen[-TAIL_BYTES:]
            self._pass(data)
            return
        rewrites = self._request.rewrites
        self._held_bytes += len(data)
        if (rewrites or self._held_bytes > UNCOUNTED) and not self._keep(len(data), data if rewrites else None):
            return
        self._held.append(data)
        if self._held_bytes <= HELD_BYTES or self._request.rewrites:
            return
        if self._committed:
            self.fail(BadUpstreamResponse("The node's answer is not an event stream."))
            return
        assert self._head is not None
        held, self._held, self._committed = b"".join(self._held), None, True
        length = [item for item in self._head.headers if item[0] == b"content-length"]
        self._call.start(self._head.status, passed_headers(self._head) + length, stream=False)
        self._hold(held)

    def _keep(self, length: int, rewritten: bytes | None = None) -> bool:
        """Whether there is memory for so many more bytes of an answer that is held; else the exchange has ended."""
        try:
            self._call.hold(length, rewritten)
        except GatewayError as error:
            self.fail(error)
            return False
        return True

    # Time

    def _limit(self) -> float:
        """The loop time at which the node has been silent too long, given what it has said so far."""
        if self._at_work or (self._stats.first_byte is not None and self._head is not None):
            return max(self._last, self._last_chunk) + self._timing.idle
        if not self._request.ask.stream:
            return self._sent_at + self._timing.plain
        return self._sent_at + self._timing.first_byte + self._timing.prefill * self.lease.tokens / 1000

    def _comments_due(self) -> float:
        """The loop time of the next comment; never for an answer that is not a stream, nor behind its last event."""
        if self._request.assembles or (self.stream_filter is not None and self.stream_filter.ended):
            return float("inf")
        waiting = self._request.ask.stream if self._head is None else self.stream_filter is not None
        return max(self._last_push, self._last_chunk) + self._timing.keep_alive if waiting else float("inf")

    def _next_check(self, now: float) -> float:
        """When to look again. Events do not move it (that would cost more than the event), so it must not
        be set beyond the shortest limit that could apply by then."""
        soon = now + self._timing.idle
        if self._paused:  # the client has to read first: see `WriteStallTimer`
            return min(self._deadline, soon)
        look_at = soon if self._stats.answered else self._look_at
        return min(self._deadline, soon, self._limit(), self._comments_due(), look_at)

    def check(self, now: float) -> None:
        """Called by the relay's sweep once loop time `due` has come."""
        try:
            self._check(now)
        except Exception as error:  # noqa: BLE001 - what it raises ends this exchange, and no other
            if not self.done.done():
                self._connection.abort()
                self.on_broken(error)

    def _check(self, now: float) -> None:
        if now >= self._deadline:
            self.fail(deadline_exceeded())
        elif not self._paused and now >= self._limit():
            self.fail(
                UpstreamTimeout(f"The node sent nothing for {now - max(self._last, self._last_chunk):.0f} s; retry.")
            )
        elif not self._paused and now >= self._comments_due():
            self._comment(now)
        if self.waits and now >= self._look_at and not self.done.done():
            self._look_at = self._look(self.lease.node, now)
        self.due = self._next_check(now)

    def _comment(self, now: float) -> None:
        if not self._committed:
            self._commit()
        self._last_push = now
        if not self._call.push(PING if self._request.dialect.anthropic else KEEP_ALIVE):
            self.on_full()
