"""Redis' clock goes back: it is set right, or a replica takes over whose clock is behind."""

import time
from typing import Any

from tests.support.gateways import eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import serve_fake

AHEAD = 3600_000
LIVES = 60_000
"""Milliseconds; no process counts longer after its last word."""


async def test_no_process_that_died_counts_until_the_clock_is_there_again() -> None:
    async with redis_server() as redis, serve_fake() as node:
        settings: dict[str, Any] = {"redis": redis.settings, "nodes": [{"url": node.url}]}
        async with running_gateway(**settings), running_gateway(**settings):

            def until() -> list[bytes]:
                """The sorted sets of processes by the time until which they count."""
                sets = [key for key in redis.do("KEYS", "fg1:*") if redis.do("TYPE", key) == b"zset"]
                return sorted(key for key in sets if key.endswith((b"gateways", b":until")))

            await eventually(lambda: len(until()) == 4)
            for key in until():
                redis.do("ZADD", key, time.time() * 1000 + AHEAD, "dead")

            def too_long() -> int:
                beyond = time.time() * 1000 + LIVES
                return sum(redis.do("ZCOUNT", key, beyond, "+inf") for key in until())

            assert too_long() == 4
            await eventually(lambda: too_long() == 0)
