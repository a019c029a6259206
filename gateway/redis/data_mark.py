"""The mark by which a gateway notices that Redis has lost its data: it came back empty, or with an older copy.

    the mark in Redis               what that means
    none, on the first look         a new Redis: it is marked
    the one that is remembered      nothing is lost
    none, or another one, later     Redis was emptied, restarted without persistence, replaced, or evicts keys

Every gateway marks what has no mark; so each of them notices, and logs it once.
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


class DataMark:
    """One process's look at the mark."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis.reports
        self._key = f"{redis.schema.records}:mark"
        self._known: bytes | None = None
        self._lost_at: float | None = None

    def trouble(self, now: float) -> str | None:
        """For an hour after data were lost: that they were, in words. `now` is in loop time."""
        if self._lost_at is None or now - self._lost_at > TOLD_SECONDS:
            return None
        return f"lost its data {(now - self._lost_at) / 60:.0f} min ago: {_REMEDY}"

    async def check(self) -> bool:
        """Read the mark, or set one; whether data were lost since the last look. Nothing is known while Redis does not
        answer, or refuses."""
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
            self._lost_at = asyncio.get_running_loop().time()
            log.error("redis_data_lost", remedy=_REMEDY)
        return lost
