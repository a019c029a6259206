"""Blocks: tenants and keys that an administrator has shut out at once, those of the config file too.

    fg1:{access}:blocked   hash: tenant:NAME or key:ID -> {"who": ..., "at": s, "reason": ...}

Every process reads the hash once a second. While Redis does not answer, what was read last holds. Requests that are
under way go on.
"""

import asyncio
import time
from typing import NamedTuple

import orjson
import structlog

from gateway.access.records import AccessKeys
from gateway.core.access.tenants import Identity
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.access")

POLL_SECONDS = 1.0


class Block(NamedTuple):
    """`subject`: tenant:NAME or key:ID. `at` in seconds since 1970."""

    subject: str
    who: str
    at: float
    reason: str


class Blocks:
    """What is blocked, as this process read it last."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._key = AccessKeys.below(redis.schema.records).blocked
        self._changes = 0
        self._task: asyncio.Task[None] | None = None
        self.subjects: frozenset[str] = frozenset()

    def bars(self, who: Identity) -> bool:
        """Whether its tenant or its key is blocked."""
        return f"tenant:{who.tenant.name}" in self.subjects or f"key:{who.key}" in self.subjects

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="blocks")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def all(self) -> list[Block]:
        """All of them, by subject. Raises `RedisUnavailable`."""
        found = pairs_of(await self._redis.reports.command("HGETALL", self._key))
        return sorted(_read(subject.decode(errors="replace"), raw) for subject, raw in found.items())

    async def add(self, who: str, subject: str, reason: str, at: float | None = None) -> None:
        """Block `subject`, since `at` (now); a second time changes the reason. Raises `RedisUnavailable`."""
        record = orjson.dumps({"who": who, "at": time.time() if at is None else at, "reason": reason})
        await self._redis.reports.command("HSET", self._key, subject, record)
        self._changes += 1
        self.subjects |= {subject}

    def learn(self, subject: str) -> None:
        """`subject` was found blocked in Redis."""
        if subject not in self.subjects:
            self._changes += 1
            self.subjects |= {subject}

    async def remove(self, subject: str) -> bool:
        """Unblock `subject`; whether it was blocked. Raises `RedisUnavailable`."""
        removed = await self._redis.reports.command("HDEL", self._key, subject)
        self._changes += 1
        self.subjects -= {subject}
        return bool(removed)

    async def refresh(self) -> None:
        """Read what is blocked. Raises `RedisUnavailable`. What was read before a change of this process is dropped."""
        changes = self._changes
        found = pairs_of(await self._redis.reports.command("HGETALL", self._key))
        if changes == self._changes:
            self.subjects = frozenset(subject.decode(errors="replace") for subject in found)

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
            except RedisUnavailable:
                pass  # what was read last holds
            except Exception:
                log.exception("block_refresh_failed")
            await asyncio.sleep(POLL_SECONDS)


def _read(subject: str, raw: bytes) -> Block:
    """What another version wrote in another form blocks all the same."""
    try:
        record = orjson.loads(raw)
        return Block(subject, str(record["who"]), float(record["at"]), str(record["reason"]))
    except (ValueError, KeyError, TypeError):
        return Block(subject, "", 0.0, "")
