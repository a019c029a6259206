"""Nodes without a `max_concurrency`: what their own queues show becomes their bound, and then requests wait here."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.support.admission import PLACES, Setting, leave, setting
from tests.support.crowd import lost
from tests.support.gateways import eventually
from workers.fake import FakeSettings, Fault

ROOM = 6
BOUND = ROOM + 1
"""One waits in the node."""
FULL = FakeSettings(rate=20, answer_tokens=4000, max_num_seqs=ROOM)
MODES = {"without Redis": (True, 1), "with Redis": (False, 1), "two gateways": (False, 2)}


@pytest.fixture(params=MODES)
async def full(request: pytest.FixtureRequest) -> AsyncIterator[Setting]:
    alone, gateways = MODES[request.param]
    async with setting(FULL, 1, gateways, alone=alone, max_wait=30.0) as made:
        yield made


def bounds(there: Setting) -> set[int | None]:
    return {node.max_concurrency for node in there.seen(0)}


def waiting(there: Setting) -> int:
    return sum(gateway.app.queue.bounds.size for gateway in there.gateways)


async def test_what_fills_a_node_shows_how_much_it_takes(full: Setting) -> None:
    asking = full.ask(4 * ROOM)
    await eventually(lambda: full.nodes[0].waiting == 3 * ROOM)
    await eventually(lambda: bounds(full) == {BOUND})
    if full.redis is not None:  # what came before is counted by all as well
        redis, node = full.redis, full.seen(0)[0].name
        await eventually(lambda: int(redis.do("HGET", PLACES, node) or 0) == 4 * ROOM)
    later = full.ask(ROOM)
    await eventually(lambda: waiting(full) == ROOM)
    assert full.nodes[0].waiting == 3 * ROOM, "nothing is added to what waits in the node"

    await leave(asking)
    await eventually(lambda: full.in_flight(0) == ROOM and waiting(full) == 0)
    more = full.ask(2 * ROOM)
    await eventually(lambda: full.nodes[0].waiting >= 1)
    # A page read while one of them is on its way may let another one through; the bound is back then.
    await eventually(lambda: waiting(full) + full.nodes[0].waiting == 2 * ROOM and bounds(full) == {BOUND})
    assert 1 <= full.nodes[0].waiting < ROOM
    await leave([*later, *more])
    await full.nothing_held()


async def test_a_node_that_has_room_after_all_is_given_more(full: Setting) -> None:
    asking = full.ask(2 * ROOM)
    await eventually(lambda: bounds(full) == {BOUND})
    await leave(asking)
    await eventually(lambda: full.in_flight(0) == 0)
    asking = full.ask(6 * ROOM)
    await eventually(lambda: waiting(full) + full.in_flight(0) == 6 * ROOM)
    # Pages read while requests are on their way may raise the bound; a full node takes that back.
    await eventually(lambda: full.nodes[0].running == ROOM and full.nodes[0].waiting and bounds(full) == {BOUND})
    assert waiting(full) > 0
    full.nodes[0].node.change(replace(FULL, max_num_seqs=1000))
    await eventually(lambda: full.nodes[0].running == full.in_flight(0) == 6 * ROOM)
    await leave(asking)
    await full.nothing_held()


async def test_a_burst_waits_here_until_the_node_has_shown_what_it_takes() -> None:
    settings = FakeSettings(rate=20, answer_tokens=4000, max_num_seqs=100)
    async with setting(settings, 1, alone=True, max_wait=30.0) as there:
        asking = there.ask(200)
        await eventually(lambda: there.in_flight(0) >= 100)
        assert there.nodes[0].waiting <= 128 - 100
        await eventually(lambda: bounds(there) == {105})
        await leave(asking)
        await there.nothing_held()


async def test_a_node_that_does_not_say_takes_everything() -> None:
    faults = (Fault("status", status=404, path="/metrics", scope="all"),)
    async with setting(replace(FULL, max_num_seqs=1000, faults=faults), 1, alone=True, max_wait=30.0) as there:
        asking = there.ask(100)
        await eventually(lambda: there.nodes[0].running == 100)
        assert bounds(there) == {None}
        await leave(asking)
        await there.nothing_held()


async def test_without_the_setting_nothing_is_found() -> None:
    async with setting(FULL, 1, alone=True, max_wait=30.0, queue={"find_concurrency": False}) as there:
        asking = there.ask(3 * ROOM)
        await eventually(lambda: there.nodes[0].waiting == 2 * ROOM)
        since = asyncio.get_running_loop().time()
        await eventually(lambda: there.seen(0)[0].loads[0].at > since)
        assert bounds(there) == {None}
        await leave(asking)
        await there.nothing_held()


async def test_answers_are_whole_while_the_bound_is_being_found() -> None:
    quick = FakeSettings(rate=200, thinking_tokens=8, answer_tokens=60, max_num_seqs=ROOM)
    async with setting(quick, 2, 2, max_wait=60.0) as there:
        seen = await asyncio.gather(*there.ask(60))
        assert lost(seen) == []
        await there.nothing_held()
