"""Writing a node's record to a real Redis, also one that does not answer."""

import asyncio

import pytest

from tests.support.redis import redis_server
from tests.support.registrations import record
from workers import registry
from workers.errors import ConfigError
from workers.registry import RedisRegistry, RegistryUnreachable

NODE = "http://10.0.0.1:8000"


async def test_a_redis_that_is_frozen_does_not_hold_up_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REDIS_SECONDS", 0.2)
    async with redis_server() as redis, RedisRegistry(redis.url, None) as records:
        await records.announce(record(NODE))
        redis.freeze()
        with pytest.raises(RegistryUnreachable, match=r"does not answer within 0\.2 s"):
            await records.announce(record(NODE))
        redis.thaw()
        await records.withdraw(record(NODE).node_id)
        assert redis.do("KEYS", "*") == []


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush/den@h",
        "redis://u:12/hush@h",
        "redis://:hush#den@h",
        "redis://:hu@sh@h",
        "redis://:[hush]@h",
        "redis://h:hush",
        "redis://h:0",
        "redis://h/hush",
        "hush",
    ],
)
async def test_a_url_that_is_none_is_told_without_a_part_of_it(url: str) -> None:
    with pytest.raises(ConfigError, match="expected redis://") as caught:
        RedisRegistry(url, None)
    assert "hush" not in str(caught.value) and "den@" not in str(caught.value)


async def test_a_heartbeat_that_is_cancelled_at_any_moment_ends() -> None:
    async with redis_server() as redis, RedisRegistry(redis.url, None) as records:
        for turns in range(40):
            beat = asyncio.create_task(records.announce(record(NODE)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if beat.cancel():
                await asyncio.wait([beat])
                assert beat.cancelled(), f"forgotten after {turns} turns of the loop"
