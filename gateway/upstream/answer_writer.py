"""Writes an exchange's answer to the client: its head, the pieces of its body, and comments meanwhile."""

import asyncio
import time

from gateway.core.http.sse import KEEP_ALIVE, PING
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.fleet.node import Lease
from gateway.upstream.answer_progress import AnswerProgress
from gateway.upstream.downstream import DownstreamRequest, Headers
from gateway.upstream.request_heads import STREAM_HEADERS, STREAM_TYPE, is_stream, passed_headers
from gateway.upstream.response_parser import ResponseHead


class AnswerWriter:
    """The head of a stream is sent with the first piece of its body, that of a plain answer with the whole body.

    `head`: the node's, None until it has come. `committed`: the client has a head, so the answer keeps its shape.
    """

    __slots__ = ("_lease", "_loop", "_node_request", "_progress", "_request", "_stats", "committed", "head")

    def __init__(
        self,
        node_request: NodeRequest,
        request: DownstreamRequest,
        stats: RequestStats,
        lease: Lease,
        progress: AnswerProgress,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._node_request = node_request
        self._request = request
        self._stats = stats
        self._lease = lease
        self._progress = progress
        self._loop = loop
        self.head: ResponseHead | None = None
        self.committed = request.started  # by comments, during an attempt that failed

    def push(self, data: bytes) -> None:
        """Send a piece of the body, behind the head of a stream if none was sent."""
        if self._stats.first_byte is None:
            self._note_first_byte()
        if not self.committed:
            self.commit()
        self._progress.last_push = self._progress.last
        if not self._request.push(data) and self._request.listener is not None:
            self._request.listener.on_full()

    def commit(self) -> None:
        """Send the head of a stream: the node's, or where it has not answered yet, the one that it will send."""
        self.committed = True
        headers = [(b"content-type", STREAM_TYPE + b"; charset=utf-8")]
        if self.head is not None and is_stream(self.head):  # that of a tokenizer, asked in between, is none
            headers = passed_headers(self.head)
        self._request.start(200, headers + STREAM_HEADERS, stream=True)

    def comment(self, now: float) -> None:
        """Send a comment, ahead of the answer where it has not begun."""
        if not self.committed:
            self.commit()
        self._progress.last_push = now
        comment = PING if self._node_request.dialect.anthropic else KEEP_ALIVE
        if not self._request.push(comment) and self._request.listener is not None:
            self._request.listener.on_full()

    def start_plain(self, head: ResponseHead) -> None:
        """Send the head of a plain answer that is passed on piece by piece."""
        self.committed = True
        length = [item for item in head.headers if item[0] == b"content-length"]
        self._request.start(head.status, passed_headers(head) + length, stream=False)

    def send_plain(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole plain answer, which is rewritten first where its request says so."""
        body = self._node_request.plain(status, body)
        tier = self._stats.service_tier
        if tier is not None and status == 200:
            # Unescaped quotes stand in no generated text, so this is the field, which vLLM leaves empty.
            body = body.replace(b'"service_tier":null', b'"service_tier":"%b"' % tier.encode(), 1)
        self._note_first_byte()
        kept = self._node_request.kept
        if kept is not None and kept.response is not None:
            kept.hold(status, headers)  # it is sent once it is stored
        else:
            self._request.answer(status, headers, body)

    def _note_first_byte(self) -> None:
        lease, stats = self._lease, self._stats
        if self.head is not None and self.head.status == 200:
            lease.answered = True
            if lease.node.doubted and self._node_request.shows_life:
                lease.node.answered(self._progress.last)
        if stats.first_byte is None:
            stats.answered = True
            stats.first_byte = time.perf_counter()  # uvloop's own clock ticks in milliseconds
            if lease.prefill is not None:
                lease.prefill.first_byte(self._loop.time())
