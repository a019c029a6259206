"""A node's streamed answer: its events pass a stream filter on their way to the client.

Streams are committed late: the client's head is sent with the first event that says something of the answer (a comment
does not, nor does `response.created`), so that another node can be tried until then. What comes before that event is
held, and sent with it.
"""

import re
from collections.abc import Callable
from time import perf_counter

from gateway.core.dialects.answers import find_error_status
from gateway.core.dialects.stream_filter import COLON, STOP, FollowUpRequest, StreamFilter, says_nothing
from gateway.core.errors import UpstreamCut
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.loop_checkpoint import LoopCheckpoint
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.thinking.loops import LOOP_HEADER
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.upstream.answer_progress import AnswerProgress
from gateway.upstream.answer_writer import AnswerWriter
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import check_beginning, node_error

ASSEMBLED = 4
"""Bytes that come for each byte held of an assembled answer: an event of one token has 250, and about 60 stay."""

_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_MAY_END_EVENT = re.compile(rb"\A[\r\n]|[\r\n][\r\n]")


class StreamedAnswer:
    """What `feed` and `end` raise is the failure of the exchange.

    `filter` may have come from the exchange before, whose answer this one continues. `write` sends an HTTP chunk to the
    client; None until the first event has been sent.
    """

    __slots__ = (
        "_between",
        "_node_request",
        "_prelude",
        "_progress",
        "_quiet",
        "_request",
        "_shows_life",
        "_stats",
        "_watch",
        "_writer",
        "filter",
        "write",
    )

    def __init__(
        self,
        stream_filter: StreamFilter,
        node_request: NodeRequest,
        request: DownstreamRequest,
        stats: RequestStats,
        progress: AnswerProgress,
        writer: AnswerWriter,
    ) -> None:
        self.filter = stream_filter
        self.write: Callable[[bytes], None] | None = None
        self._node_request = node_request
        self._shows_life = node_request.shows_life
        self._request = request
        self._stats = stats
        self._progress = progress
        self._writer = writer
        self._prelude = stream_filter.prelude if isinstance(stream_filter, Checkpoint) else []
        """The events before the first that says something of the answer; also those of exchanges before this one."""
        self._watch = None if stats.trace is None else stats.trace.watch
        """Of a recorded request: it looks at each event, so none goes on as the chunk that it came in."""
        self._between = True
        """Whether the next piece begins an event, or a line behind a comment."""
        self._quiet = False
        """Whether the event of the last piece says nothing of the answer."""

    def is_quiet(self, data: bytes) -> bool:
        """Whether the next piece says nothing of the answer. That shows at the beginning of an event; within one a
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

    def feed_quiet(self, data: bytes, now: float) -> None:
        """Pass on a piece that says nothing of the answer: it is no sign of life, no work and no token."""
        events = self.filter.feed(data)
        if events:
            self._pass(events)
            if self._stats.first_byte is not None:
                self._progress.last_push = now

    def feed(self, data: bytes) -> None:
        if self._watch is not None:
            self._watch.see(data, perf_counter())
        progress = self._progress
        progress.begun = progress.begun or progress.last
        progress.events += data.count(b"\n\n") or data.count(b"\r\n\r\n")
        events = self.filter.feed(data)
        if events:
            self._pass(events)
            return
        progress.at_work = True
        if self._node_request.assembles:
            self._request.hold(len(data) // ASSEMBLED)

    def take_follow_up(self) -> FollowUpRequest | None:
        """The follow-up that the filter asks for; None where it asks to end the answer here."""
        follow_up, self.filter.follow_up = self.filter.follow_up, None
        if isinstance(self.filter, LoopCheckpoint):
            self._stats.loops = self.filter.loops
        if follow_up is STOP:
            return self.end()
        if self._prelude:  # the next exchange begins with what follows
            self._pass(b"")
        return follow_up

    def end(self) -> FollowUpRequest | None:
        """The node's stream has ended: end the client's answer, or return the follow-up that continues it."""
        stream_filter, stats = self.filter, self._stats
        held = stream_filter.flush()
        if stream_filter.follow_up is not None:
            return self.take_follow_up()
        stats.reported = stream_filter.usage
        stats.wasted = stream_filter.wasted
        stats.node_failed = stream_filter.failed
        if self._node_request.assembles:
            self._end_assembled(held)
            return None
        if held:
            self._pass(held)
        if not stream_filter.ended and not stream_filter.failed:
            raise _cut()
        if not self._writer.committed:
            self._writer.commit()
        kept = self._node_request.kept
        if kept is None or kept.response is None:
            self._request.finish()
        elif self._prelude:  # its last event, which would have brought this along, is sent once it is stored
            self._pass(b"")
        return None

    def _end_assembled(self, body: bytes) -> None:
        if self.filter.failed:
            raise node_error(find_error_status(body), body)
        if not self.filter.ended:
            raise _cut()
        if self._stats.loops:
            self._request.add_headers(tuple((LOOP_HEADER.encode(), note.header()) for note in self._stats.loops[-1:]))
        self._writer.send_plain(200, [(b"content-type", b"application/json")], body)

    def _pass(self, events: bytes) -> None:
        if self._stats.first_byte is None:
            if self.filter.failed:
                head = None if self._writer.committed else self._writer.head
                check_beginning(events, b"".join(self._prelude), head)  # then another node may be asked
            if self._shows_life and says_nothing(events):
                if self.filter.thinks is None:
                    self._progress.begun, self._progress.events = 0.0, 0
                else:  # what the node said in the same piece is hidden, or held
                    self._progress.at_work = True
                self._request.hold(len(events))
                self._prelude.append(events)
                return
            if self._prelude:
                events = b"".join((*self._prelude, events))
                self._prelude.clear()
            self._request.stream_filter = self.filter
        self._writer.push(events)
        self.write = self._request.write_chunk if self._shows_life and self._watch is None else None


def _cut() -> UpstreamCut:
    return UpstreamCut("The node ended its stream before the answer was complete; retry.")
