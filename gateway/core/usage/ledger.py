"""What is written down of a request, and the sums of many: plain functions from facts to numbers.

Sums are kept per hour and per day (UTC: whole hours and days since 1970), tenant, model and key. They are sums of
integers, so that it does not matter in which order, or how often split, they are added up.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.cost import Price, cost_of
from gateway.core.usage.token_usage import Usage

HOUR = 3600
DAY = 86_400
NONE = "-"
"""Where a request had no model (it could not be understood) or no key (none was needed)."""
_UNUSED = Usage()


class UsageSums(NamedTuple):
    """Of a number of requests; tokens as they were charged, `cost` in nano-dollars.

    `errors` are requests that did not end well. `wasted` are tokens that nodes made and nobody got; they are in no
    other sum.
    """

    requests: int = 0
    errors: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning_tokens: int = 0
    wasted: int = 0
    cost: int = 0

    def plus(self, other: "UsageSums") -> "UsageSums":
        return UsageSums(*map(sum, zip(self, other, strict=True)))


_STORED = {"reasoning_tokens": "thinking"}
"""Sums that are kept under an old name: older gateways on the same Redis read and add to the same ones."""

_MEASURES = {name: name for name in UsageSums._fields} | {stored: name for name, stored in _STORED.items()}


class UsageBucket(NamedTuple):
    """Whose sums, and of when: `size` is `HOUR` or `DAY`, `number` counts them since 1970."""

    size: int
    number: int
    tenant: str


class UsagePart(NamedTuple):
    """What a bucket is divided into."""

    model: str
    key: str


def cost_of_request(event: RequestStats, prices: Mapping[str, Price]) -> int:
    """In nano-dollars; 0 where the model has no price or nothing was used."""
    price = prices.get(event.model or NONE)
    return 0 if price is None or event.usage is None or not event.computed else cost_of(event.usage, price)


def record_of(event: RequestStats, cost: int) -> dict[str, Any]:
    """One request as it is kept; `cost` in nano-dollars. Times are in seconds, `at` since 1970, `cost_usd` in US
    dollars."""
    usage = event.usage or _UNUSED
    return {
        "at": round(event.at, 3),
        "request_id": event.request_id,
        "tenant": event.tenant,
        "key": event.key,
        "model": event.model,
        "node": event.node,
        "dialect": event.dialect,
        "stream": event.stream,
        "status": event.status,
        "ending": event.ending,
        "attempts": event.attempts,
        "input": usage.input,
        "cached": usage.cached,
        "output": usage.output,
        "reasoning_tokens": usage.reasoning,
        "thinking": usage.reasoning,  # deprecated name of the same
        "thinking_asked": event.thinking_asked,
        "thinking_budget": event.thinking_budget,
        "wasted": event.wasted + event.lost,
        "estimated": event.estimated,
        "cost_usd": cost / 1e9,
        "ttft": None if event.ttft is None else round(event.ttft, 4),
        "duration": round(event.duration, 4),
    }


def fold(events: Iterable[tuple[RequestStats, int]], into: dict[UsageBucket, dict[UsagePart, UsageSums]]) -> None:
    """Add events, each with its cost, to the sums of their hours and days.

    Only requests of a tenant count: strangers have no sums.
    """
    hours: dict[tuple[int, str, str, str], list[int]] = {}
    for event, cost in events:
        if event.tenant is None:
            continue
        place = (int(event.at // HOUR), event.tenant, event.model or NONE, event.key or NONE)
        sums = hours.get(place)
        if sums is None:
            sums = hours[place] = [0] * len(UsageSums._fields)
        usage = event.usage or _UNUSED
        sums[0] += 1
        sums[1] += event.ending != "ok"
        sums[2] += usage.input
        sums[3] += usage.cached or 0
        sums[4] += usage.output
        sums[5] += usage.reasoning or 0
        sums[6] += event.wasted + event.lost
        sums[7] += cost
    for (hour, tenant, model, key), found in hours.items():
        sums_of_hour, part = UsageSums(*found), UsagePart(model, key)
        for bucket in (UsageBucket(HOUR, hour, tenant), UsageBucket(DAY, hour * HOUR // DAY, tenant)):
            parts = into.setdefault(bucket, {})
            parts[part] = parts.get(part, UsageSums()).plus(sums_of_hour)


def field_of(part: UsagePart, measure: str) -> str:
    """The name of a sum inside its bucket; names of keys have no spaces; those of models may."""
    return f"{part.model} {part.key} {_STORED.get(measure, measure)}"


def parts_of(fields: Mapping[str, int]) -> dict[UsagePart, UsageSums]:
    """A bucket as it is kept, read back. Fields that this version does not know are left out."""
    found: dict[UsagePart, dict[str, int]] = {}
    for name, value in fields.items():
        *part, stored = name.rsplit(" ", 2)
        measure = _MEASURES.get(stored)
        if len(part) == 2 and measure is not None:
            sums = found.setdefault(UsagePart(*part), {})
            sums[measure] = sums.get(measure, 0) + value
    return {part: UsageSums(**sums) for part, sums in found.items()}
