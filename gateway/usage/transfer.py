"""Moves usage sums out of one Redis and into another, a page at a time, over the connection of reports.

Sums are written as they were, not added, so that an import can be repeated. The days of a tenant are looked for first:
an hour has sums only if its day has some.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.fleet.model_cards import MODEL_ID
from gateway.core.usage.ledger import DAY, HOUR, UsageBucket, UsagePart, UsageSums, field_of
from gateway.redis.client import RedisClient, Script
from gateway.redis.replies import integers
from gateway.usage.ledger import UsageKeys, UsageRetention
from gateway.usage.report import UsageReport

_LUA = Path(__file__).parent / "lua"
_SIZES = {"hour": HOUR, "day": DAY}
LOOKED_FOR = 50
"""Buckets in one look. Redis serves nobody else during one, for about a millisecond."""


MOST = 2**60
"""Of a sum: Redis refuses to add to one that would pass 2^63, and with it the usage of all that comes."""


def _numbers_shape(reply: Any, command: Sequence[Any]) -> bool:
    return type(reply) is list and set(map(type, reply)) <= {int}


FOUND = Script.read(_LUA / "found.lua", fits=_numbers_shape)
SET_SUMS = Script.read(_LUA / "set_sums.lua", fits=integers(4))


class UsageChanges(NamedTuple):
    """Sums of one model and key in one hour or day each: `kept` differ from the file's, and were left. `expired` are of
    a time that is not kept any more."""

    added: int = 0
    changed: int = 0
    kept: int = 0
    unchanged: int = 0
    expired: int = 0


class UsageEntry(NamedTuple):
    """Sums of a part of a bucket, as an export has them."""

    bucket: UsageBucket
    part: UsagePart
    sums: UsageSums


class UsageTransfer:
    """Raises `RedisUnavailable` where Redis does not answer, `ScriptFailed` where it refuses."""

    def __init__(self, redis: RedisClient, kept: UsageRetention) -> None:
        self._redis = redis.reports
        self._keys = UsageKeys(f"{redis.schema.records}:{{usage}}:")
        self._report = UsageReport(redis)
        self._kept = kept

    async def entries(self, since: float | None) -> AsyncIterator[dict[str, Any]]:
        """All sums that are kept, of hours and days that end after `since`; by day, tenant and hour."""
        now = time.time()
        first = max(0, int((now - self._kept.days * DAY if since is None else since) // DAY))
        tenants = await self._report.tenants()
        days = (UsageBucket(DAY, number, tenant) for number in range(first, int(now // DAY) + 2) for tenant in tenants)
        oldest = max(now - (self._kept.hours + 1) * HOUR, since or 0.0)
        async for day in self._found(days):
            hours = range(day.number * DAY // HOUR, (day.number + 1) * DAY // HOUR)
            async for bucket in self._found(
                UsageBucket(HOUR, hour, day.tenant) for hour in hours if (hour + 1) * HOUR > oldest
            ):
                async for entry in self._entries_of(bucket):
                    yield entry
            async for entry in self._entries_of(day):
                yield entry

    async def write(self, entries: Sequence[UsageEntry], replace: bool, dry: bool) -> UsageChanges:
        """Write sums; those that differ only with `replace`. `dry`: say what would be done."""
        buckets: dict[UsageBucket, list[UsageEntry]] = {}
        for entry in entries:
            buckets.setdefault(entry.bucket, []).append(entry)
        total = UsageChanges()
        for bucket, found in buckets.items():
            done = await self._write_bucket(bucket, found, replace, dry)
            total = UsageChanges(*map(sum, zip(total, done, strict=True)))
            await asyncio.sleep(0)  # let requests run
        return total

    async def _write_bucket(
        self, bucket: UsageBucket, entries: Sequence[UsageEntry], replace: bool, dry: bool
    ) -> UsageChanges:
        kept = self._kept.hours * HOUR if bucket.size == HOUR else self._kept.days * DAY
        left = int((bucket.number + 1) * bucket.size + kept - time.time())
        if left <= 0:
            return UsageChanges(expired=len(entries))
        words: list[str | int] = [int(replace), int(not dry), bucket.tenant, left]
        for entry in entries:
            pairs = [(field_of(entry.part, measure), value) for measure, value in entry.sums._asdict().items()]
            words += [len(pairs), *(word for pair in pairs for word in pair)]
        counts = await self._redis.run(SET_SUMS, [self._keys.tenants, self._keys.bucket(bucket)], words)
        return UsageChanges(*counts)

    async def _found(self, buckets: Iterable[UsageBucket]) -> AsyncIterator[UsageBucket]:
        """Those that have sums."""
        left = iter(buckets)
        while page := list(islice(left, LOOKED_FOR)):
            for number in await self._redis.run(FOUND, [self._keys.bucket(bucket) for bucket in page]):
                yield page[number - 1]
            await asyncio.sleep(0)  # let requests run

    async def _entries_of(self, bucket: UsageBucket) -> AsyncIterator[dict[str, Any]]:
        per = "hour" if bucket.size == HOUR else "day"
        for row in await self._report.rows([bucket.tenant], bucket.number * bucket.size, *_end_of(bucket)):
            sums = {name: value for name, value in row.sums._asdict().items() if value}
            named = {"tenant": row.tenant, "model": row.part.model, "key": row.part.key}
            yield {"per": per, "at": row.at, **named, "sums": sums}


def _end_of(bucket: UsageBucket) -> tuple[int, int]:
    return (bucket.number + 1) * bucket.size, bucket.size


def read_entry(entry: Mapping[str, Any]) -> UsageEntry:
    """A line of an export. Raises ValueError."""
    size = _SIZES.get(str(entry.get("per")))
    at, sums = entry.get("at"), entry.get("sums")
    names = [entry.get(name) for name in ("tenant", "model", "key")]
    if size is None:
        raise ValueError("per: expected hour or day")
    if type(at) is not int or at < 0 or at % size:
        raise ValueError(f"at: expected the beginning of the {entry.get('per')}, in seconds since 1970")
    if at > time.time() + DAY:
        raise ValueError("at: is in the future")
    tenant, model, key = (name if isinstance(name, str) else "" for name in names)
    if not (_is_name(tenant) and _is_name(key)):
        raise ValueError("tenant and key: expected names without blanks")
    if MODEL_ID.fullmatch(model) is None:
        raise ValueError("model: expected the name of a model")
    if not isinstance(sums, dict) or not sums or not sums.keys() <= set(UsageSums._fields):
        raise ValueError(f"sums: expected some of {', '.join(UsageSums._fields)}")
    if any(type(value) is not int or not 0 <= value <= MOST for value in sums.values()):
        raise ValueError("sums: expected whole numbers from 0 to 2^60")
    return UsageEntry(UsageBucket(size, at // size, tenant), UsagePart(model, key), UsageSums(**sums))


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 256 and name.isprintable() and " " not in name
