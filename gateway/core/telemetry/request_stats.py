"""The facts of one request: noted while it is answered, and read at its end by log, metrics, usage ledger and limits.

A new field of the request log takes two edits: its declaration here, with `logged` as its metadata, and the line that
sets it where it becomes known. The log line has the fields in the order of their declarations.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from gateway.core.errors import ClientGone
from gateway.core.pressure.squeeze import ThinkingClaim
from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_trace import RequestTrace
from gateway.core.thinking.loops import LoopNote
from gateway.core.usage.cost import NANO
from gateway.core.usage.token_usage import ObservedWork, Usage

_LOG = "log"

Level = Literal["info", "warning", "error"]

CLIENT_LEFT = 499
"""The status of a request whose client left before one was sent: nginx's for the same."""

Render = Callable[[Any], object]
"""Makes the logged value of a field's value; None stays None."""


def logged(name: str = "", render: Render | None = None) -> dict[str, Any]:
    """Metadata of a field that is logged, under its own name or as `name`."""
    return {_LOG: {name: render}}


def logged_as(**parts: Render) -> dict[str, Any]:
    """Metadata of a field that is logged in several parts, each under its name."""
    return {_LOG: parts}


class LogTable(NamedTuple):
    """The request log: the `names` of its fields; `read` returns their values, of which some are rendered."""

    names: tuple[str, ...]
    blank: dict[str, object]
    """A line without values: to copy it is faster than to let a dictionary grow."""

    read: Callable[[Any], tuple[Any, ...]]
    renders: tuple[tuple[int, Render], ...]
    """Positions in `names`, each with its render."""

    def line(self, stats: "RequestStats") -> dict[str, object]:
        values = [*self.read(stats)]
        for at, render in self.renders:
            if values[at] is not None:
                values[at] = render(values[at])
        line = self.blank.copy()
        line.update(zip(self.names, values, strict=True))
        return line


@cache
def log_table(kind: type[Any]) -> LogTable:
    """The table of `RequestStats`, or of a subclass of it."""
    parts = [
        (each.name, name or each.name, render)
        for each in fields(kind)
        for name, render in each.metadata.get(_LOG, {}).items()
    ]
    attributes, names, renders = zip(*parts, strict=True)
    rendered = tuple((at, each) for at, each in enumerate(renders) if each)
    return LogTable(names, dict.fromkeys(names), attrgetter(*attributes), rendered)


def _milliseconds(seconds: float) -> float:
    """To the tenth; `round` to a digit takes four times as long."""
    return int(seconds * 10_000 + 0.5) / 10


LISTED = 10
"""Resumes that a line lists from the first on, and as many up to the last: a node that takes no connection may be asked
twice a second while an answer waits."""


def _resumes(notes: tuple[ResumeNote, ...]) -> list[dict[str, object]] | None:
    if not notes:
        return None
    if len(notes) > 2 * LISTED:
        notes = notes[:LISTED] + notes[-LISTED:]
    return [
        {
            "from": note.source,
            "to": note.target,
            "token": note.token,
            "pause_ms": None if note.pause is None else _milliseconds(note.pause),
            "recomputed_tokens": note.recomputed,
            "cause": note.cause,
            "outcome": note.outcome,
        }
        for note in notes
    ]


LONGEST_WORD = 200
"""Characters that are kept of what a client or a node said: thousands of these objects wait to be counted."""


_MODEL_NAME = re.compile(r"(?!fg-|sk-)[A-Za-z0-9][A-Za-z0-9._/@:-]{0,127}")
"""What may be the name of a model; anything else in its place may be a prompt or a key."""


def _model_asked(name: str | None) -> str | None:
    return name if name is None or _MODEL_NAME.fullmatch(name) else "..."


def _user_agent(value: bytes) -> str:
    return value.decode("latin-1")


def _dollars(nano: int) -> float:
    return nano / NANO


def _failed_attempts(failures: tuple[tuple[str, str], ...]) -> list[dict[str, str]] | None:
    if not failures:
        return None
    return [{"node": node, "outcome": outcome} for node, outcome in failures[:LISTED]]


def _loops(notes: tuple[LoopNote, ...]) -> list[dict[str, object]] | None:
    if not notes:
        return None
    return [{"part": note.part, "period": note.period, "token": note.token} for note in notes]


@dataclass(slots=True, eq=False)
class RequestStats:
    """One request. Times are seconds, unless a comment says otherwise."""

    request_id: str = field(default="", metadata=logged())
    dialect: str = field(default="", metadata=logged())
    tenant: str | None = field(default=None, metadata=logged())
    key: str | None = field(default=None, metadata=logged())
    model: str | None = field(default=None, metadata=logged())
    node: str | None = field(default=None, metadata=logged())
    """The node of the last attempt."""
    stream: bool = field(default=False, metadata=logged())
    status: int = field(default=0, metadata=logged())
    """The HTTP status that the client saw; 499 where it left before one was sent."""
    ending: str = field(default="ok", metadata=logged())
    """`ok`, the code of an error, or `client_gone`."""
    attempts: int = field(default=0, metadata=logged())
    """Tries on nodes; 0 where no node was reached."""
    request_bytes: int = field(default=0, metadata=logged())
    usage: Usage | None = field(
        default=None,
        metadata=logged_as(
            input_tokens=attrgetter("input"),
            cached_tokens=attrgetter("cached"),
            output_tokens=attrgetter("output"),
            reasoning_tokens=attrgetter("reasoning"),
        ),
    )
    """The tokens that the request is charged (see `core.usage.charge`); None where it is charged none."""
    estimated: bool = field(default=False, metadata=logged("usage_estimated"))
    """Whether `usage` is an estimate: the node did not report it."""
    thinking_asked: str | None = field(default=None, metadata=logged())
    """What the client asked of thinking, in the word of the answer's headers; None where it said nothing."""
    thinking_budget: int | None = field(default=None, metadata=logged())
    """The most tokens that were granted to thinking; None: no limit."""
    thinking_ended_early: bool = field(default=False, metadata=logged())
    """Whether pressure ended the thinking before its budget."""
    route: str | None = field(default=None, metadata=logged())
    """Why the node was chosen (`NodeScore.reason`); None where there was no choice."""
    expected_cached: int | None = field(default=None, metadata=logged("expected_cached_tokens"))
    """Prompt tokens that were expected in the node's cache."""
    service_class: str | None = field(default=None, metadata=logged())
    """The class in which it waits for a place."""
    queued: float | None = field(default=None, metadata=logged("queued_ms", _milliseconds))
    """For how long it waited for a place; None where it got one at once."""
    ttft: float | None = field(default=None, metadata=logged("ttft_ms", _milliseconds))
    """From the request to the first byte of its answer; None where no byte went out."""
    duration: float = field(default=0.0, metadata=logged("duration_ms", _milliseconds))
    resumes: tuple[ResumeNote, ...] = field(default=(), metadata=logged(render=_resumes))
    """How the answer went on after its nodes broke off, in order."""

    loops: tuple[LoopNote, ...] = field(default=(), metadata=logged(render=_loops))
    """The loops that were ended, in order."""

    address: str | None = field(default=None, metadata=logged())
    """Where its client is, as far as trusted proxies report it."""
    user_agent: bytes | None = field(default=None, metadata=logged(render=_user_agent))
    """What its client says that it is."""
    model_asked: str | None = field(default=None, metadata=logged(render=_model_asked))
    """The model in the client's own word: an alias, or one that there is not."""
    error: str | None = field(default=None, metadata=logged())
    """What was wrong, where that was the gateway's, its nodes' or a limit's doing; None where it is the client's."""
    limit: str | None = field(default=None, metadata=logged())
    """The limit that refused it (see `core.limits.words.limit_name`)."""
    failures: tuple[tuple[str, str], ...] = field(default=(), metadata=logged("failed_attempts", _failed_attempts))
    """Node and outcome of each attempt that failed (see `attempts.outcome`)."""
    cost: int | None = field(default=None, metadata=logged("cost_usd", _dollars))
    """What `usage` costs in nano-dollars; None where the model has no price."""
    max_tokens: int | None = field(default=None, metadata=logged())
    """The most tokens that were granted to the answer; None: no limit of the gateway's."""
    trace_id: str | None = field(default=None, metadata=logged())
    """Its trace, 32 hex digits, where it is recorded; None where none is."""
    stored: str | None = field(default=None, metadata=logged())
    """What became of a response that the gateway was to keep (`responses.turns.Outcome`); None where it was not."""

    # At its end, for metrics, ledger and limits

    served_here: bool = False
    """Whether the gateway answered it without a node, from what it keeps."""
    evicted: int = 0
    """Conversations of its tenant that were dropped to make room for its response."""

    at: float = 0.0
    """When it ended, since 1970."""
    retry_refused: bool = False
    """Whether one more attempt would have been made but for the retry budget."""
    wasted: int = 0
    """Tokens of thinking that a node made beyond its budget and nobody got."""
    overran: bool = False
    """Whether a node that was trusted to hold a thinking budget went far beyond it."""
    lost: int = 0
    """Tokens of failed attempts, as far as they can be estimated."""
    counted: int | None = None
    """The prompt's tokens as counted here; 0 where they had to be estimated, None where the model has no tokenizer."""
    computed: bool = True
    """False where no model worked for it, so that it has no price."""
    unauthenticated: bool = False
    """Whether its client had no valid key."""

    # While it is answered, for the relay and for `charge`

    trace: RequestTrace | None = None
    """Its times, where it is recorded; None for nearly all requests."""
    trace_lines: bytes = b""
    """The trace context that nodes get where it is not recorded, as header lines."""

    priority: int = 0
    """What a node is told that schedules by priority; lower goes first."""
    service_tier: str | None = None
    """What a plain answer says of its service tier; None where the client named none."""

    claim: ThinkingClaim | None = None
    """What pressure may do to it; None: nothing."""
    sent: bool = False
    """Whether a node was asked."""
    answered: bool = False
    """Whether the client has bytes of the current node's answer, so that another attempt would repeat them."""
    first_byte: float | None = None
    """When the first byte of the answer went out, by `time.perf_counter`."""
    reported: Usage | None = None
    """The tokens that the node reported."""
    node_failed: bool = False
    """Whether the answer ended with the node's own error."""
    lost_seconds: float = 0.0
    """Time for which nodes worked on plain answers that they did not finish."""
    lost_events: int = 0
    """Events of streams that nodes did not finish."""
    work: ObservedWork = field(default_factory=ObservedWork)
    """What was seen of the last node's work."""
    resumed_at: int = 0
    """Output tokens that the answer had when it was last resumed: `work` is what came after them."""

    @property
    def level(self) -> Level:
        """How much it concerns an operator: `error` where the gateway or its nodes failed the client, `warning` where
        the request was refused, `info` where it was served or its client left."""
        if self.ending == "ok" or self.status == CLIENT_LEFT or self.ending == ClientGone.default_code:
            return "info"
        return "warning" if 400 <= self.status < 500 else "error"

    @property
    def made(self) -> int:
        """Tokens of the answer so far, as far as they can be estimated."""
        return self.resumed_at + self.work.events

    def begin_again(self) -> None:
        """Another attempt follows: the answer so far is lost."""
        self.lost_events += self.made
        self.resumed_at = 0
        self.work = ObservedWork()
        self.reported = None
        self.thinking_ended_early = False

    def go_on(self, made: int) -> None:
        """The answer is resumed: its `made` tokens stay with the client, and nothing is lost.

        `reported` stays as well, as the least that was used, until the next part reports all of it.
        """
        self.resumed_at = made
        self.work = ObservedWork()
        self.node_failed = False
