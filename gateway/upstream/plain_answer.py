"""A node's plain answer: held until it is whole, so that another node can be tried until then.

length                  rewritten   the client gets
up to `HELD_BYTES`      no          the whole, once it is complete
more                    no          what is held, and then every piece as it comes
any                     yes         the whole, once it is complete; memory bounds its length
"""

from time import perf_counter
from typing import Final

from gateway.core.dialects.stream_filter import gave_up
from gateway.core.errors import BadUpstreamResponse, NodeAnswer
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.upstream.answer_writer import AnswerWriter
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import FAILED_STATUSES, node_error
from gateway.upstream.request_heads import passed_headers
from gateway.upstream.response_parser import ResponseHead

HELD_BYTES: Final = 1 << 20
"""The most bytes that are held of an answer that is not rewritten."""

UNCOUNTED: Final = 64 * 1024
"""Bytes that are held without reserving memory, as a buffer is."""

TAIL_BYTES = 2048
"""Bytes kept of a piece that was passed on: its usage may continue in the next."""


class PlainAnswer:
    """What `feed` and `end` raise is the failure of the exchange."""

    __slots__ = ("_continues", "_head", "_held", "_length", "_node_request", "_request", "_stats", "_tail", "_writer")

    def __init__(
        self,
        head: ResponseHead,
        node_request: NodeRequest,
        request: DownstreamRequest,
        stats: RequestStats,
        writer: AnswerWriter,
        continues: bool,
    ) -> None:
        """`continues`: it comes in place of a stream that continues an answer."""
        self._head = head
        self._node_request = node_request
        self._request = request
        self._stats = stats
        self._writer = writer
        self._continues = continues
        self._held: list[bytes] | None = []
        """None once pieces are passed on."""
        self._length = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        if self._held is None:
            self._pass(data)
            return
        rewrites = self._node_request.rewrites
        self._length += len(data)
        if rewrites or self._length > UNCOUNTED:
            self._request.hold(len(data), data if rewrites else None)
        self._held.append(data)
        if self._length > HELD_BYTES and not rewrites:
            if self._writer.committed:
                raise BadUpstreamResponse("The node's answer is not an event stream.")
            held, self._held = b"".join(self._held), None
            self._writer.start_plain(self._head)
            self._pass(held)

    def end(self) -> None:
        if self._held is None:
            self._request.finish()
            return
        head, status = self._head, self._head.status
        body = b"".join(self._held)
        self._held.clear()
        if self._writer.committed or self._continues:  # the answer has begun: its error can only be the gateway's
            raise node_error(status, body, head, clients=not self._continues)
        if status in FAILED_STATUSES:
            answer = NodeAnswer(status, passed_headers(head), self._node_request.plain(status, body))
            raise node_error(status, body, head, answer)
        watch = None if self._stats.trace is None else self._stats.trace.watch
        if watch is not None:
            watch.see_plain(body, perf_counter())
        if status == 200:
            if self._node_request.gave_up(body):
                raise gave_up()
            self._stats.reported = self._node_request.usage(body)
        else:
            self._stats.reported = None
        self._writer.send_plain(status, passed_headers(head), body)

    def _pass(self, data: bytes) -> None:
        seen = self._tail + data
        self._stats.reported = self._node_request.usage(seen) or self._stats.reported
        self._tail = seen[-TAIL_BYTES:]
        self._writer.push(data)
