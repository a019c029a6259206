"""The facts that gateways share: the script chooses as the plain functions do, and nothing stays behind."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.core.admission.fair_order import Turn
from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import EXPECTED_WAIT, Candidate, NodeScore, PlacedPrompt, RandomDraw, rendezvous
from gateway.fleet.fleet import Fleet
from gateway.redis.client import RedisClient, RedisSettings
from gateway.routing.router import Router, RoutingRules
from gateway.routing.shared_placement import SharedPlacement, SharedTurn, forget
from tests.support.gateways import eventually
from tests.support.redis import Kind, RedisServer, redis_server

PENDING, ENTRIES, EXPIRY, GATEWAYS = (f"fg1:{{route}}:{name}" for name in ("pending", "entries", "expiry", "gateways"))
NODES = [Candidate(f"10.0.0.{i}:8000", 1 / 8000) for i in range(5)]
CALM = RandomDraw(0, 0.0)


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest_asyncio.fixture
async def shared(redis: RedisServer) -> AsyncIterator[SharedPlacement]:
    async with linked(redis) as placement:
        yield placement


class linked:  # noqa: N801  # a context, used as a function
    def __init__(self, redis: RedisServer, timeout: float = 2.0) -> None:
        self._redis = RedisClient(RedisSettings(redis.url, timeout=timeout, connect_timeout=2.0))

    async def __aenter__(self) -> SharedPlacement:
        await self._redis.start()
        router = Router(Fleet(), RoutingRules(), Placement(), self._redis)
        assert router.groups is not None
        placement, places = router.groups.common.placement, router.groups.common.places
        await places.start()
        self._places = places
        placement.prefilled(b"")  # a script that Redis does not know yet is sent behind those that it knows
        await self._redis.command("GET", PENDING)
        return placement

    async def __aexit__(self, *_: object) -> None:
        await self._places.stop()
        await self._redis.stop()


TURN = SharedTurn("model", Turn("standard", "tenant", 1.0, 1.0, 0.0))


async def choose(shared: SharedPlacement, request: bytes, nodes: list[Candidate], prompt: PlacedPrompt) -> NodeScore:
    liked = rendezvous(nodes, prompt.conversation)
    chosen = shared.read(await shared.choose(request, liked, prompt, TURN), liked, prompt, TURN)
    assert chosen.score is not None
    return chosen.score


@pytest.mark.parametrize("kind", ["valkey9", "redis7"])
async def test_the_script_and_the_functions_choose_alike(kind: Kind) -> None:
    dice, own = random.Random(11), Placement()
    async with redis_server(kind) as redis, linked(redis) as shared:
        waiting: list[tuple[bytes, NodeScore]] = []
        for number in range(400):
            nodes = [
                node._replace(
                    pace=dice.choice([1, 1, 1, 2.5]) / 8000,
                    crowd=dice.choice([0.0, 0.25, 0.9]),
                    warm=dice.choice([float("inf"), float("inf"), -1.0]),
                    answer=dice.choice([0.0, 0.0, 1.5]),
                    block=dice.choice([1, 16, 528]),
                    lasting=dice.choice([0, 0, 60_000]),
                )
                for node in dice.sample(NODES, dice.randint(1, 5))
            ]
            answer = dice.choice([0, 4000])
            prompt = PlacedPrompt(dice.randint(1, 20_000), b"talk %d" % dice.randint(0, 30), answer)
            theirs = await choose(shared, b"%d" % number, nodes, prompt)
            ours = own.choose(EXPECTED_WAIT, nodes, prompt, CALM, 0.0)
            assert theirs == ours._replace(ahead=int(ours.ahead))
            own.add(ours, prompt, 0.0)
            waiting.append((b"%d" % number, ours))
            for _ in range(dice.randint(0, 2)):
                if waiting:
                    request, placed = waiting.pop(dice.randrange(len(waiting)))
                    own.prefilled(placed)
                    shared.prefilled(request)
        for request, _ in waiting:
            shared.prefilled(request)
        await choose(shared, b"last", NODES, PlacedPrompt(7, b"end"))
        assert sorted(redis.do("HVALS", PENDING)) == [b"1", b"7"]
        assert redis.do("HLEN", ENTRIES) == redis.do("ZCARD", EXPIRY) == 1


async def test_requests_of_other_gateways_crowd_a_node(shared: SharedPlacement) -> None:
    """Nothing waits anywhere, and the gateway that asks has no request itself."""
    bounded = [node._replace(bound=4) for node in NODES[:2]]
    for number in range(3):
        await choose(shared, b"there %d" % number, bounded[:1], PlacedPrompt(1, b"talk %d" % number))
        shared.prefilled(b"there %d" % number)
    for number in range(3):
        placed = await choose(shared, b"here %d" % number, bounded, PlacedPrompt(1, b"other %d" % number))
        assert (placed.node, placed.crowd) == (bounded[1].name, number / 4)


async def test_a_cache_that_was_filled_since_is_not_counted_on(redis: RedisServer, shared: SharedPlacement) -> None:
    home = NODES[0]._replace(lasting=10_000, block=500)
    talk = PlacedPrompt(4200, b"talk")
    await choose(shared, b"first", [home], talk)
    assert (await choose(shared, b"second", [home], talk)).cached == 4000
    await choose(shared, b"others", [home], PlacedPrompt(5000, b"other", 4999))
    assert (await choose(shared, b"third", [home], talk)).cached == 4000
    await choose(shared, b"more", [home], PlacedPrompt(5000, b"another", 5001))
    assert (await choose(shared, b"fourth", [home], talk)).cached == 0
    assert 3_500_000 < redis.do("PTTL", f"{PENDING}:written:{home.name}") <= 3_600_000


async def test_the_last_turn_of_an_older_gateway_is_understood(redis: RedisServer, shared: SharedPlacement) -> None:
    seconds, _ = redis.do("TIME")
    redis.do("SET", f"fg1:{{route}}:last:{b'talk'.hex()}", f"3000|{int(seconds)}000|{NODES[2].name}")
    placed = await choose(shared, b"one", [NODES[2]._replace(lasting=1)], PlacedPrompt(4000, b"talk"))
    assert (placed.cached, placed.reason) == (3000, "home")


async def test_what_is_sent_twice_counts_once(redis: RedisServer, shared: SharedPlacement) -> None:
    prompt = PlacedPrompt(1000, b"talk")
    first = await choose(shared, b"one", NODES, prompt)
    again = await choose(shared, b"one", NODES, prompt)
    assert (again.node, again.ahead) == (first.node, 0)
    shared.prefilled(b"one")
    shared.prefilled(b"one")
    await choose(shared, b"two", NODES[:1], PlacedPrompt(5, b"other"))
    assert redis.do("HLEN", ENTRIES) == 1


async def test_two_gateways_see_each_others_choices(redis: RedisServer, shared: SharedPlacement) -> None:
    async with linked(redis) as other:
        prompts = [PlacedPrompt(4000, b"talk %d" % i) for i in range(5)]
        chosen = [await choose((shared, other)[i % 2], b"%d" % i, NODES, prompt) for i, prompt in enumerate(prompts)]
        assert len({placed.node for placed in chosen}) == 5
        back = await choose(other, b"back", NODES, PlacedPrompt(6000, prompts[0].conversation))
        assert (back.node, back.cached, back.reason) == (chosen[0].node, 4000, "home")


async def test_the_work_of_a_gateway_that_died_expires(redis: RedisServer, shared: SharedPlacement) -> None:
    lost = await choose(shared, b"lost", NODES[:1], PlacedPrompt(9000, b"lost"))
    ends = float(redis.do("ZSCORE", EXPIRY, "lost"))
    seconds, microseconds = redis.do("TIME")
    assert 30 < ends / 1000 - int(seconds) - int(microseconds) / 1e6 < 40
    redis.do("ZADD", EXPIRY, 1, "lost")  # its time has come
    placed = await choose(shared, b"next", NODES[:1], PlacedPrompt(10, b"next"))
    assert (placed.node, placed.ahead) == (lost.node, 0)
    assert redis.do("HGET", PENDING, lost.node) == b"10"


@pytest.mark.parametrize("told_meanwhile", [True, False])
async def test_what_a_frozen_redis_did_not_hear_is_told_when_it_thaws(redis: RedisServer, told_meanwhile: bool) -> None:
    """Before the freeze is noticed the words are on their way and lost; after it they are not even sent."""
    async with linked(redis, timeout=3) as shared:
        names = [b"%d" % number for number in range(600)]
        for start in range(0, len(names), 50):  # all of them at once can take a busy machine longer than the link waits
            some = names[start : start + 50]
            await asyncio.gather(*[choose(shared, name, NODES[:2], PlacedPrompt(1000, name)) for name in some])
        redis.freeze()
        if not told_meanwhile:
            asked = shared.choose(b"nobody waits for this", NODES, PlacedPrompt(9, b""), TURN)
            await eventually(lambda: not shared.up)
            forget(asked)
            shared.prefilled(b"nobody waits for this")
        for name in names:
            shared.prefilled(name)
        await eventually(lambda: not shared.up)
        redis.thaw()
        await eventually(lambda: shared.up)
        await eventually(lambda: redis.do("HLEN", ENTRIES) == 0)
        assert (redis.do("HLEN", PENDING), redis.do("ZCARD", EXPIRY)) == (0, 0)


async def test_a_redis_that_lost_its_keys_is_not_driven_below_nothing(
    redis: RedisServer, shared: SharedPlacement
) -> None:
    await choose(shared, b"one", NODES, PlacedPrompt(1000, b"talk"))
    redis.flush()
    shared.prefilled(b"one")
    await eventually(lambda: redis.do("ZCARD", GATEWAYS) == 1)
    await choose(shared, b"two", NODES[:1], PlacedPrompt(10, b"talk"))
    assert sorted(redis.do("HVALS", PENDING)) == [b"1", b"10"]


async def test_every_key_has_an_end(redis: RedisServer, shared: SharedPlacement) -> None:
    """A conversation is forgotten after its time; what is pending is bounded by what is under way."""
    await choose(shared, b"one", NODES, PlacedPrompt(1000, b"talk"))
    talk = f"fg1:{{route}}:last:{b'talk'.hex()}"
    assert 3_500_000 < redis.do("PTTL", talk) <= 3_600_000


@pytest.mark.parametrize("ahead", [5_000, 3600_000])
async def test_who_waited_when_the_clock_was_further_on_holds_up_nobody(
    shared: SharedPlacement, redis: RedisServer, ahead: int
) -> None:
    """A gateway that died with requests in its queue, or whose queue was empty before it spoke again."""
    nodes, prompt = [Candidate("10.0.0.1:8000", 1 / 8000, bound=2)], PlacedPrompt(100, b"conversation")
    until = int(redis.do("TIME")[0]) * 1000 + ahead
    redis.do("HSET", "fg1:{route}:waiting:model", "dead", f"{until}|standard|standard|other|9|0|")
    chosen = shared.read(await shared.choose(b"1", nodes, prompt, TURN), nodes, prompt, TURN)
    assert (chosen.score is not None) == (ahead > 10_000)
