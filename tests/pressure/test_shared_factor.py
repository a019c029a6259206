"""One factor for all gateways: who makes a step, what becomes of it when Redis or a gateway goes, and odd contents."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import pytest

from gateway.core.pressure.factor import FRESH, FactorRules, FactorState, read, step, write
from gateway.pressure.shared_factor import SHARE, SharedFactor
from gateway.redis.client import RedisClient, RedisSettings, RedisUnavailable
from tests.support.gateways import eventually
from tests.support.redis import Kind, RedisServer, redis_server

RULES = FactorRules(begin=5.0, end=1.0, full=30.0, hold=0.0, floor=0.25, shrink=1.0, grow=1.0)
KEY = "fg1:{pressure}:m"
LOW = FactorState(0.5, -1, 10.0, 0.0)


@contextlib.asynccontextmanager
async def linked(kind: Kind = "valkey9") -> AsyncIterator[tuple[RedisServer, RedisClient]]:
    async with redis_server(kind) as redis:
        link = RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0))
        await link.start()
        try:
            yield redis, link
        finally:
            await link.stop()


def due(redis: RedisServer) -> None:
    """Have the last step be two seconds old."""
    redis.do("HINCRBY", KEY, "at", -2000)


def field(redis: RedisServer, name: str) -> bytes:
    found: bytes = redis.do("HGET", KEY, name)
    return found


@pytest.mark.parametrize("kind", ["valkey9", "redis7"])
async def test_one_gateway_makes_a_step_and_all_follow(kind: Kind) -> None:
    async with linked(kind) as (redis, link):
        one, other, idle = (SharedFactor("m", link) for _ in range(3))
        await one.refresh(RULES, 0.0, 0.0)
        due(redis)
        await one.refresh(RULES, 17.5, 1.0)
        assert one.state.factor == 0.625 and field(redis, "step") == b"2"
        await asyncio.gather(other.refresh(RULES, 0.0, 50.0), idle.refresh(RULES, 0.0, 90.0))
        assert other.state == idle.state == one.state, "the step is not due again"
        assert field(redis, "step") == b"2" and 0 < redis.do("PTTL", KEY) <= 600_000


async def test_of_many_at_once_one_writes() -> None:
    async with linked() as (redis, link):
        gateways = [SharedFactor("m", link) for _ in range(8)]
        for number in range(1, 5):
            await asyncio.gather(*(each.refresh(RULES, 100.0, float(number)) for each in gateways))
            assert field(redis, "step") == str(number).encode()
            await asyncio.gather(*(each.refresh(RULES, 100.0, float(number)) for each in gateways))
            assert {each.state for each in gateways} == {read(field(redis, "state"))}
            due(redis)


async def test_the_longest_wait_counts_whoever_makes_the_step() -> None:
    async with linked() as (redis, link):
        busy, calm = SharedFactor("m", link), SharedFactor("m", link)
        await calm.refresh(RULES, 0.0, 0.0)
        await busy.refresh(RULES, math.inf, 0.0)
        due(redis)
        await calm.refresh(RULES, 0.0, 1.0)
        assert calm.state.factor == RULES.floor
        due(redis)
        await calm.refresh(RULES, 29.0, 2.0)
        assert field(redis, "wait") == b"0", "that wait counted for one step: its gateway may be dead"


async def test_a_step_that_comes_late_changes_nothing() -> None:
    async with linked() as (_, link):
        factor = SharedFactor("m", link)
        await factor.refresh(RULES, 0.0, 0.0)
        args = [0, 900, 600_000]
        late = await link.run(SHARE, [KEY], [*args, 0, write(LOW)])
        assert read(late[0]) == FRESH and late[1] == 1
        first = await link.run(SHARE, [KEY], [*args, 1, write(LOW)])
        again = await link.run(SHARE, [KEY], [*args, 1, write(LOW)])
        assert first[:2] == again[:2] == [write(LOW), 2], "the answer was lost, and it is sent again"


async def test_a_gateway_that_comes_takes_over_and_one_that_dies_leaves_it() -> None:
    async with linked() as (redis, link):
        redis.do("HSET", KEY, "state", write(LOW), "step", 7, "at", 1, "wait", 0)
        factor = SharedFactor("m", link)
        await factor.refresh(RULES, 14.0, 0.0)
        assert factor.state == step(LOW, RULES, 14.0, 60.0) and factor.state.since_turn == 12.0


@pytest.mark.parametrize("text", ["0.5", "", "{}", "\x00", '{"factor":"0.5"}', '{"factor":2,"direction":1}'])
async def test_what_cannot_be_read_is_written_anew(text: str) -> None:
    async with linked() as (redis, link):
        factor = SharedFactor("m", link)
        factor.state = LOW
        redis.do("HSET", KEY, "state", text, "step", 3, "at", 1, "wait", "0")
        await factor.refresh(RULES, 14.0, 0.0)
        assert factor.state.factor == 0.5 and field(redis, "step") == b"4"
        assert read(field(redis, "state")) == factor.state


async def test_fields_that_are_no_numbers_do_no_harm() -> None:
    async with linked() as (redis, link):
        factor = SharedFactor("m", link)
        redis.do("HSET", KEY, "state", write(LOW), "step", "x", "at", "y", "wait", "0.75")
        await factor.refresh(RULES, 14.0, 0.0)
        assert 0 < factor.state.factor <= 1
        redis.do("HSET", KEY, "at", 10**15)  # its clock was set back
        before = field(redis, "step")
        await factor.refresh(RULES, 14.0, 1.0)
        assert field(redis, "step") != before


async def test_while_redis_is_away_each_goes_on_by_itself_and_the_first_back_tells_the_others() -> None:
    async with linked() as (redis, link):
        one, other = SharedFactor("m", link), SharedFactor("m", link)
        for each in (one, other):
            await each.refresh(RULES, 0.0, 0.0)
        due(redis)
        redis.freeze()
        link._set_down(RedisUnavailable("frozen"))
        for now in range(1, 5):
            await one.refresh(RULES, 100.0, float(now))
        assert one.state.factor == RULES.floor and other.state.factor == 1.0
        redis.thaw()
        await eventually(lambda: link.up)
        await one.refresh(RULES, 100.0, 5.0)
        await other.refresh(RULES, 0.0, 5.0)
        assert other.state == one.state and one.state.factor == RULES.floor
        redis.flush()
        await other.refresh(RULES, 0.0, 6.0)
        assert other.state.factor == RULES.floor, "what a process knows outlives the loss of Redis' data"


async def test_a_key_of_another_type_leaves_each_on_its_own() -> None:
    async with linked() as (redis, link):
        redis.do("SET", KEY, "x")
        factor = SharedFactor("m", link)
        for now in range(3):
            await factor.refresh(RULES, 100.0, float(now))
        assert factor.state.factor == RULES.floor


async def test_without_redis_it_is_the_processs_own() -> None:
    factor = SharedFactor("m", None)
    for now in range(3):
        await factor.refresh(RULES, math.nan, float(now))
    assert factor.state.factor == 1.0
    for now in range(3, 6):
        await factor.refresh(RULES, 100.0, float(now))
    assert factor.state.factor == RULES.floor
