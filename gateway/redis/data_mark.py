"""The mark by which a gateway notices that Redis has lost its data: it came back empty, or with an older copy.

    the mark in Redis               what that means
    none, on the first look         a new Redis: it is marked
    the one that is remembered      nothing is lost
    none, or another one, later     Redis was emptied, restarted without persistence, replaced, or evicts keys

Every gateway marks what has no mark; so each of them notices, and logs it once. An older copy of the same data has the
same mark. So looks are counted beside it, and a count that has gone back by far tells of one.
"""

import asyncio
import secrets

import structlog

from gateway.redis.client import RedisClient, RedisUnavailable

log = structlog.get_logger("fleetgate.redis")

TOLD_SECONDS = 3600.0
"""For so long `fleetgate status` tells of it."""

_REMEDY = (
    "limits start full, tenants and keys that were created at run time are gone, and who was blocked is let in, unless "
    "they are restored: see docs/redis.md on persistence and eviction"
)

_UNDONE = (
    "it came back with an older copy of its data, and what was changed since then is undone: keys that were revoked or "
    "blocked work again, new ones are gone, usage and limits are those of then: see docs/redis.md on persistence"
)

TOLERATED = 5
"""Looks of each process that may be lost, 10 seconds: an append-only file lacks the last one or two after a crash."""


class DataMark:
    """One process's look at the mark."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis.reports
        self._key = f"{redis.schema.records}:mark"
        self._count_key = f"{redis.schema.records}:looks"
        self._known: bytes | None = None
        self._looks = 0
        self._processes = 1
        """That looked, as of the last look."""
        self._lost_at: float | None = None
        self._told = _REMEDY

    def trouble(self, now: float) -> str | None:
        """For an hour after data were lost: that they were, in words. `now` is in loop time."""
        if self._lost_at is None or now - self._lost_at > TOLD_SECONDS:
            return None
        return f"lost its data {(now - self._lost_at) / 60:.0f} min ago: {self._told}"

    async def check(self, processes: int = 1) -> bool:
        """Read the mark, or set one; whether data were lost since the last look. `processes` look, each as often.
        Nothing is known while Redis does not answer, or refuses."""
        try:
            mark = await self._redis.command("GET", self._key)
            if mark is None:
                await self._redis.command("SET", self._key, secrets.token_hex(8), "NX")
                mark = await self._redis.command("GET", self._key)  # another gateway's, where that was first
        except RedisUnavailable:
            return False
        lost = self._known not in (None, mark)
        self._known = mark
        if lost:
            self._looks = 0
        older = await self._has_gone_back(processes)
        if lost or older:
            self._lost_at = asyncio.get_running_loop().time()
            self._told = _UNDONE if older else _REMEDY
            log.error("redis_data_lost", remedy=self._told)
        return lost or older

    async def _has_gone_back(self, processes: int) -> bool:
        """Count this look; whether the count has gone back since the last one by more than a crash takes. Where Redis
        was away for long, all processes but this one are forgotten, and had looked before it went."""
        before = self._looks
        try:
            self._looks = int(await self._redis.command("HINCRBY", self._count_key, "n", 1))
        except RedisUnavailable:
            return False
        most, self._processes = max(processes, self._processes), processes
        return self._looks <= before - TOLERATED * most
