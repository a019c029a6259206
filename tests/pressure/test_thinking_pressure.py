"""The loop around the rules: what it reads of the fleet, and what a reload does that comes while Redis is asked."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.core.fleet.capabilities import Capabilities
from gateway.core.pressure.early_ends import EarlyEndRules, RunningThought
from gateway.core.pressure.factor import FactorRules
from gateway.core.pressure.rules import PressureRules
from gateway.core.pressure.squeeze import STANDARD, ThinkingClaim
from gateway.fleet.fleet import Fleet
from gateway.fleet.node_spec import NodeSpec
from gateway.pressure.thinking_pressure import TRIED, ThinkingPressure
from gateway.redis.client import RedisUnavailable
from gateway.redis.schema import KeySchema

FACTOR = FactorRules(hold=0.0, shrink=1.0, grow=1.0)
RULES = PressureRules(enabled=True, factor=FACTOR, early_ends=EarlyEndRules(after=20.0, classes=(STANDARD,)))
OFF = PressureRules()


class SlowRedis:
    """Answers when it is let, and then with nothing: each process goes on by itself."""

    def __init__(self) -> None:
        self.schema = KeySchema()
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def run(self, *_: Any) -> Any:
        self.asked.set()
        await self.let.wait()
        raise RedisUnavailable("away")


class StubExchange:
    def __init__(self, tokens: int, can_end: bool = True) -> None:
        self.running_thought: RunningThought | None = RunningThought(ThinkingClaim(8000, 0, STANDARD), tokens)
        self.can_end = can_end
        self.tried = 0

    def end_thinking(self) -> bool:
        self.tried += 1
        self.running_thought = None
        return self.can_end


def fleet_of(*capabilities: Capabilities) -> Fleet:
    fleet = Fleet([NodeSpec(f"http://10.0.0.{at}:8000") for at in range(len(capabilities))])
    for node, known in zip(fleet.nodes, capabilities, strict=True):
        node.probe_succeeded({"m": {}})
        node.capabilities = known
    return fleet


def pressure_of(
    fleet: Fleet, exchanges: list[StubExchange] | None = None, redis: Any = None, rules: PressureRules = RULES
) -> ThinkingPressure:
    relay = SimpleNamespace(exchanges_for=lambda model: exchanges or [])
    return ThinkingPressure(rules, fleet, cast(Any, relay), redis, lambda model: 1000.0)


async def pressed(pressure: ThinkingPressure, *times: float) -> None:
    for now in times or (1.0, 2.0):
        await pressure.refresh(now)


@pytest.mark.parametrize(
    ("known", "thinks", "native"),
    [
        ([Capabilities()], False, False),
        ([Capabilities(native_budget=True)], True, True),
        ([Capabilities(native_budget=False, think_end=(8,))], True, False),
        ([Capabilities(native_budget=True), Capabilities(native_budget=False)], True, False),
        ([Capabilities(native_budget=True), Capabilities()], True, False),
    ],
)
async def test_what_nodes_have_shown_decides_which_requests_shrink(
    known: list[Capabilities], thinks: bool, native: bool
) -> None:
    pressure = pressure_of(fleet_of(*known))
    await pressed(pressure)
    squeeze = pressure.squeezes["m"]
    assert (squeeze.thinks, squeeze.native, squeeze.factor) == (thinks, native, FACTOR.floor)


async def test_a_model_that_is_gone_is_forgotten() -> None:
    fleet = fleet_of(Capabilities())
    pressure = pressure_of(fleet)
    await pressed(pressure)
    fleet.update([])
    await pressed(pressure, 3.0)
    assert pressure.factors == {} and pressure._factors == {} == pressure._ends


@pytest.mark.parametrize("wait", [math.nan, -math.inf, 0])
async def test_odd_waits_press_nothing(wait: float) -> None:
    pressure = pressure_of(fleet_of(Capabilities()))
    pressure.expected_wait = lambda model: wait
    await pressed(pressure)
    assert pressure.factors == {"m": 1.0}


@pytest.mark.parametrize("then", [OFF, RULES], ids=["off", "off and on"])
async def test_a_reload_while_redis_is_asked_is_what_holds(then: PressureRules) -> None:
    redis, exchange = SlowRedis(), StubExchange(7000)
    pressure = pressure_of(fleet_of(Capabilities()), [exchange], redis)
    refreshing = asyncio.create_task(pressure.refresh(1.0))
    await redis.asked.wait()
    pressure.configure(OFF)
    if then is not OFF:
        pressure.configure(PressureRules(enabled=True))
    redis.let.set()
    await refreshing
    assert pressure.squeezes == {} and not exchange.tried


async def test_what_cannot_end_gives_way_to_the_next_within_bounds() -> None:
    exchanges = [StubExchange(7000 - at, can_end=at == 3) for at in range(6)]
    pressure = pressure_of(fleet_of(Capabilities()), exchanges)
    await pressed(pressure)
    assert [each.tried for each in exchanges] == [1, 1, 1, 1, 0, 0] and pressure.ended == {"m": 1}
    hopeless = [StubExchange(7000, can_end=False) for _ in range(3 * TRIED)]
    pressure = pressure_of(fleet_of(Capabilities()), hopeless)
    await pressed(pressure)
    assert sum(each.tried for each in hopeless) == TRIED
    assert pressure.ended == {}


async def test_gateways_share_the_pace_of_early_ends() -> None:
    fleet = fleet_of(Capabilities())
    fleet.share_with(3)
    exchanges = [StubExchange(7000) for _ in range(5)]
    pressure = pressure_of(fleet, exchanges)
    await pressed(pressure, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert sum(each.tried for each in exchanges) == 2


async def test_the_loop_outlives_a_failure() -> None:
    pressure = pressure_of(fleet_of(Capabilities()))
    calls = 0

    def fails(model: str) -> float:
        nonlocal calls
        calls += 1
        raise ValueError("no queue")

    pressure.expected_wait = fails
    running = asyncio.create_task(pressure.run())
    while calls < 1:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not running.done() and pressure.squeezes == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_by_default_nobody_waits() -> None:
    pressure = ThinkingPressure(OFF, Fleet(), cast(Any, None), None)
    assert pressure.expected_wait("m") == 0.0
