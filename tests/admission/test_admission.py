"""50 requests at once, admitted while the fleet changes: without a Redis, with one, and by four gateways."""

from collections.abc import AsyncIterator

import pytest

from tests.support.admission import ENDLESS, Setting, drained, leave, setting, warming_up

CROWD = 50

MODES = {"without Redis": (True, 1), "with Redis": (False, 1), "four gateways": (False, 4)}
"""Whether there is no Redis, and how many gateways."""


@pytest.fixture(params=MODES)
async def there(request: pytest.FixtureRequest) -> AsyncIterator[Setting]:
    """Two nodes, each of which may have three requests from each gateway."""
    alone, gateways = MODES[request.param]
    async with setting(ENDLESS, 2, gateways, bound=3 * gateways, alone=alone) as made:
        yield made


@pytest.fixture(params=MODES)
async def unbounded(request: pytest.FixtureRequest) -> AsyncIterator[Setting]:
    """Two nodes that may have any number."""
    alone, gateways = MODES[request.param]
    async with setting(ENDLESS, 2, gateways, alone=alone) as made:
        yield made


def unchanged(there: Setting) -> None:
    """The crowd alone."""


async def test_a_bound_holds(there: Setting) -> None:
    asking = await there.ask_around(CROWD, unchanged)
    bound = 3 * len(there.gateways)
    assert [there.in_flight(0), there.in_flight(1)] == [bound, bound]
    refused = [task.result() for task in asking if task.done()]
    assert len(refused) == CROWD - 2 * bound
    assert {(seen.status, seen.code) for seen in refused} == {(503, "fleet_full")}
    await leave(asking)
    await there.nothing_held()


async def test_a_drained_node_is_given_nothing_more(there: Setting) -> None:
    before = 0

    def drain(there: Setting) -> None:
        nonlocal before
        before = there.in_flight(0)
        drained(there)

    asking = await there.ask_around(CROWD, drain)
    assert there.in_flight(0) == before
    assert there.in_flight(1) == 3 * len(there.gateways)
    await leave(asking)
    await there.nothing_held()


async def test_a_node_in_slow_start_is_given_its_share_only(unbounded: Setting) -> None:
    there = unbounded
    warming_up(there)
    asking = await there.ask_around(CROWD, unchanged)
    assert there.in_flight(0) <= len(there.gateways), "one from each gateway"
    assert there.in_flight(1) == CROWD - there.in_flight(0)
    await leave(asking)
    await there.nothing_held()
