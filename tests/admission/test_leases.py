"""A node that was chosen before Redis answered is looked at again after: others came, and it may be drained or gone."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.routing.shared_placement import CHOOSE
from tests.support.admission import ENDLESS, ENTRIES, PENDING, Setting, drained, gone, leave, out, setting, warming_up
from tests.support.crowd import ask, lost, send
from tests.support.faults import broken_network, limited_gateway, nothing_held
from tests.support.gateways import eventually
from tests.support.redis import redis_server
from tests.support.resp import resp_proxy
from workers.fake import FakeSettings, serve_fake

CHATS = "/v1/chat/completions"


@pytest.mark.parametrize(("nodes", "gateways"), [(1, 1), (2, 1), (2, 2)])
async def test_no_node_has_more_than_its_bound_however_many_chose_it_at_once(nodes: int, gateways: int) -> None:
    async with setting(ENDLESS, nodes, gateways, bound=2 * gateways) as there:
        asking = await there.ask_held_back(20)
        there.thaw()
        await there.decided(asking)
        assert [there.in_flight(node) for node in range(nodes)] == [2 * gateways] * nodes
        refused = [task.result() for task in asking if task.done()]
        assert {(seen.status, seen.code) for seen in refused} == {(503, "fleet_full")}
        await leave(asking)
        await there.nothing_held()


async def test_a_node_that_warms_up_is_given_no_crowd() -> None:
    async with setting(ENDLESS, 2, gateways=2) as there:
        warming_up(there)
        asking = await there.ask_held_back(20)
        there.thaw()
        await there.decided(asking)
        assert there.in_flight(0) <= 2, "one from each gateway"
        assert there.in_flight(1) == 20 - there.in_flight(0)
        await leave(asking)
        await there.nothing_held()


@pytest.mark.parametrize("change", [drained, gone, out])
async def test_what_became_of_a_node_meanwhile_is_heeded(change: Callable[[Setting], None]) -> None:
    async with setting(FakeSettings(), 2, gateways=2) as there:
        asking = await there.ask_held_back(10)
        change(there)
        there.thaw()
        assert lost(await asyncio.gather(*asking)) == []
        assert [node.stats.requests[CHATS] for node in there.nodes] == [0, 10]
        await there.nothing_held()


async def test_the_only_node_drained_meanwhile_is_told_as_none_ready() -> None:
    async with setting(FakeSettings(), 1) as there:
        asking = await there.ask_held_back(3)
        drained(there)
        there.thaw()
        seen = await asyncio.gather(*asking)
        assert [(one.status, one.code) for one in seen] == [(503, "no_node_ready")] * 3
        assert there.nodes[0].stats.requests[CHATS] == 0
        await there.nothing_held()


@pytest.mark.parametrize("end", ["left", "lost"])
async def test_who_left_and_what_redis_lost_between_choice_and_place_hold_nothing(end: str) -> None:
    async with setting(ENDLESS, 2, bound=2) as there:
        asking = await there.ask_held_back(20)
        if end == "left":
            await leave(asking)
            await asyncio.sleep(0.05)
            there.thaw()
        else:
            assert there.redis is not None
            there.redis.kill()
            await there.decided(asking)
            assert [there.in_flight(node) for node in (0, 1)] == [2, 2]
            there.redis.restart()
            await leave(asking)
        await there.nothing_held()


@pytest.mark.parametrize("change", [drained, gone])
async def test_a_node_that_is_drained_while_it_is_connected_to_gets_nothing(change: Callable[[Setting], None]) -> None:
    async with serve_fake() as a, serve_fake() as b, broken_network(a.port) as network:
        async with limited_gateway(network.url, b.url, routing={"policy": "round_robin"}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            node = gateway.app.fleet.nodes[0]
            await network.partition()
            asking = [asyncio.create_task(send(gateway.url, ask(f"hello {number}"))) for number in range(2)]
            await eventually(lambda: b.stats.requests[CHATS] == 1 and node.in_flight == 1)
            change(Setting(None, [a, b], [gateway]))  # there is no Redis here
            await network.heal()
            assert lost(await asyncio.gather(*asking)) == []
            assert (a.stats.requests[CHATS], b.stats.requests[CHATS]) == (0, 2)
            await eventually(lambda: node.in_flight == 0)
            assert (node.access in gateway.app.relay.pools._pools) is (change is drained), "nobody would ever close it"


async def test_what_redis_chose_without_a_readable_reply_is_given_back() -> None:
    """Redis has carried the choice out, and the lease is made by this process's own view."""
    async with redis_server() as redis, resp_proxy(redis) as proxy, serve_fake() as a, serve_fake() as b:
        choices = 0

        def carry_out(command: list[bytes]) -> bytes | None:
            nonlocal choices
            if command[0].startswith(b"EVAL") and command[1] in (CHOOSE.sha.encode(), CHOOSE.source.encode()):
                choices += redis.do("EVAL", CHOOSE.source, *command[2:])[0] > 0
                return b"+of another shape\r\n"
            return None

        proxy.swap = carry_out
        async with limited_gateway(a.url, b.url, redis={**redis.settings, "url": proxy.url, "timeout": 5.0}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            assert lost([await send(gateway.url, ask("hello"))]) == []
            assert choices == 1
            await nothing_held(gateway, a, b)
            await eventually(lambda: redis.do("HLEN", ENTRIES) == redis.do("HLEN", PENDING) == 0)
