"""When keys were last used: an hour for each key in Redis, for administrators."""

import time
from collections.abc import Container

from gateway.redis.client import RedisClient, RedisUnavailable

FLUSH_SECONDS = 30.0
_CHUNK = 200
_HOUR = 3600


class KeyUsage:
    """Keys that were used and are to be written. A key is written once an hour at the most."""

    def __init__(self, redis: RedisClient, hash: str, cached: Container[bytes], bound: int) -> None:
        """`hash`: the key in Redis. Only `cached` keys are written, so that a revoked one does not come back. `bound`:
        how many keys are remembered as written."""
        self._redis = redis
        self._hash = hash
        self._cached = cached
        self._bound = bound
        self._used: set[bytes] = set()
        self._written: dict[bytes, int] = {}
        self._flushed = float("-inf")

    def add(self, name: bytes) -> None:
        """A key was used; `name` is its selector."""
        self._used.add(name)

    async def flush_if_due(self, now: float) -> None:
        """Write what is to be written, every `FLUSH_SECONDS`. `now` in monotonic seconds."""
        if now - self._flushed > FLUSH_SECONDS:
            self._flushed = now
            await self.flush()

    async def flush(self) -> None:
        """Write what is to be written. What Redis does not accept stays."""
        hour = int(time.time()) // _HOUR * _HOUR
        used, self._used = self._used, set()
        fresh = [name for name in used if self._written.get(name) != hour and name in self._cached]
        for start in range(0, len(fresh), _CHUNK):
            chunk = fresh[start : start + _CHUNK]
            pairs = [part for name in chunk for part in ("key_" + name.hex(), hour)]
            try:
                await self._redis.command("HSET", self._hash, *pairs)
            except BaseException as error:  # also where this is cancelled: `stop` writes them then
                self._used.update(fresh[start:])
                if isinstance(error, RedisUnavailable):
                    return
                raise
            self._written.update(dict.fromkeys(chunk, hour))
        if len(self._written) > self._bound:
            self._written.clear()
