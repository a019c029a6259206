"""The usage ledger: every request's record in a capped stream in Redis, and sums by the hour and the day.

    fg1:{usage}:records           stream of {"record": JSON}, the last ones
    fg1:{usage}:tenants           set of all tenants that have sums
    fg1:{usage}:h:NUMBER:TENANT   hash "model key measure" -> integer, one an hour (numbered since 1970), with a TTL
    fg1:{usage}:d:NUMBER:TENANT   the same, one a day
    fg1:{usage}:batch:ID          this batch has been written, so that sending it again changes nothing

Requests are gathered and written in batches. A batch that fails is sent again until Redis accepts it. Where Redis
accepts a part only, the rest is sent with the next batches, so that a key of another type holds up nothing else. While
Redis is down or refuses them, records wait, up to `MAX_WAITING`; beyond that the oldest count as dropped and are kept
in the sums alone. Sums wait without a bound, as long as the process lives.
"""

import asyncio
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.cost import Price
from gateway.core.usage.ledger import (
    DAY,
    HOUR,
    UsageBucket,
    UsagePart,
    UsageSums,
    cost_of_request,
    field_of,
    fold,
    record_of,
)
from gateway.redis.client import RedisClient, RedisUnavailable, Script, Value

log = structlog.get_logger("fleetgate.usage")


def _refused_shape(reply: Any, command: Sequence[Any]) -> bool:
    """The parts that were refused: numbers with commas between, and the reason; empty where there is none."""
    return (type(reply) is bytes and reply.partition(b" ")[0].replace(b",", b"0").isdigit()) or reply == b""


USAGE = Script.read(Path(__file__).parent / "lua" / "usage.lua", fits=_refused_shape)
FLUSH_SECONDS = 1.0
MAX_WAITING = 50_000
"""Records that may wait for Redis; about a kilobyte each."""

_BATCH = 200
"""Records in one call: Redis serves nobody else during one."""

_LAST_TRIES = 5
"""Flushes at the end of the process."""

_CALL = "usage in part"
"""The call by which a partly refused batch is listed in `RedisRefusals`."""


@dataclass(frozen=True, slots=True)
class UsageRetention:
    """How many single records are kept, and for how many hours and days the sums by the hour and by the day."""

    records: int
    hours: int
    days: int


@dataclass(frozen=True, slots=True)
class UsageKeys:
    """The names of the keys in Redis, all in one slot, so that a batch is one script."""

    base: str

    @property
    def records(self) -> str:
        return f"{self.base}records"

    @property
    def tenants(self) -> str:
        return f"{self.base}tenants"

    def bucket(self, bucket: UsageBucket) -> str:
        return f"{self.base}{'h' if bucket.size == HOUR else 'd'}:{bucket.number}:{bucket.tenant}"

    def mark(self, batch: str) -> str:
        return f"{self.base}batch:{batch}"


@dataclass(frozen=True, slots=True)
class _Batch:
    id: str
    records: list[bytes]
    sums: dict[UsageBucket, dict[UsagePart, UsageSums]]


class Ledger:
    """Gathers requests, and writes them every `FLUSH_SECONDS`."""

    def __init__(self, redis: RedisClient, kept: UsageRetention, prices: Mapping[str, Price]) -> None:
        self.prices = prices
        self.dropped = 0
        """Records that were given up; their sums were not."""
        self._redis = redis
        self._kept = kept
        self._keys = UsageKeys(f"{redis.schema.records}:{{usage}}:")
        self._waiting: deque[RequestStats] = deque()
        self._overflow: dict[UsageBucket, dict[UsagePart, UsageSums]] = {}
        self._refused: deque[bytes] = deque()
        self._batch: _Batch | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        batch = len(self._batch.records) if self._batch is not None else 0
        return len(self._waiting) + len(self._refused) + batch

    def request_ended(self, event: RequestStats) -> None:
        """An observer of requests. Requests without a tenant (a wrong key) are not written."""
        if event.tenant is None:
            return
        self._waiting.append(event)
        if len(self._waiting) > MAX_WAITING:
            fold(self._with_cost([self._waiting.popleft()]), self._overflow)
            self.dropped += 1

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="usage ledger")

    async def stop(self) -> None:
        """Write what waits. What Redis does not accept within some tries is lost and logged."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _ in range(_LAST_TRIES):
            if await self.flush():
                return
            await asyncio.sleep(FLUSH_SECONDS / 5)
        self.dropped += self.waiting
        log.error("usage_lost", records=self.waiting)

    async def flush(self) -> bool:
        """Write all that waits; False where some of it still waits."""
        records: list[bytes] = []
        sums: dict[UsageBucket, dict[UsagePart, UsageSums]] = {}
        try:
            while (batch := self._next_batch()) is not None:
                refused = await self._write(batch)
                if 0 in refused:
                    records += batch.records
                for number, (bucket, parts) in enumerate(batch.sums.items(), 1):
                    if number in refused:
                        _add(sums, bucket, parts)
                self._batch = None
        except RedisUnavailable:
            return False
        finally:
            self._requeue(records, sums)
        if records or sums:
            return False
        self._redis.refusals.answered(_CALL, self._keys.base)
        return True

    def _requeue(self, records: list[bytes], sums: dict[UsageBucket, dict[UsagePart, UsageSums]]) -> None:
        """Send what was refused with the next batches, within bounds."""
        for bucket, parts in sums.items():
            _add(self._overflow, bucket, parts)
        self._refused.extend(records)
        while len(self._refused) > MAX_WAITING:
            self._refused.popleft()
            self.dropped += 1

    def _next_batch(self) -> _Batch | None:
        """The batch that has failed before, or a new one of what waits."""
        if self._batch is None and (self._waiting or self._overflow or self._refused):
            before = [self._refused.popleft() for _ in range(min(_BATCH, len(self._refused)))]
            events = [self._waiting.popleft() for _ in range(min(_BATCH - len(before), len(self._waiting)))]
            sums, self._overflow = self._overflow, {}
            costly = self._with_cost(events)
            fold(costly, sums)
            records = [orjson.dumps(record_of(event, cost)) for event, cost in costly]
            self._batch = _Batch(os.urandom(12).hex(), before + records, sums)
        return self._batch

    def _with_cost(self, events: list[RequestStats]) -> list[tuple[RequestStats, int]]:
        return [(event, cost_of_request(event, self.prices)) for event in events]

    async def _write(self, batch: _Batch) -> set[int]:
        """Write a batch. Returns the parts that Redis refused: 0 for the records, 1 for the first of the sums."""
        names, kept = self._keys, self._kept
        keys = [names.records, names.tenants, names.mark(batch.id)]
        args: list[Value] = [kept.records, len(batch.records), *batch.records]
        for bucket, parts in batch.sums.items():
            keys.append(names.bucket(bucket))
            pairs = [
                (field_of(part, measure), value)
                for part, sums in parts.items()
                for measure, value in sums._asdict().items()
                if value
            ]
            ttl = kept.hours * HOUR if bucket.size == HOUR else kept.days * DAY
            args += [bucket.tenant, ttl, len(pairs), *(word for pair in pairs for word in pair)]
        refused: bytes = await self._redis.run(USAGE, keys, args)
        if not refused:
            return set()
        numbers, _, reason = refused.decode(errors="replace").partition(" ")
        self._redis.refusals.understand(_CALL, names.base, reason)
        return {int(number) for number in numbers.split(",")}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Exception:
                log.exception("usage_write_failed")


def _add(
    sums: dict[UsageBucket, dict[UsagePart, UsageSums]], bucket: UsageBucket, parts: Mapping[UsagePart, UsageSums]
) -> None:
    held = sums.setdefault(bucket, {})
    for part, more in parts.items():
        held[part] = held.get(part, UsageSums()).plus(more)
