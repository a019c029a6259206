"""Choices among the nodes of a large model, by real gateways on a real Redis: every place is found, none twice."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from gateway.core.routing.node_sample import WHOLE
from gateway.fleet.node_spec import Drain
from tests.support.admission import ENDLESS, Setting, leave, setting
from tests.support.gateways import eventually
from tests.support.nodes import MODEL
from workers.fake import FakeSettings

CHATS = "/v1/chat/completions"
NODES = WHOLE + 4


async def is_sampled(there: Setting) -> None:
    await eventually(lambda: all(MODEL in gateway.app.router.sampler.models for gateway in there.gateways))


@pytest.mark.parametrize("alone", [False, True])
async def test_every_place_is_found_however_few_are_left(alone: bool) -> None:
    """As many requests as there are places: none is refused, nothing waits, and one more is refused."""
    gateways = 1 if alone else 2
    async with setting(ENDLESS, NODES, gateways, bound=2, alone=alone) as there:
        await is_sampled(there)
        asking: list[asyncio.Task[Any]] = []
        while len(asking) < 2 * NODES:  # all at once would choose among the same few
            asking += there.ask(4)
            await there.decided(asking)
            assert sum(map(there.in_flight, range(NODES))) == len(asking)
        assert [there.in_flight(node) for node in range(NODES)] == [2] * NODES
        more = there.ask(2)
        await there.decided([*asking, *more])
        assert [(task.result().status, task.result().code) for task in more] == [(503, "fleet_full")] * 2
        for task in asking[:3]:
            task.cancel()
        await eventually(lambda: sum(map(there.in_flight, range(NODES))) == 2 * NODES - 3)
        again = there.ask(3)
        await there.decided([*asking[3:], *again])
        assert [there.in_flight(node) for node in range(NODES)] == [2] * NODES
        await leave([*asking, *again])
        await there.nothing_held()


async def test_no_node_has_more_than_its_bound_when_all_ask_at_once() -> None:
    async with setting(ENDLESS, NODES, gateways=2, bound=1) as there:
        await is_sampled(there)
        asking = await there.ask_held_back(3 * NODES)
        there.thaw()
        await there.decided(asking)
        held = [there.in_flight(node) for node in range(NODES)]
        assert held == [1] * NODES
        await leave(asking)
        await there.nothing_held()


async def test_a_request_waits_for_the_one_place_that_becomes_free_elsewhere() -> None:
    async with setting(ENDLESS, NODES, gateways=2, bound=1, max_wait=60.0) as there:
        await is_sampled(there)
        asking = there.ask(NODES)
        await there.decided(asking)
        url = there.gateways[0].url
        body = {"model": MODEL, "messages": [{"role": "user", "content": "last"}], "max_tokens": 1}
        async with httpx.AsyncClient(timeout=60) as client:
            waiting = asyncio.create_task(client.post(url + CHATS, json=body))
            await eventually(lambda: there.gateways[0].app.queue.bounds.size == 1)
            asking[1].cancel()  # the second gateway's
            answer = await waiting
        assert answer.status_code == 200
        await leave(asking)
        await there.nothing_held()


@pytest.mark.parametrize("drained", [False, True])
async def test_a_conversation_is_found_on_the_node_where_another_gateway_left_it(drained: bool) -> None:
    async with setting(FakeSettings(max_model_len=200_000), NODES, gateways=2) as there:
        await is_sampled(there)
        redis = there.redis
        assert redis is not None
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello " * 9000}], "max_tokens": 2}
        async with httpx.AsyncClient(timeout=30) as client:
            assert (await client.post(there.gateways[0].url + CHATS, json=body)).status_code == 200
            [key] = redis.do("KEYS", "fg1:{route}:last:*")
            tokens, at, first, _ = redis.do("GET", key).split(b"|")
            nodes = there.gateways[1].app.fleet.nodes
            number = next(
                at
                for at, node in enumerate(nodes)
                if node.name.encode() != first
                and node not in there.gateways[1].app.router.sampler.models[MODEL].nodes.homes(conversation(key), ())
            )
            redis.do("SET", key, b"%b|%b|%b" % (tokens, at, nodes[number].name.encode()), "PX", 3_600_000)
            if drained:
                for node in there.seen(number):
                    node.drain_for("test", Drain(), asyncio.get_running_loop().time())
            before = there.nodes[number].stats.requests.get(CHATS, 0)
            for _ in range(6):  # a sample may have it by chance
                redis.do("SET", key, b"%b|%b|%b" % (tokens, at, nodes[number].name.encode()), "PX", 3_600_000)
                there.gateways[1].app.router.placement._last.clear()
                assert (await client.post(there.gateways[1].url + CHATS, json=body)).status_code == 200
            assert there.nodes[number].stats.requests.get(CHATS, 0) == before + (0 if drained else 6)
        await there.nothing_held()


def conversation(key: bytes) -> bytes:
    return bytes.fromhex(key.rpartition(b":")[2].decode())


async def test_without_redis_the_conversation_stays_too() -> None:
    async with setting(FakeSettings(max_model_len=200_000), NODES, alone=True) as there:
        await is_sampled(there)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello " * 400}], "max_tokens": 2}
        async with httpx.AsyncClient(timeout=30) as client:
            before = [node.stats.requests.get(CHATS, 0) for node in there.nodes]
            for _ in range(5):
                assert (await client.post(there.gateways[0].url + CHATS, json=body)).status_code == 200
        asked = [node.stats.requests.get(CHATS, 0) - was for node, was in zip(there.nodes, before, strict=True)]
        assert sorted(asked) == [0] * (NODES - 1) + [5]


async def test_those_who_wait_elsewhere_hold_up_nobody_for_whom_there_is_room() -> None:
    """More wait at another gateway than a sample has places, and fewer than are free."""
    async with setting(ENDLESS, NODES, gateways=2, bound=1, max_wait=0.0) as there:
        await is_sampled(there)
        redis = there.redis
        assert redis is not None
        key = f"fg1:{{route}}:waiting:{MODEL}"

        def wait_elsewhere(requests: int) -> None:
            until = round(time.time() * 1000) + 9_000  # further on it would be of a clock that was set back
            said = f"{until}|standard|standard|other|{requests}|0|standard={requests}"
            redis.do("HSET", key, "another", said)

        asking: list[asyncio.Task[Any]] = []
        for _ in range(8):
            wait_elsewhere(NODES - 8)
            asking += there.ask(1)
            await there.decided(asking)
            assert sum(map(there.in_flight, range(NODES))) == len(asking)
        wait_elsewhere(NODES - 8)
        refused = there.ask(1)
        await there.decided([*asking, *refused])
        assert refused[0].result().code == "fleet_full", "what is free is for those who wait"
        await leave(asking[:1])
        await eventually(lambda: sum(map(there.in_flight, range(NODES))) == 7)
        wait_elsewhere(NODES)
        refused = there.ask(1)
        await there.decided([*asking[1:], *refused])
        assert refused[0].result().code == "fleet_full"
        redis.do("DEL", key)
        asking += there.ask(1)
        await there.decided(asking[1:])
        assert sum(map(there.in_flight, range(NODES))) == 8
        await leave(asking[1:])
        await there.nothing_held()
