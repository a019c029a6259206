"""Limits: what a tenant, one of its keys, or one of its models may take, and what a request takes of it.

Each limit is one of three things.

- **A bucket** (everything per minute): a token bucket with continuous refill. It holds `burst_seconds` worth of its
  rate, is full at first, and fills by the microsecond. A request takes what it is planned to use, gets back what it did
  not use, and owes what it used beyond: then the level is below zero, and nothing passes until that is refilled. In any
  window of W seconds what is taken, less what is given back, is at most rate * (burst_seconds + W) / 60. (Token
  bucket: RFC 2698 section 3.1, RFC 1633 section 3.1.1; equivalent to the GCRA of ITU-T I.371, as a level instead of
  a theoretical arrival time, so that a debt can be written down.)
- **A counter** (everything per day and per month): what was taken since the last UTC midnight, or since the first of
  the month, and never more than the limit. What comes back later than that is forgotten with the counter.
- **A count of leases** (concurrent requests): goes back down when a request ends, or when its lease runs out because
  its gateway died.

All arithmetic is in integers. A bucket's unit is a sixty-millionth of a token, so that a rate of N tokens a minute is
exactly N units a microsecond and nothing is ever rounded. Lua's numbers are exact up to 2**53, which bounds a bucket at
`MAX_BUCKET` tokens. Money is in nano-dollars (see `cost`).
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NamedTuple

UNIT = 60_000_000
"""Bucket units in one token (or request): a rate per minute is as many units per microsecond."""

MAX_BUCKET = 100_000_000
"""The most tokens that one bucket may hold: below 2**53 / UNIT, with room for debts."""

DAY = 86_400 * 1_000_000
"""Microseconds."""

SLOT_SECONDS = 1.0
"""What a client is told to wait for a free place among its concurrent requests: nobody knows when one ends."""

OUTAGE_SECONDS = 2.0
"""What it is told to wait where one gateway's share, while Redis does not answer, can never hold its request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be taken; None is not limited. Tokens per minute are input, output (thinking included), both, thinking.

    `burst_seconds`: how many seconds' worth the buckets hold.
    """

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    tokens_per_minute: int | None = None
    reasoning_tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    nanodollars_per_day: int | None = None
    nanodollars_per_month: int | None = None
    burst_seconds: int = 60


class Amounts(NamedTuple):
    """What a request takes: planned, or used. `thinking` is part of `output`; `cost` is in nano-dollars."""

    requests: int = 1
    input: int = 0
    output: int = 0
    thinking: int = 0
    cost: int = 0

    @property
    def by_measure(self) -> tuple[int, ...]:
        """In the order of `MEASURES`. A request takes one place among the concurrent ones, whatever else it uses."""
        requests, reads, writes, thinks, cost = self
        return requests, reads, writes, reads + writes, thinks, cost, 1


NOTHING = Amounts(requests=0)
"""What a request has used that reached no node."""


class LimitKind(StrEnum):
    """How a limit is kept; the values are what the scripts in Redis call it."""

    BUCKET = "b"
    DAY = "d"
    MONTH = "m"
    LEASES = "l"


class Measure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT = "input"
    OUTPUT = "output"
    TOKENS = "tokens"
    THINKING = "thinking"
    COST = "cost"
    PLACES = "places"


MEASURES = tuple(Measure)
"""In the order of `Amounts.by_measure`."""


_MEANING: dict[str, tuple[str, Measure, LimitKind]] = {
    "requests_per_minute": ("rpm", Measure.REQUESTS, LimitKind.BUCKET),
    "input_tokens_per_minute": ("ipm", Measure.INPUT, LimitKind.BUCKET),
    "output_tokens_per_minute": ("opm", Measure.OUTPUT, LimitKind.BUCKET),
    "tokens_per_minute": ("tpm", Measure.TOKENS, LimitKind.BUCKET),
    "reasoning_tokens_per_minute": ("hpm", Measure.THINKING, LimitKind.BUCKET),
    "concurrent_requests": ("live", Measure.PLACES, LimitKind.LEASES),
    "tokens_per_day": ("tpd", Measure.TOKENS, LimitKind.DAY),
    "nanodollars_per_day": ("cpd", Measure.COST, LimitKind.DAY),
    "nanodollars_per_month": ("cpm", Measure.COST, LimitKind.MONTH),
}
"""For each limit: its field in Redis, what it counts, how it is kept."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit in one scope.

    `scope` is `t` (the tenant), `k:KEY` or `m:MODEL`; `field` its name in the store, `name` the config's. `limit` is
    per minute, day or month, or a number of places; `capacity` is a bucket's size in units, else the limit again.
    """

    scope: str
    field: str
    name: str
    measure: Measure
    kind: LimitKind
    limit: int
    capacity: int

    @property
    def unit(self) -> int:
        """How many of its own units one request, token, nano-dollar or place takes."""
        return UNIT if self.kind is LimitKind.BUCKET else 1

    def whole(self, left: int) -> int:
        """`left` of the limit, in whole requests, tokens, nano-dollars or places; never below 0."""
        return max(0, left // self.unit)

    def wait(self, left: int, cost: int, now: int) -> float:
        """Seconds until `cost` fits, with `left` at `now` (microseconds since 1970) and nobody else taking any."""
        if cost > self.capacity:  # of a gateway's share, while Redis does not answer
            return OUTAGE_SECONDS
        match self.kind:
            case LimitKind.BUCKET:
                return -(-(cost - left) // self.limit) / 1e6
            case LimitKind.DAY:
                return (DAY - now % DAY) / 1e6
            case LimitKind.MONTH:
                return (month_end(now) - now) / 1e6
        return SLOT_SECONDS


Rules = tuple[Rule, ...]


class LimitResult(NamedTuple):
    """A store's answer: whether all was taken, the store's time (microseconds since 1970), and what is left of each
    rule in its own unit: after taking where it was granted, before where it was not."""

    granted: bool
    now: int
    left: tuple[int, ...]


def rules_of(limits: Limits, scope: str) -> Rules:
    """The rules that `limits` make in `scope`."""
    rules = []
    for item in fields(limits):
        limit = getattr(limits, item.name)
        if limit is None or item.name not in _MEANING:
            continue
        field, measure, kind = _MEANING[item.name]
        capacity = limit * limits.burst_seconds * 1_000_000 if kind is LimitKind.BUCKET else limit
        rules.append(Rule(scope, field, item.name, measure, kind, limit, capacity))
    return tuple(rules)


Weights = tuple[tuple[int, int], ...]
"""For each rule the index of what it counts in `Amounts.by_measure`, and how many of its units one of that takes."""


def weights_of(rules: Rules) -> Weights:
    """Worked out once for many requests."""
    return tuple((MEASURES.index(rule.measure), rule.unit) for rule in rules)


def costs_of(weights: Weights, amounts: Amounts) -> tuple[int, ...]:
    """What `amounts` take of each rule, in its own unit."""
    counts = amounts.by_measure
    return tuple([counts[measure] * unit for measure, unit in weights])


def share(rules: Rules, replicas: int) -> Rules:
    """The part of `rules` that one of `replicas` gateways enforces by itself; at least 1 of each.

    So together they let through at most max(limit, replicas).
    """
    return tuple(
        Rule(
            rule.scope,
            rule.field,
            rule.name,
            rule.measure,
            rule.kind,
            max(1, rule.limit // replicas),
            max(rule.unit, rule.capacity // replicas),
        )
        for rule in rules
    )


def civil_of(now: int) -> tuple[int, int, int]:
    """Year, month (January is 1) and day in UTC of `now` (microseconds since 1970).

    Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    era, day_of_era = divmod(now // DAY + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153  # March is 0
    year = era * 400 + year_of_era + (month >= 10)
    return year, (month + 2) % 12 + 1, day_of_year - (153 * month + 2) // 5 + 1


def month_of(now: int) -> int:
    """The UTC month of `now` as year * 12 + month, January being 0."""
    year, month, _ = civil_of(now)
    return year * 12 + month - 1


def month_end(now: int) -> int:
    """The first microsecond of the UTC month after that of `now`."""
    year, month = divmod(month_of(now) + 1, 12)
    year -= month < 2  # the inverse, days_from_civil: years begin in March
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month - 2) % 12) + 2) // 5
    days = era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468
    return days * DAY
