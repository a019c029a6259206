"""Writes a node's record to Redis, and takes it out again."""

import asyncio
import re
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from workers.errors import ConfigError, MissingTool, WorkerError
from workers.registration import INDEX_KEY, KEY_PREFIX, TIME_TO_LIVE_SECONDS, Registration

if TYPE_CHECKING:
    from redis.asyncio.client import Pipeline

REDIS_SECONDS = 2.0
"""A heartbeat that hangs must not hold up the launcher; the next one comes anyway.

It is no `socket_timeout`: with one redis-py sends through `asyncio.wait_for`, and that of Python 3.11 now and then
forgets that it was cancelled (CPython issue 86296). The launcher would not end.
"""

LONGEST_REASON = 160


class RegistryUnreachable(WorkerError):
    """Redis did not take the record. The node serves on; the next heartbeat tries again."""


def _check(url: str) -> None:
    """A password with an unescaped / # or @ cuts a URL wrongly: what is said then must not hold a part of it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("redis", "rediss") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.netloc.count("@") > 1 or parts.fragment or not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ConfigError(
            "--redis: expected redis://[user:password@]host:6379[/0], or rediss:// for TLS; "
            "/ # ? @ % in a password are written %2F %23 %3F %40 %25"
        )


class Registry(Protocol):
    """Where records go. `announce` and `withdraw` raise RegistryUnreachable."""

    async def announce(self, record: Registration) -> None:
        """Write or renew the record."""

    async def withdraw(self, node_id: str) -> None:
        """Forget the node."""


class NoRegistry:
    """For nodes that a gateway knows from its own config: nothing is written."""

    async def announce(self, record: Registration) -> None:
        """Nothing to write to."""

    async def withdraw(self, node_id: str) -> None:
        """Nothing to take out."""


class RedisRegistry:
    """Records in Redis, written and indexed in one transaction."""

    def __init__(self, url: str, secret: str | None) -> None:
        """Connects lazily. Raises MissingTool without the redis library, ConfigError where `url` is none."""
        _check(url)
        try:
            from redis.asyncio import Redis
            from redis.exceptions import RedisError
        except ImportError as missing:
            raise MissingTool("--redis needs the redis library: pip install 'fleetgate[worker-tools]'") from missing
        try:
            self._redis = Redis.from_url(
                url, socket_timeout=None, socket_connect_timeout=REDIS_SECONDS, decode_responses=True
            )
            pool: Any = self._redis.connection_pool
            pool.make_connection()  # connects nowhere; refuses words behind the ? that it does not know
        except (TypeError, ValueError, RedisError) as error:
            raise ConfigError(f"--redis: what stands behind the ? is wrong: {error}") from error
        self._secret = secret

    async def announce(self, record: Registration) -> None:
        """Write the record with its time to live, and index it. Ids whose life has ended leave the index."""
        ends = record.heartbeat_at + TIME_TO_LIVE_SECONDS
        pipeline = self._redis.pipeline(transaction=True)
        key = KEY_PREFIX + record.node_id
        pipeline.set(key, record.wire(self._secret), px=int(TIME_TO_LIVE_SECONDS * 1000))
        pipeline.zadd(INDEX_KEY, {record.node_id: ends})
        pipeline.zremrangebyscore(INDEX_KEY, "-inf", f"({record.heartbeat_at - TIME_TO_LIVE_SECONDS}")
        await self._execute(pipeline)

    async def withdraw(self, node_id: str) -> None:
        """Take record and index entry out."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.delete(KEY_PREFIX + node_id)
        pipeline.zrem(INDEX_KEY, node_id)
        await self._execute(pipeline)

    async def __aenter__(self) -> Self:
        """Usable as a context: closes its connections."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _execute(self, pipeline: "Pipeline") -> None:
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await pipeline.execute()
        except TimeoutError:
            raise RegistryUnreachable(f"Redis does not answer within {REDIS_SECONDS:g} s") from None
        except (RedisError, OSError, ValueError) as error:  # ValueError: a host name that is none
            told = str(error)[:LONGEST_REASON]  # Redis explains its protected mode in a thousand characters
            raise RegistryUnreachable(f"Redis refused the registration: {told}") from error
