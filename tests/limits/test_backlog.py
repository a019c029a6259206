"""Settlements that wait: none is lost, whether Redis takes them, does not, or nobody waits to see."""

import asyncio

from gateway.core.limits.rules import Limits, rules_of
from gateway.limits.backlog import Backlog, Settlement
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import RedisStore
from tests.limits.awaited import AwaitedStore
from tests.support.gateways import eventually
from tests.support.redis import linked, redis_server

RULES = Ruleset.of(rules_of(Limits(tokens_per_day=1000), "t"))


def settlement(number: int, tenant: str = "acme") -> Settlement:
    return Settlement(tenant, f"r{number}", RULES, (100,))


async def left(store: RedisStore, tenant: str) -> tuple[int, ...]:
    return (await AwaitedStore(store).reserve(tenant, "look", RULES, (0,))).left


async def test_what_is_sent_at_once_waits_only_where_redis_did_not_take_it() -> None:
    async with redis_server() as redis, linked(redis, timeout=2.0) as link:
        store = RedisStore(link, 60)
        backlog = Backlog(store)
        backlog.send(settlement(1))
        assert await left(store, "acme") == (900,)
        redis.do("SET", "fg1:{broken}:held", "not a hash")
        backlog.send(settlement(2, "broken"))
        await eventually(lambda: len(backlog) == 1)
        redis.freeze()
        backlog.send(settlement(3))
        await eventually(lambda: len(backlog) == 2)


async def test_what_redis_refuses_waits_and_stands_in_nobodys_way() -> None:
    async with redis_server() as redis, linked(redis, timeout=2.0) as link:
        store = RedisStore(link, 60)
        backlog = Backlog(store)
        redis.do("SET", "fg1:{broken}:held", "not a hash")
        for number in range(150):
            backlog.add(settlement(number, "broken" if number % 3 else "acme"))
        await backlog.flush()
        assert (len(backlog), backlog.dropped) == (100, 0)
        assert await left(store, "acme") == (-4000,), "50 of them are settled"
        redis.do("DEL", "fg1:{broken}:held")
        await backlog.flush()
        assert (len(backlog), backlog.dropped) == (0, 0)
        assert await left(store, "broken") == (-9000,), "each counts once"


async def test_a_flush_that_redis_does_not_answer_or_that_is_cancelled_loses_nothing() -> None:
    async with redis_server() as redis, linked(redis, timeout=2.0) as link:
        store = RedisStore(link, 60)
        backlog = Backlog(store)
        for number in range(3):
            backlog.add(settlement(number))
        redis.freeze()
        flush = asyncio.create_task(backlog.flush())
        await asyncio.sleep(0)
        assert len(backlog) == 3, "they are on their way"
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        assert flush.cancelled() and len(backlog) == 3
        await backlog.flush()
        assert len(backlog) == 3, "nothing was answered"
        redis.thaw()
        await eventually(lambda: link.up)
        await backlog.flush()
        assert (len(backlog), backlog.dropped) == (0, 0)
        assert await left(store, "acme") == (700,), "each counts once"
