"""What requests take: planned before the work, settled after it, and how good the estimates are.

What a request has used in the end is `charge`'s to say; here are the ratios that it estimates by where no node told.
Prompts that nobody counts are estimated by their text's bytes over the model's bytes per token. Each ratio is one of
two exponentially weighted sums, so that long requests count for more than short ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.events import RequestEnded
from gateway.core.grants.sizes import BYTES_PER_TOKEN, estimate_input
from gateway.core.limits.cost import Price, cost_of_tokens
from gateway.core.limits.rules import NOTHING, Amounts
from gateway.core.plan import Plan
from gateway.core.usage import Usage, Work

MEMORY = 0.98
"""What is left of an old request's weight after each new one: fifty requests count, the last ones most."""

PER_SECOND = 40.0
"""Output tokens a second of one answer, where nothing is known."""

ASSUMED_OUTPUT = 4096
"""Tokens of an answer that nobody bounded, where the config does not say otherwise."""

STEADY = 16
"""Events, or tokens, from which a request shows a pace."""


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
    tokens_per_event: Ratio = field(default_factory=lambda: Ratio(1.0))
    tokens_per_second: Ratio = field(default_factory=lambda: Ratio(PER_SECOND))
    """Of one answer, while it comes."""

    def learn(self, plan: Plan, planned: Amounts, work: Work, usage: Usage) -> None:
        """Take in a request that ended well."""
        if planned.input and usage.input and not plan.counted:
            self.bytes_per_token.learn(planned.input * self.bytes_per_token.value, usage.input)
        if not usage.output:
            return
        if work.events >= STEADY and usage.output >= work.events:
            self.tokens_per_event.learn(usage.output, work.events)
        seconds = (work.flowed if work.events else work.asked) - work.paused
        if seconds > 0 and not work.paused and usage.output >= STEADY:
            self.tokens_per_second.learn(usage.output / plan.sequences, seconds)


def plan_amounts(plan: Plan, meter: Meter, assumed_output: int) -> Amounts:
    """What `plan` is expected to take, its cost aside: the whole of the output that it grants, thinking included.

    `assumed_output`: tokens of an answer that nobody bounded.
    """
    dialect = plan.dialect
    if plan.model is None:  # it asks for what was made before
        return Amounts()
    reads = plan.counted or estimate_input(plan.ask.body, meter.bytes_per_token.value)
    if not dialect.output_fields:
        return Amounts(1, reads)
    most = plan.output_tokens
    if most is None:
        most = max(assumed_output, plan.least) * plan.sequences
    budget = plan.thinking_budget
    return Amounts(1, reads, most, most if budget is None else min(budget * plan.sequences, most))


def priced(amounts: Amounts, price: Price | None, cached: int | None = None) -> Amounts:
    """`amounts` with their cost; nothing costs anything where there is no price."""
    if price is None:
        return amounts
    requests, reads, writes, thinks, _ = amounts
    return Amounts(requests, reads, writes, thinks, cost_of_tokens(reads, cached or 0, writes, price))


def amounts_used(event: RequestEnded, planned: Amounts) -> Amounts:
    """What a request has used, its cost aside."""
    usage = event.usage
    if usage is not None:
        return Amounts(1, usage.input, usage.output, _thinking(usage, planned))
    return NOTHING if event.attempts == 0 or event.status >= 500 else Amounts()


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
