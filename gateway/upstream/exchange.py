"""One request on one node, from the sent request to the last byte; the answer is passed on as it comes.

Both sides call an `Exchange`: the node's connection with pieces of the answer, the client's side when the client leaves
or can take bytes again. Nothing here awaits, so an event costs no task switch; the relay awaits `done`.

    StreamedAnswer   passes events through the stream filter  | one of them is made
    PlainAnswer      holds the pieces until the body is whole | when the head has come
    AnswerWriter     sends the client's head and body
    AnswerProgress   counts events and keeps times
    ExchangeTimer    enforces the time limits; it belongs to the relay

A stream filter may ask for a follow-up: the node's request is closed, and another one, if possible to the same node,
continues the client's answer. That is another exchange with the same filter; `done` returns the follow-up.
"""

import asyncio
from collections.abc import Callable

from gateway.aio.inline_future import InlineFuture
from gateway.core.dialects.stream_filter import FollowUpRequest, StreamFilter
from gateway.core.errors import BadUpstreamResponse, ClientGone, GatewayError, NodeLeaving, UpstreamCut, UpstreamError
from gateway.core.http.chunks import chunk_of
from gateway.core.pressure.early_ends import RunningThought
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.core.usage.token_usage import Usage
from gateway.fleet.node import Lease
from gateway.upstream.answer_progress import AnswerProgress
from gateway.upstream.answer_writer import AnswerWriter
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import unreadable
from gateway.upstream.plain_answer import PlainAnswer
from gateway.upstream.request_heads import check_head, is_stream
from gateway.upstream.response_parser import ResponseHead
from gateway.upstream.streamed_answer import StreamedAnswer


class Exchange:
    """The receiver of a node's answer and the listener to the client's side.

    A callback of the node's side raises the `GatewayError` that the exchange fails with: the connection aborts, and
    calls `on_broken` with it.
    """

    __slots__ = (
        "_carried",
        "_connection",
        "_loop",
        "_node",
        "_node_request",
        "_on_first",
        "_plain",
        "_request",
        "_shows_life",
        "_stats",
        "_stream",
        "asks_tokenizer",
        "done",
        "lease",
        "model",
        "progress",
        "writer",
    )

    def __init__(
        self,
        node_request: NodeRequest,
        request: DownstreamRequest,
        connection: UpstreamConnection,
        stats: RequestStats,
        loop: asyncio.AbstractEventLoop,
        lease: Lease,
        carried: StreamFilter | None,
        on_first: Callable[[], None] | None = None,
        model: str | None = None,
    ) -> None:
        """`carried`: the filter that asked for this request as a follow-up. `on_first` is called once something of the
        answer has come. `model`: what its node has to serve, None where any may answer."""
        # What is read with each event comes first (see docs/architecture.md, "What is compiled").
        self._stream: StreamedAnswer | None = None
        self.progress = AnswerProgress(loop)
        self._node = lease.node
        self._loop = loop
        self.done: InlineFuture[FollowUpRequest | None] = InlineFuture(loop)
        self._node_request = node_request
        self.asks_tokenizer = carried is not None and isinstance(carried, Checkpoint) and not carried.generates
        """Whether its node only reads or writes token ids, which takes no engine."""
        self._shows_life = node_request.shows_life and not self.asks_tokenizer
        self._carried = carried
        self._on_first = on_first
        self.lease = lease
        self.model = model
        self._request = request
        self._connection = connection
        self._stats = stats
        self.writer = AnswerWriter(node_request, request, stats, lease, self.progress, loop)
        self._plain: PlainAnswer | None = None
        request.listener = self

    # The node's side

    def on_head(self, head: ResponseHead) -> None:
        self.writer.head = head
        self.progress.last = self._loop.time()
        check_head(head)
        node_request, request, stats, writer = self._node_request, self._request, self._stats, self.writer
        stream_filter = None
        if head.status == 200:
            if self._carried is not None:
                stream_filter = self._carried
                stats.answered = True
            elif is_stream(head):
                stream_filter = node_request.stream_filter()
            elif node_request.needs_stream:
                raise BadUpstreamResponse("The node did not stream its answer, although a stream was requested.")
        if stream_filter is None:
            self._plain = PlainAnswer(head, node_request, request, stats, writer, self._carried is not None)
        else:
            self._stream = StreamedAnswer(stream_filter, node_request, request, stats, self.progress, writer)

    def on_data(self, data: bytes) -> None:
        stream, now = self._stream, self._loop.time()
        if stream is not None and stream.is_quiet(data):
            stream.feed_quiet(data, now)
        else:
            self.progress.last = now
            if self._shows_life:
                self._node.heard_at = now
                self.lease.heard = True
            if stream is None:
                assert self._plain is not None
                self._plain.feed(data)
                return
            stream.feed(data)
            if self._on_first is not None:
                on_first, self._on_first = self._on_first, None
                on_first()
        if stream.filter.follow_up is not None:
            self._connection.abort()
            self._finish(stream.take_follow_up())

    def on_chunk(self, chunk: bytes, data: bytes) -> None:
        # The path of nearly every event: it assigns few attributes, which cost more than the filter.
        stream = self._stream
        if stream is None or (write := stream.write) is None or (passed := stream.filter.pass_event(data)) is None:
            self.on_data(data)
            return
        progress = self.progress
        progress.last_chunk = self._node.heard_at = self._loop.time()
        progress.events += 1
        write(chunk if passed is data else chunk_of(passed))

    def on_end(self) -> None:
        if self._stream is not None:
            self._finish(self._stream.end())
        else:
            assert self._plain is not None
            self._plain.end()
            self._finish(None)

    def on_error(self, error: UpstreamError) -> None:
        if self._stream is not None and self._stream.filter.ended:  # the answer was complete
            self._finish(self._stream.end())
        else:
            self._fail(error)

    def on_broken(self, error: Exception) -> None:
        if not self.done.done():
            self._fail(unreadable(error))

    # The client's side

    def on_gone(self) -> None:
        if self._stream is not None and self._stream.filter.ended:
            self._stream.write = None
            self.on_writable()  # paused for the client, the node's end would never be read
            return  # it has all it asked for (SDKs leave at [DONE]); the node ends by itself
        self.fail(ClientGone("The client closed its connection."))

    def on_full(self) -> None:
        self.progress.pause()
        self._connection.pause()

    def on_writable(self) -> None:
        if self.progress.paused:
            self.progress.resume()
            self._connection.resume()

    # For the relay and its timer

    @property
    def stream_filter(self) -> StreamFilter | None:
        """The filter of a streamed answer."""
        return None if self._stream is None else self._stream.filter

    @property
    def thinks(self) -> bool | None:
        """Whether what came last of the answer is thinking; None where that does not show."""
        found = self.stream_filter
        if found is None:
            return None
        return True if found.thought is not None else found.thinks

    @property
    def thought_tokens(self) -> int | None:
        """The tokens of its thinking so far; None where they are not counted."""
        found = self.stream_filter
        if isinstance(found, Checkpoint):
            return found.thought_tokens
        return None if found is None else found.thought

    @property
    def running_thought(self) -> RunningThought | None:
        """The thinking that is under way, where pressure may end it."""
        claim = self._stats.claim
        thought = None if self._stream is None or claim is None else self._stream.filter.thought
        return None if claim is None or thought is None else RunningThought(claim, thought)

    def end_thinking(self) -> bool:
        """End it. Where the answer could not go on, it is left alone from now on."""
        if self.done.done() or self._stream is None:
            return False
        ends = self._stats.thinking_ended_early = self._stream.filter.end_thinking()
        self._stats.claim = None
        return ends

    @property
    def waits(self) -> bool:
        """Whether nothing of this answer has reached the client."""
        return not self._stats.answered

    @property
    def answer_begun(self) -> bool:
        """Whether something of the answer has come, for the client or not; of a continued one, from this node."""
        if self._carried is not None:
            return self.progress.begun > 0
        return self.progress.at_work or (self._stats.first_byte is not None and self.writer.head is not None)

    @property
    def resumable(self) -> bool:
        """Whether the answer can go on on another node if it fails now; a whole one has nothing to go on with."""
        if self._stream is None:
            return self._node_request.resumable
        found = self._stream.filter
        return isinstance(found, Checkpoint) and found.resumable and not found.ended

    @property
    def asked_for_stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self._node_request.ask.stream

    @property
    def comes_in_events(self) -> bool:
        """Whether its node streams the answer, so that it shows how far it is; the client may get it whole."""
        return self._stream is not None or self.asked_for_stream or self._node_request.needs_stream

    @property
    def streams(self) -> bool:
        """Whether the client gets a stream, as far as is known, and its last event was not sent."""
        if self._node_request.assembles:
            return False
        if self._stream is not None:
            return not self._stream.filter.ended
        return self.writer.head is None and self.asked_for_stream

    def fail(self, error: GatewayError) -> None:
        """End the exchange with `error`, closing the node's connection at once so that it works for nobody."""
        if not self.done.done():
            self._connection.abort()
            self._fail(error)

    def leave(self, error: NodeLeaving) -> None:
        """The same where its node is to be left; an answer that is complete, but for the node's end, is not failed."""
        if not self.done.done():
            self._connection.abort()
            self.on_error(error)

    def stop(self) -> None:
        """Close the node's connection, without a result: `done` is not awaited any more."""
        self._connection.abort()
        self.progress.add_to(self._stats.work)
        self._request.listener = None
        self._note_usage()

    # Ends

    def _finish(self, follow_up: FollowUpRequest | None) -> None:
        self.progress.add_to(self._stats.work)
        self._request.listener = None
        if not self.done.done():
            self.done.set_result(follow_up)

    def _fail(self, error: GatewayError) -> None:
        self.progress.add_to(self._stats.work)
        self._request.listener = None
        if self.done.done():
            return
        self._note_usage()
        if (
            isinstance(error, UpstreamCut | NodeLeaving)
            and not self.asked_for_stream
            and not self._stats.answered
            and not self.progress.events
        ):
            self._stats.lost_seconds += self._loop.time() - self.progress.sent_at
        self.done.set_exception(error)

    def _note_usage(self) -> None:
        """Keep what is known of the usage of an answer that was cut."""
        if self._stream is None:
            return
        found = self._stream.filter
        reported = found.usage
        if reported is None and isinstance(found, Checkpoint) and found.prompt_tokens:
            reported = Usage(found.prompt_tokens, found.tokens.count)
        self._stats.reported = reported or self._stats.reported
