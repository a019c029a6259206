"""What requests take: planned before the work, settled after it, and how good the estimates are.

What a request has used in the end is `charge`'s to say; here are the ratios that it estimates by where no node told.
Prompts that nobody counts are estimated by their text's bytes over the model's bytes per token. Each ratio is one of
two exponentially weighted sums, so that long requests count for more than short ones.

One tenant's data moves nobody else's meters: each tenant has its own for each model. A new one begins with the median
of what the model's tenants have shown, where there are enough of them that no single one moves it; else with the
default. Each ratio stays within bounds, and is taught by requests that can be compared (`comparable`).
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

from gateway.core.limits.comparable import SHORTEST, is_text
from gateway.core.limits.rules import NOTHING, Amounts
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.thinking.sizes import BYTES_PER_TOKEN
from gateway.core.usage.cost import Price, cost_of_tokens
from gateway.core.usage.token_usage import ObservedWork, Usage

MEMORY: Final = 0.98
"""What is left of an old request's weight after each new one: fifty requests count, the last ones most."""

PER_SECOND = 40.0
"""Output tokens a second of one answer, where nothing is known."""

ASSUMED_OUTPUT = 4096
"""Tokens of an answer that nobody bounded, where the config does not say otherwise."""

STEADY: Final = 16
"""Events, or tokens, from which a request shows a pace."""


class Band(NamedTuple):
    """Where a ratio begins, and what is believed of it at the least and the most."""

    first: float
    least: float
    most: float


BYTES = Band(BYTES_PER_TOKEN, 1.0, 16.0)
"""Bytes of a prompt's text per token: from one for each byte to words of a vocabulary as large as any."""

EVENTS = Band(1.0, 1.0, 32.0)
"""Tokens per event of a stream."""

PACE = Band(PER_SECOND, 1.0, 2000.0)
"""Output tokens a second of one answer."""

MANY: Final = 64
"""Requests after which a meter looks at the prompt of every eighth only: to look costs a microsecond, and more where a
conversation is long."""


class Ratio:
    """`above` over `below`, both weighted sums, kept within `band`; begins as one request's worth of `first`."""

    __slots__ = ("_above", "_band", "_below", "taught")

    def __init__(self, band: Band, first: float) -> None:
        self._band = band
        self._above = first
        self._below = 1.0
        self.taught = 0
        """By how many requests."""

    def learn(self, above: float, below: float) -> None:
        least, most = below * self._band.least, below * self._band.most
        self._above = self._above * MEMORY + (least if above < least else most if above > most else above)
        self._below = self._below * MEMORY + below
        self.taught += 1

    @property
    def value(self) -> float:
        return min(max(self._above / self._below, self._band.least), self._band.most)


class Meter:
    """What is known of one model's work for one tenant."""

    __slots__ = ("_prompts", "bytes_per_token", "tokens_per_event", "tokens_per_second")

    def __init__(
        self, bytes_per_token: float = BYTES.first, tokens_per_event: float = 1.0, tokens_per_second: float = PER_SECOND
    ) -> None:
        """The figures to begin with."""
        self.bytes_per_token = Ratio(BYTES, bytes_per_token)
        self.tokens_per_event = Ratio(EVENTS, tokens_per_event)
        self.tokens_per_second = Ratio(PACE, tokens_per_second)
        """Of one answer, while it comes."""
        self._prompts = 0

    def learn(self, plan: Plan, planned: Amounts, work: ObservedWork, usage: Usage) -> None:
        """Take in a request that ended well."""
        if planned.input and usage.input >= SHORTEST and not plan.counted and self._looks_at(plan):
            # By the ratio that it was planned by: others have taught since.
            self.bytes_per_token.learn(planned.input * plan.bytes_per_token, usage.input)
        if not usage.output:
            return
        if work.events >= STEADY and usage.output >= work.events:
            self.tokens_per_event.learn(usage.output, work.events)
        seconds = (work.flowed if work.events else work.asked) - work.paused
        if seconds > 0 and not work.paused and usage.output >= STEADY and plan.sequences == 1:
            # Of several answers a node may make fewer than were asked for, and each would seem slow.
            self.tokens_per_second.learn(usage.output, seconds)

    def _looks_at(self, plan: Plan) -> bool:
        self._prompts += 1
        return (self._prompts <= MANY or self._prompts % 8 == 0) and is_text(plan.ask.body)


def plan_amounts(plan: Plan, meter: Meter, assumed_output: int) -> Amounts:
    """What `plan` is expected to take, its cost aside: the whole of the output that it grants, thinking included.

    `assumed_output`: tokens of an answer that nobody bounded.
    """
    dialect = plan.dialect
    if plan.model is None:  # it asks for what was made before
        return Amounts()
    reads = plan.counted or plan.ask.input_tokens(meter.bytes_per_token.value)
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


def amounts_used(event: RequestStats, planned: Amounts) -> Amounts:
    """What a request has used, its cost aside."""
    usage = event.usage
    if usage is not None:
        return Amounts(1, usage.input, usage.output, _thinking(usage, planned))
    served = event.attempts > 0 or event.served_here
    return Amounts() if served and event.status < 500 else NOTHING


def _thinking(usage: Usage, planned: Amounts) -> int:
    """Thinking tokens: as reported, else all that could have been."""
    return min(usage.output, planned.thinking) if usage.reasoning is None else usage.reasoning


class Meters:
    """A meter for each tenant and model of late, at most `limit` of them, and the models' prices."""

    def __init__(self, prices: Mapping[str, Price] | None = None, limit: int = 4096) -> None:
        self.prices: Mapping[str, Price] = prices or {}
        self._meters: OrderedDict[tuple[str, str], Meter] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, tenant: str, model: str) -> Meter:
        """That of `tenant` for `model`, names that were checked before. The one that was asked for longest ago goes."""
        name = (tenant, model)
        meter = self._meters.get(name)
        if meter is not None:
            self._meters.move_to_end(name)
            return meter
        known = [self._meters[of] for of in islice(reversed(self._meters), LATEST) if of[1] == model]
        meter = self._meters[name] = Meter(
            _median([each.bytes_per_token for each in known], BYTES),
            _median([each.tokens_per_event for each in known], EVENTS),
            _median([each.tokens_per_second for each in known], PACE),
        )
        if len(self._meters) > self._limit:
            self._meters.popitem(last=False)
        return meter


LATEST = 256
"""Meters that are looked at for a new one's beginning, for what looking costs."""

TENANTS = 3
"""That have to have taught a ratio before others begin with it: of three, one alone does not move the middle one."""

LESSONS = 16
"""Requests after which a tenant has taught it."""


def _median(ratios: list[Ratio], band: Band) -> float:
    values = sorted(ratio.value for ratio in ratios if ratio.taught >= LESSONS)
    return values[len(values) // 2] if len(values) >= TENANTS else band.first
