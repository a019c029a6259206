"""What one request is charged: the one figure that limits, ledger, log and metrics are told.

A node that finished its answer says what was used. Otherwise it is estimated from what was seen of its work:

    how the request ended                               charged
    no node was reached, the node failed (5xx)          nothing
    refused, by the node or for the client (4xx)        a request
    well, and the node said what it used                that
    in the background: the node works on, come or go    as planned
    well, a plain answer that does not say              as planned
    nothing is generated (embeddings, tokenizers)       its prompt, by its size
    a stream: left, out of time, cut, too large         its events; and at the node's pace the time that may have had
                                                        events which nobody saw
    a plain answer: left, out of time, too large        the time that the node worked, at its pace

A node that hides thinking, or holds a tool call or what may become a stop text, sends no events meanwhile: then all of
the stream's time counts. Where an answer is bounded, no estimate goes beyond that.

A resumed answer had a known number of tokens when its node broke off. Those are charged once, whatever that node did
besides, and the estimate is of the last part alone. The prompt is charged once, though each node computes it.
"""

from typing import Final

from gateway.core.bodies import Body
from gateway.core.dialects.base import Ask
from gateway.core.dialects.counts import comes_at_once, tokens_an_event
from gateway.core.errors import NoSummary
from gateway.core.limits.metering import STEADY, Meter
from gateway.core.limits.rules import Amounts
from gateway.core.plan import Plan
from gateway.core.usage.token_usage import ObservedWork, Usage

OUT_OF_TIME = "deadline_exceeded"
"""How a request ends whose client gave the node too little time: it worked all the same."""

_WHOLE: Final = frozenset({"ok", NoSummary.default_code})
"""Endings of answers that were read to their end, so that what their node reported is all that was used."""

_WORKED: Final = frozenset({OUT_OF_TIME, "answer_too_large", "memory_full", NoSummary.default_code})
"""Errors that a client is told although a node did its work: what it asked for was too much for its time or for us, or
left no room for what it was for."""

LONG_STOP = 64
"""Characters of a stop text from which it counts: a node sends a text only once it cannot be the beginning of one."""

_UNSEEN_TOKENS = ("allowed_token_ids", "logit_bias")
"""What can make a model choose tokens that have no text, which are no events."""

_LEFT = frozenset({"client_gone", OUT_OF_TIME})
"""Endings before which a silent node may have worked; in others the silence was the node's fault."""


class RequestOutcome:
    """How a request ended: `status` is the HTTP status that its client saw, 0 where it left before one was sent."""

    __slots__ = ("ending", "failed")

    def __init__(self, ending: str, status: int, attempts: int) -> None:
        self.ending = ending
        self.failed = attempts == 0 or (status >= 400 and ending not in _WORKED)


class Charge:
    """`usage` is None where nothing is charged."""

    __slots__ = ("estimated", "usage")

    def __init__(self, usage: Usage | None, estimated: bool) -> None:
        self.usage = usage
        self.estimated = estimated

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Charge) and (self.usage, self.estimated) == (other.usage, other.estimated)

    __hash__ = None  # type: ignore[assignment]


NO_CHARGE = Charge(None, False)


def charge(
    end: RequestOutcome,
    reported: Usage | None,
    work: ObservedWork,
    plan: Plan,
    planned: Amounts,
    meter: Meter,
    resumed_at: int = 0,
) -> Charge:
    """What a request for `plan` has used; `reported` is what its node said last, of the whole answer. `work` is that on
    the answer's last part, behind the first `resumed_at` tokens."""
    if end.failed or plan.model is None:
        return NO_CHARGE
    if reported is not None and end.ending in _WHOLE:
        part = reported
        if resumed_at:
            made = max(0, reported.output - resumed_at)
            part = Usage(reported.input, made, reported.reasoning, reported.cached)
        meter.learn(plan, planned, work, part)
        return Charge(reported, False)
    known = reported or Usage()
    reads = known.input or planned.input
    if not plan.dialect.output_fields:
        return Charge(Usage(reads), True)
    as_planned = plan.ask.background or (end.ending == "ok" and not plan.ask.stream)
    writes = planned.output if as_planned else _made(end, work, plan, planned.output, meter, resumed_at)
    return Charge(Usage(reads, max(known.output, writes), known.reasoning, known.cached), True)


def _made(end: RequestOutcome, work: ObservedWork, plan: Plan, planned: int, meter: Meter, resumed_at: int) -> int:
    """Output tokens of all answers to it."""
    usual = meter.tokens_per_second.value * plan.sequences
    if work.events:
        seen = work.events * max(meter.tokens_per_event.value, float(tokens_an_event(plan.ask.body)))
        total = seen + _unseen(end, work, seen, usual, plan.ask)
    else:
        streams = resumed_at > 0 or (plan.ask.stream and not comes_at_once(plan.ask.body))
        seen, total = 0.0, 0.0 if streams else work.asked * usual
    if plan.output_tokens is not None:
        return min(resumed_at + round(total), planned)
    return max(resumed_at + round(seen), min(resumed_at + round(total), planned))


def _unseen(end: RequestOutcome, work: ObservedWork, seen: float, usual: float, ask: Ask) -> float:
    """Tokens that the node made besides those seen."""
    silent = work.silent if end.ending in _LEFT else 0.0
    if _veiled(ask):
        return max(0.0, (work.flowed + silent) * usual - seen)
    flowing = work.flowed - work.paused
    pace = seen / flowing if work.events >= STEADY and flowing > 0 else usual
    return (silent + work.paused) * pace


def _veiled(ask: Ask) -> bool:
    """Whether the node may make tokens without an event: of thinking that it hides, of tool calls, without text, or
    held for a larger event or since they may begin a stop text."""
    body = ask.body
    return (
        ask.tools
        or body.get("include_reasoning") is False
        or tokens_an_event(body) > 1
        or any(body.get(name) for name in _UNSEEN_TOKENS)
        or _longest_stop(body) >= LONG_STOP
    )


def _longest_stop(body: Body) -> int:
    """Characters."""
    longest = 0
    for name in ("stop", "stop_sequences"):
        stop = body.get(name)
        texts = stop if type(stop) is list else [stop]
        longest = max(longest, *[len(text) for text in texts if type(text) is str], 0)
    return longest
