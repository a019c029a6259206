"""Presence: the number of live gateway processes. Each process sends heartbeats to Redis, and counts recent ones."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.redis.client import RedisClient, RedisUnavailable, Script
from gateway.redis.data_mark import DataMark
from gateway.redis.replies import integer
from gateway.redis.script import COUNT_UNTIL

log = structlog.get_logger("fleetgate.presence")

BEAT = 2.0
FORGOTTEN = 10.0
"""Seconds between two heartbeats of a process, and after its last one until it does not count any more."""

_BEAT = Script.read(COUNT_UNTIL, Path(__file__).parent / "lua" / "beat.lua", fits=integer)


class Presence:
    """This process among the others. Without Redis, and before its first reply, it is the only one."""

    def __init__(self, redis: RedisClient | None) -> None:
        self.live = 1
        """Live gateway processes, this one included, as of the last heartbeat that Redis accepted."""
        self._redis = redis
        self._mark = DataMark(redis) if redis is not None else None
        self._name = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[int], None]] = []

    def on_change(self, listener: Callable[[int], None]) -> None:
        """Have `listener(live)` called whenever the number has changed. It must not wait."""
        self._listeners.append(listener)

    def trouble(self, now: float) -> str | None:
        """What the heartbeats have shown to be wrong with what Redis keeps. `now` is in loop time."""
        return None if self._mark is None else self._mark.trouble(now)

    async def start(self) -> None:
        if self._redis is not None:
            await self._beat(self._redis, FORGOTTEN)
            if self._mark is not None and self._redis.up:
                await self._mark.check(self.live)
            self._task = asyncio.create_task(self._run(self._redis), name="presence")

    async def stop(self) -> None:
        """Leave, so that the others do not count this process until its heartbeat expires."""
        if self._task is not None and self._redis is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._beat(self._redis, 0.0)

    async def _run(self, redis: RedisClient) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self._beat(redis, FORGOTTEN)
                if self._mark is not None:
                    await self._mark.check(self.live)
            except Exception:
                log.exception("presence_refresh_failed")

    async def _beat(self, redis: RedisClient, seconds: float) -> None:
        try:
            key = f"{redis.schema.records}:gateways"
            live = max(1, await redis.run(_BEAT, [key], [self._name, round(seconds * 1000)]))
        except RedisUnavailable:
            return  # the last count stays
        if live != self.live:
            self.live = live
            for listener in self._listeners:
                listener(live)
