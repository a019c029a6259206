"""The times of one recorded request. Its spans are made of them at its end, so that nothing waits for a span.

Most requests are not recorded and have none of this. Times are `time.perf_counter`'s.
"""

from typing import Final

from gateway.core.telemetry.answer_watch import AnswerWatch
from gateway.core.telemetry.trace_context import trace_lines

MOST_ATTEMPTS: Final = 32
"""Attempts that a trace shows; an answer that waits for a node may make hundreds."""


class TracedPhase:
    """A part of the request before a node has it: `choice` (limits, then a node) or `queue`."""

    __slots__ = ("began", "ended", "name")

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.began = began
        self.ended: float | None = None


class TracedAttempt:
    """One try on a node. `resumes`: it goes on with an answer that broke off. `outcome`: as metrics name it, None while
    it is under way. `sent`: when the node was asked, None where it was not. `watch`: what came of its answer."""

    __slots__ = ("began", "ended", "node", "outcome", "resumes", "sent", "span", "watch")

    def __init__(self, node: str, span: int, began: float, resumes: bool, watch: AnswerWatch) -> None:
        self.node = node
        self.span = span
        self.began = began
        self.resumes = resumes
        self.watch = watch
        self.sent: float | None = None
        self.ended: float | None = None
        self.outcome: str | None = None


class RequestTrace:
    """`parent`: the client's span, None where the trace begins here. `content`: the bytes of texts that are recorded,
    0 for none. `method`, `route`: of the client's request. `dropped`: attempts beyond those that are shown."""

    __slots__ = (
        "attempts",
        "began",
        "content",
        "dropped",
        "input",
        "method",
        "parent",
        "phases",
        "route",
        "span",
        "state",
        "trace",
    )

    def __init__(
        self,
        trace: int,
        span: int,
        parent: int | None,
        state: bytes,
        began: float,
        content: int = 0,
    ) -> None:
        self.began = began
        self.trace = trace
        self.span = span
        self.parent = parent
        self.state = state
        self.content = content
        self.method = "POST"
        self.route = ""
        self.input: object = None
        """The client's messages, where content is recorded."""
        self.phases: list[TracedPhase] = []
        self.attempts: list[TracedAttempt] = []
        self.dropped = 0

    @property
    def trace_id(self) -> str:
        return f"{self.trace:032x}"

    def begin(self, phase: str, now: float) -> None:
        """`phase` begins; the one before it has ended."""
        self.end(now)
        self.phases.append(TracedPhase(phase, now))

    def end(self, now: float) -> None:
        """The phase that is under way ends."""
        if self.phases and self.phases[-1].ended is None:
            self.phases[-1].ended = now

    def begin_attempt(self, node: str, span: int, now: float, resumes: bool) -> None:
        """A node is to be asked; `span` is 64 random bits."""
        self.end(now)
        if len(self.attempts) == MOST_ATTEMPTS:
            self.attempts.pop()  # the first ones and the last one are kept
            self.dropped += 1
        self.attempts.append(TracedAttempt(node, span, now, resumes, AnswerWatch(self.content)))

    def sent(self, now: float) -> None:
        """The node is asked: for the first time in this attempt, or for what follows."""
        attempt = self.attempts[-1]
        if attempt.sent is None:
            attempt.sent = now

    def end_attempt(self, outcome: str, now: float) -> None:
        """It has ended; the first word on it holds."""
        if self.attempts and self.attempts[-1].outcome is None:
            self.attempts[-1].outcome = outcome
            self.attempts[-1].ended = now

    @property
    def watch(self) -> AnswerWatch | None:
        """Of the attempt that is under way."""
        return self.attempts[-1].watch if self.attempts else None

    def node_lines(self) -> bytes:
        """The trace context that the node of this attempt gets: its parent is the attempt's span."""
        return trace_lines(self.trace, self.attempts[-1].span, True, self.state)
