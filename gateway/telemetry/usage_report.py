"""Reading the usage ledger back: sums over a span of time, by hour or day, tenant, model and key."""

from collections.abc import Iterable
from typing import NamedTuple, Self

from gateway.core.limits.ledger import Bucket, Part, Sums, parts_of
from gateway.shared.link import Link
from gateway.telemetry.ledger import UsagePlaces

_AT_ONCE = 100
"""Buckets that are asked for together."""


class Row(NamedTuple):
    """Sums of one tenant's model and key in the hour or day that begins at `at` (seconds since 1970)."""

    at: int
    tenant: str
    part: Part
    sums: Sums

    @classmethod
    def empty(cls) -> Self:
        return cls(0, "", Part("", ""), Sums())


class UsageReport:
    """Raises `Unavailable` where Redis does not answer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._places = UsagePlaces(f"{link.schema.records}:{{usage}}:")

    async def tenants(self) -> list[str]:
        """All tenants that ever had sums."""
        return sorted(name.decode() for name in await self._link.command("SMEMBERS", self._places.tenants))

    async def rows(self, tenants: Iterable[str], since: float, until: float, size: int) -> list[Row]:
        """All sums of the hours or days (`size`: `HOUR` or `DAY`) that the span from `since` to `until` touches."""
        buckets = [
            Bucket(size, number, tenant)
            for number in range(int(since // size), int(-(-until // size)))
            for tenant in tenants
        ]
        rows: list[Row] = []
        for start in range(0, len(buckets), _AT_ONCE):
            chunk = buckets[start : start + _AT_ONCE]
            asked = [self._link.submit(("HGETALL", self._places.bucket(bucket))) for bucket in chunk]
            for bucket, answer in zip(chunk, asked, strict=True):
                rows += [
                    Row(bucket.number * size, bucket.tenant, part, sums)
                    for part, sums in parts_of(_integers(await answer)).items()
                ]
        return rows


def grouped(rows: Iterable[Row], by: frozenset[str]) -> list[Row]:
    """Rows added up over what is not in `by` (time, tenant, model, key), which is then left empty (time: 0)."""
    sums: dict[tuple[int, str, Part], Sums] = {}
    for row in rows:
        part = Part(row.part.model if "model" in by else "", row.part.key if "key" in by else "")
        name = (row.at if "time" in by else 0, row.tenant if "tenant" in by else "", part)
        sums[name] = sums.get(name, Sums()).plus(row.sums)
    return [Row(*name, total) for name, total in sorted(sums.items())]


def _integers(answer: object) -> dict[str, int]:
    """A hash as redis-py gives it, or as the plain list that a pipeline may leave it."""
    if isinstance(answer, list):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    assert isinstance(answer, dict)
    return {name.decode(): int(value) for name, value in answer.items() if value.lstrip(b"-").isdigit()}
