"""Orders about nodes while Redis is waited for: none is lost, none stops another, and each holds here at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.fleet.drains import Drains
from gateway.fleet.fleet import Fleet
from gateway.fleet.node_spec import NodeSpec
from tests.support.gateways import eventually
from tests.support.redis import RedisServer, linked, redis_server

NAMES = [f"10.0.0.{number}:8000" for number in range(40)]


@asynccontextmanager
async def drains() -> AsyncIterator[tuple[Drains, Fleet, RedisServer]]:
    async with redis_server() as redis, linked(redis) as link:
        fleet = Fleet([NodeSpec(f"http://{name}") for name in NAMES])
        yield Drains(fleet, link, None, lambda node: None), fleet, redis


def drained(fleet: Fleet) -> list[str]:
    return [node.name for node in fleet.nodes if node.drain is not None]


async def test_orders_that_come_while_others_are_being_told_are_all_told() -> None:
    async with drains() as (orders, fleet, redis):
        giving = []
        for name in NAMES:
            giving.append(asyncio.create_task(orders.drain(name, None)))
            for _ in range(3):  # so that each finds the ones before at another point
                await asyncio.sleep(0)
        await asyncio.gather(*giving)
        assert drained(fleet) == NAMES
        (key,) = redis.do("KEYS", "*drains*")
        assert redis.do("HLEN", key) == len(NAMES)
        assert orders.synced


async def test_an_order_holds_here_before_redis_has_answered() -> None:
    async with drains() as (orders, fleet, redis):
        redis.freeze()
        giving = asyncio.create_task(orders.drain(NAMES[0], None))
        await eventually(lambda: drained(fleet) == NAMES[:1], 30)
        assert not giving.done()
        assert not orders.synced, "nobody else knows yet"
        taking_back = asyncio.create_task(orders.undrain(NAMES[0]))
        await eventually(lambda: drained(fleet) == [], 30)
        redis.thaw()
        await asyncio.gather(giving, taking_back)
        (key,) = redis.do("KEYS", "*drains*")
        assert b'"drained": false' in redis.do("HGET", key, NAMES[0]), "the later one is what the others are told"
        assert orders.synced
