"""What requests take: planned before the work, counted or estimated after it, and how good the estimates are.

A node that finished its answer says what was used. One that was cut off does not, so it is estimated: a stream by the
bytes that were passed on, over the bytes that a token of that model took in streams that ended well; a plain answer by
how long the node worked. Prompts that nobody counts are estimated by their text's bytes over the model's bytes per
token. Each of these ratios is one of two exponentially weighted sums, so that long requests count for more than short
ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.events import RequestEnded
from gateway.core.grants.sizes import BYTES_PER_TOKEN, estimate_input
from gateway.core.limits.cost import Price, cost_of_tokens
from gateway.core.limits.rules import NOTHING, Amounts
from gateway.core.plan import Plan
from gateway.core.usage import Usage

MEMORY = 0.98
"""What is left of an old request's weight after each new one: fifty requests count, the last ones most."""

STREAMED = 250.0
"""Bytes of one event with one token, as vLLM writes them in chat."""

PER_SECOND = 40.0
"""Output tokens a second of one request, where nothing is known."""


_OUT_OF_TIME = "deadline_exceeded"
"""How a request ends whose client gave the node too little time: it worked all the same."""


@dataclass(slots=True)
class Ratio:
    """`above` over `below`, both weighted sums; begins as one request's worth of `first`."""

    above: float
    below: float = 1.0

    def learn(self, above: float, below: float) -> None:
        self.above = self.above * MEMORY + above
        self.below = self.below * MEMORY + below

    @property
    def value(self) -> float:
        return self.above / self.below


@dataclass(slots=True)
class Meter:
    """What is known of one model."""

    bytes_per_token: Ratio = field(default_factory=lambda: Ratio(BYTES_PER_TOKEN))
    streamed_per_token: Ratio = field(default_factory=lambda: Ratio(STREAMED))
    tokens_per_second: Ratio = field(default_factory=lambda: Ratio(PER_SECOND))

    def learn(self, event: RequestEnded, planned: Amounts, passed: int, usage: Usage) -> None:
        """Take in a request that ended well: `passed` is what was passed on of its stream, in bytes."""
        if planned.input and usage.input and not event.counted:
            self.bytes_per_token.learn(planned.input * self.bytes_per_token.value, usage.input)
        if usage.output and event.stream and passed:
            self.streamed_per_token.learn(passed, usage.output)
        if usage.output and event.duration > 0:
            self.tokens_per_second.learn(usage.output, event.duration)


def plan_amounts(plan: Plan, meter: Meter, assumed_output: int) -> Amounts:
    """What `plan` is expected to take, its cost aside: the whole of the output that it grants, thinking included.

    `assumed_output`: tokens of an answer that nobody bounded.
    """
    dialect = plan.dialect
    if not dialect.computes or plan.model is None:  # it counts or splits tokens, or asks for what was made before
        return Amounts()
    reads = plan.counted or estimate_input(plan.ask.body, meter.bytes_per_token.value)
    if not dialect.output_fields:
        return Amounts(1, reads)
    choices = plan.ask.choices
    each = assumed_output if plan.max_tokens is None else plan.max_tokens
    budget = plan.thinking_budget
    thinking = each if budget is None else min(budget, each)
    return Amounts(1, reads, each * choices, thinking * choices)


def priced(amounts: Amounts, price: Price | None, cached: int | None = None) -> Amounts:
    """`amounts` with their cost; nothing costs anything where there is no price."""
    if price is None:
        return amounts
    requests, reads, writes, thinks, _ = amounts
    return Amounts(requests, reads, writes, thinks, cost_of_tokens(reads, cached or 0, writes, price))


def amounts_used(event: RequestEnded, planned: Amounts, passed: int, meter: Meter) -> Amounts:
    """What a request has used, its cost aside: exactly, where the node said so, else by the best estimate."""
    usage = event.usage
    if event.attempts == 0:
        return NOTHING
    if planned.input == 0:
        return NOTHING if event.status >= 500 else Amounts()
    if usage is not None and event.ending == "ok":
        meter.learn(event, planned, passed, usage)
        return Amounts(1, usage.input, usage.output, _thinking(usage, planned))
    if event.status >= 400 and event.ending != _OUT_OF_TIME:
        return NOTHING if event.status >= 500 else Amounts()
    if event.status == 200 and not event.stream and event.ending == "ok":
        return planned  # it does not say (a response in the background, say): what was planned stands
    output = round(passed / meter.streamed_per_token.value)
    if not passed:
        output = round(event.duration * meter.tokens_per_second.value)
    known = usage or Usage()
    seen = Usage(known.input or planned.input, max(known.output, min(output, planned.output)), known.reasoning)
    return Amounts(1, seen.input, seen.output, _thinking(seen, planned))


def _thinking(usage: Usage, planned: Amounts) -> int:
    """Thinking tokens: as reported, else all that could have been."""
    return min(usage.output, planned.thinking) if usage.reasoning is None else usage.reasoning


class Meters:
    """One meter for each model that was asked for, and the models' prices."""

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self.prices: Mapping[str, Price] = prices or {}
        self._meters: dict[str, Meter] = {}

    def of(self, model: str) -> Meter:
        """`model` is a name that was checked before, so there cannot be many."""
        meter = self._meters.get(model)
        if meter is None:
            meter = self._meters[model] = Meter()
        return meter
