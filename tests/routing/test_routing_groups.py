"""Groups of models in a Redis Cluster: where their facts lie, and that a node's bound holds however gateways differ."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.core.routing.grouping import APART, STEP, TOGETHER, GroupPhase
from gateway.routing.routing_groups import AGREE, UNKNOWN
from tests.support.admission import HEALTH, leave
from tests.support.crowd import Seen, ask, lost, send
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from tests.support.redis import RedisCluster, RedisServer, linked, redis_cluster, redis_server
from workers.fake import FakeNode, FakeSettings, serve_fake

BOUND = 4
GROUPED = [{"name": "ultra", "routing_group": "ultra"}, {"name": "nano", "routing_group": "nano"}]
PLAIN = [{"name": "ultra"}, {"name": "nano"}]
ENDLESS = FakeSettings(rate=20, answer_tokens=4000)
QUICK = FakeSettings(rate=400, thinking_tokens=4, answer_tokens=4)


@dataclass(slots=True)
class Groups:
    """Gateways in front of nodes, on one Redis or cluster."""

    redis: RedisServer
    nodes: Sequence[FakeNode]
    gateways: list[RunningGateway]
    stack: AsyncExitStack

    async def join(self, models: Sequence[dict[str, Any]]) -> RunningGateway:
        """One more gateway, whose configuration has `models`; every gateway knows all nodes' models."""
        listed = [{"url": node.url, "max_concurrency": BOUND} for node in self.nodes]
        made = await self.stack.enter_async_context(
            limited_gateway(
                redis={**self.redis.settings, "timeout": 5.0},
                nodes=listed,
                models=models,
                health=HEALTH,
                queue={"max_wait": 30.0},
            )
        )
        self.gateways.append(made)
        await eventually(lambda: all(node.ready for node in made.app.fleet.nodes))
        await eventually(lambda: made.app.fleet.shared)
        return made

    def ask(self, model: str, count: int, gateway: int | None = None) -> list[asyncio.Task[Seen]]:
        """`count` streams through one gateway, or through all in turn."""
        urls = [each.url for each in self.gateways]
        chosen = [urls[number % len(urls) if gateway is None else gateway] for number in range(count)]
        return [
            asyncio.create_task(send(url, ask(f"{model} {number}", stream=True, model=model)))
            for number, url in enumerate(chosen)
        ]

    def in_flight(self, node: int) -> int:
        return sum(each.app.fleet.nodes[node].in_flight for each in self.gateways)

    @property
    def waiting(self) -> int:
        return sum(each.app.queue.bounds.size for each in self.gateways)

    def places(self, group: str) -> dict[str, int]:
        """Requests on each node, as Redis counts them in `group`."""
        key = f"fg1:{{route:{group}}}:places" if group else "fg1:{route}:places"
        with self.server_of(key).client(decode_responses=True) as client:
            return {name: int(value) for name, value in client.hgetall(key).items()}

    def server_of(self, key: str) -> RedisServer:
        return self.redis.server_of(key) if isinstance(self.redis, RedisCluster) else self.redis

    def keys(self) -> list[set[str]]:
        """Those of routing, by server."""
        servers = self.redis.nodes if isinstance(self.redis, RedisCluster) else [self.redis]
        found = []
        for server in servers:
            with server.client(decode_responses=True) as client:
                found.append({key for key in client.scan_iter(count=1000) if key.startswith("fg1:{route")})
        return found

    def later(self, seconds: float) -> None:
        """Have what gateways agreed on be `seconds` older."""
        key = "fg1:{route}:grouping"
        with self.server_of(key).client(decode_responses=True) as client:
            before, now, since = client.get(key).split("|")
            client.set(key, f"{before}|{now}|{int(since) - round(1000 * seconds)}", px=60_000)

    async def come_to(self, phase: GroupPhase, *gateways: RunningGateway) -> None:
        def there() -> bool:
            groups = [each.app.router.groups for each in gateways or self.gateways]
            return all(each is not None and each.phase == phase for each in groups)

        await eventually(there)

    async def nothing_held(self) -> None:
        for gateway in self.gateways:
            await nothing_held(gateway, *self.nodes)
        await eventually(lambda: not any(self.places(group) for group in ("", "ultra", "nano")))


@asynccontextmanager
async def groups(settings: FakeSettings, served: Sequence[tuple[str, ...]], cluster: bool) -> AsyncIterator[Groups]:
    """No gateway yet. `served`: the models of each node."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_cluster() if cluster else redis_server())
        nodes = [await stack.enter_async_context(serve_fake(replace(settings, models=models))) for models in served]
        yield Groups(redis, nodes, [], stack)


async def test_models_of_different_groups_lie_on_different_servers_and_bounds_hold() -> None:
    async with groups(QUICK, [("ultra",), ("ultra",), ("nano",), ("nano",)], cluster=True) as there:
        for _ in range(2):
            await there.join(GROUPED)
        await there.come_to(APART)
        asking = there.ask("ultra", 30) + there.ask("nano", 30)
        most = 0
        while not all(task.done() for task in asking):
            most = max(most, *map(there.in_flight, range(4)))
            await asyncio.sleep(0.002)
        assert lost([task.result() for task in asking]) == []
        assert most == BOUND
        by_server = there.keys()
        tags = [{key[key.index("{") : key.index("}") + 1] for key in keys} for keys in by_server]
        assert tags == [set(), {"{route}", "{route:nano}"}, {"{route:ultra}"}]
        every = set().union(*by_server)
        for group in ("ultra", "nano"):
            base = f"fg1:{{route:{group}}}:"
            assert f"{base}turns:{group}" in every and any(key.startswith(f"{base}last:") for key in every)
            number = 0 if group == "ultra" else 2
            names = {there.gateways[0].app.fleet.nodes[number + each].name for each in (0, 1)}
            prefix = f"{base}pending:written:"
            assert {key.removeprefix(prefix) for key in every if key.startswith(prefix)} == names
        assert not any("last:" in key or "turns:" in key for key in every if key.startswith("fg1:{route}:"))
        await there.nothing_held()


async def test_two_gateways_fill_each_group_to_its_bound_and_no_further() -> None:
    async with groups(ENDLESS, [("ultra",), ("nano",)], cluster=True) as there:
        for _ in range(2):
            await there.join(GROUPED)
        asking = there.ask("ultra", 7) + there.ask("nano", 3)
        await eventually(lambda: there.in_flight(0) == BOUND and there.in_flight(1) == 3 and there.waiting == 3)
        first, second = (node.name for node in there.gateways[0].app.fleet.nodes)
        assert there.places("ultra") == {first: BOUND} and there.places("nano") == {second: 3}
        assert there.places("") == {}
        await leave(asking)
        await there.nothing_held()


async def test_a_node_of_two_groups_has_its_bound_in_both() -> None:
    async with groups(ENDLESS, [("ultra", "nano")], cluster=True) as there:
        for _ in range(2):
            await there.join(GROUPED)
        name = there.gateways[0].app.fleet.nodes[0].name
        asking = there.ask("ultra", 3, gateway=0)
        await eventually(lambda: there.places("ultra") == there.places("nano") == {name: 3})
        asking += there.ask("nano", 3, gateway=1)
        await eventually(lambda: there.waiting == 2 and there.in_flight(0) == BOUND)
        await eventually(lambda: there.places("ultra") == there.places("nano") == {name: BOUND})
        await leave(asking[:1])
        await eventually(lambda: there.waiting == 1 and there.in_flight(0) == BOUND)
        await leave(asking)
        await there.nothing_held()


async def test_a_model_of_another_group_that_a_node_begins_to_serve() -> None:
    """What runs there is counted in that group, too, before its requests can fill the node again."""
    async with groups(ENDLESS, [("ultra",)], cluster=False) as there:
        for _ in range(2):
            await there.join(GROUPED)
        name = there.gateways[0].app.fleet.nodes[0].name
        asking = there.ask("ultra", 4)
        await eventually(lambda: there.places("ultra") == {name: 4})
        fake = there.nodes[0].node
        fake.settings = replace(fake.settings, models=("ultra", "nano"))
        await eventually(lambda: there.places("nano") == {name: 4})
        asking += there.ask("nano", 1)
        await eventually(lambda: there.waiting == 1)
        fake.settings = replace(fake.settings, models=("ultra",))
        await eventually(lambda: there.places("nano") == {})
        assert there.places("ultra") == {name: 4}
        await leave(asking)
        await there.nothing_held()


OTHERS = [{**GROUPED[0], "routing_group": "nano"}, GROUPED[1]]


@pytest.mark.parametrize("models", [PLAIN, pytest.param(OTHERS, marks=pytest.mark.prove)])
async def test_gateways_that_name_other_groups_count_together(models: Sequence[dict[str, Any]]) -> None:
    """An older gateway comes, or one with other groups: all count in one group. It leaves: they count apart again."""
    async with groups(ENDLESS, [("ultra",), ("nano",)], cluster=False) as there:
        one = await there.join(GROUPED)
        await there.come_to(APART)
        name = one.app.fleet.nodes[0].name
        asking = there.ask("ultra", 2)
        await eventually(lambda: there.places("ultra") == {name: 2} and there.places("") == {})
        async with AsyncExitStack() as visit:
            there.stack, stay = visit, there.stack
            joining = asyncio.create_task(there.join(models))
            await there.come_to(GroupPhase(apart=True, both=True), one)
            await eventually(lambda: there.places("") == {name: 2})
            assert len(there.gateways) == 1  # the other one has not begun
            there.later(STEP)
            await there.come_to(GroupPhase(apart=False, both=True), one)
            await joining
            asking += there.ask("ultra", 3, gateway=1)
            await eventually(lambda: there.in_flight(0) == BOUND and there.waiting == 1)
            asking += there.ask("ultra", 1, gateway=0)
            await eventually(lambda: there.waiting == 2)
            there.later(STEP)
            await there.come_to(TOGETHER)
            await eventually(lambda: there.places("ultra") == {})
            assert there.places("") == {name: BOUND} and there.in_flight(0) == BOUND
            await leave(asking)
            await there.nothing_held()
            there.gateways.pop()
        there.stack = stay
        asking = there.ask("ultra", 1)
        there.later(2 * STEP)  # the next change may begin
        await there.come_to(GroupPhase(apart=False, both=True))
        await eventually(lambda: there.places("") == there.places("ultra") == {name: 1})
        there.later(STEP)
        await there.come_to(GroupPhase(apart=True, both=True))
        there.later(STEP)
        await there.come_to(APART)
        await eventually(lambda: there.places("") == {} and there.places("ultra") == {name: 1})
        await leave(asking)
        await there.nothing_held()


@pytest.mark.parametrize(
    "orders",
    [
        (GROUPED, PLAIN),
        (PLAIN, GROUPED),
        (GROUPED, OTHERS),
        pytest.param((GROUPED, GROUPED, PLAIN), marks=pytest.mark.prove),
        pytest.param((GROUPED, PLAIN, OTHERS), marks=pytest.mark.prove),
        pytest.param((OTHERS, GROUPED, PLAIN), marks=pytest.mark.prove),
    ],
    ids=["apart first", "together first", "others later", "two apart", "three kinds", "plain last"],
)
async def test_a_node_that_is_full_stays_so_in_whatever_order_gateways_begin(
    orders: Sequence[Sequence[dict[str, Any]]],
) -> None:
    """Each gets more requests than the node has places for, from the moment on in which it is ready."""
    async with groups(ENDLESS, [("ultra",)], cluster=False) as there:
        asking: list[asyncio.Task[Seen]] = []
        most = 0

        async def all_wait_but(served: int) -> None:
            await eventually(lambda: there.waiting == len(asking) - served)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, there.in_flight(0))
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        for number, models in enumerate(orders):
            await there.join(models)
            asking += there.ask("ultra", BOUND + 2, gateway=number)
            await all_wait_but(BOUND)
        await there.come_to(TOGETHER)
        watching.cancel()
        assert most == BOUND
        await leave(asking)
        await there.nothing_held()


@pytest.mark.parametrize(("held", "holds"), [("", b""), ("ours", b"ours")])
async def test_what_gateways_agreed_on_holds_where_redis_has_lost_it(held: str, holds: bytes) -> None:
    """The first that looks is alone there: the others are written again within a second."""
    async with redis_server() as redis, linked(redis) as link:
        keys = ["{route}:gateways", "{route}:grouping"]
        assert await link.run(AGREE, keys, ("ours", 3000, held)) == [holds, holds, 0]
        redis.do("ZADD", keys[0], 2e12, "other.theirs")
        assert (await link.run(AGREE, keys, ("ours", 3000, held)))[:2] == [holds, holds]
        assert (await link.run(AGREE, keys, ("ours", 0, held)))[1] == b""


async def test_what_the_first_gateway_goes_by_ends_as_soon_as_another_one_comes() -> None:
    async with redis_server() as redis, linked(redis) as link:
        keys = ["{route}:gateways", "{route}:grouping"]
        assert (await link.run(AGREE, keys, ("ours", 3000, UNKNOWN)))[:2] == [b"ours", b"ours"]
        redis.do("ZADD", keys[0], 2e12, "other.theirs")
        assert (await link.run(AGREE, keys, ("ours", 3000, "ours")))[:2] == [b"ours", b""]


async def test_what_was_agreed_on_when_the_clock_was_further_on_ends_as_any_other() -> None:
    """It goes on without a step anew: gateways would leave it and come back to it."""
    async with redis_server() as redis, linked(redis) as link:
        keys = ["{route}:gateways", "{route}:grouping"]
        ahead = int(redis.do("TIME")[0]) * 1000 + 3600_000
        redis.do("SET", keys[1], f"|ours|{ahead}")
        assert await link.run(AGREE, keys, ("ours", 3000, "ours")) == [b"", b"ours", 3000]
        redis.do("ZADD", keys[0], 2e12, "other.theirs")
        assert (await link.run(AGREE, keys, ("ours", 3000, "ours")))[:2] == [b"ours", b""]


@pytest.mark.parametrize("harm", ["kill", "flush", pytest.param("freeze", marks=pytest.mark.prove)])
async def test_a_redis_that_goes_and_comes_back_leaves_nothing_stuck(harm: str) -> None:
    async with groups(replace(QUICK, rate=100), [("ultra",), ("ultra", "nano")], cluster=False) as there:
        for _ in range(2):
            await there.join(GROUPED)
        asking = there.ask("ultra", 20) + there.ask("nano", 10)
        await eventually(lambda: there.waiting >= 5)
        getattr(there.redis, harm)()
        asking += there.ask("nano", 5)
        if harm != "flush":
            await eventually(lambda: not any(each.app.redis and each.app.redis.up for each in there.gateways))
            there.redis.restart() if harm == "kill" else there.redis.thaw()
        asking += there.ask("ultra", 5)
        seen = [await each for each in asking]
        assert lost(seen) == [], {each.body for each in seen if not each.whole}
        await there.nothing_held()


@pytest.mark.prove
async def test_bounds_hold_while_gateways_begin_to_count_apart() -> None:
    """At their own pace: a gateway of an older version leaves while requests come and go."""
    async with groups(replace(QUICK, rate=50, answer_tokens=20), [("ultra",)], cluster=False) as there:
        for models in (GROUPED, GROUPED, PLAIN):
            await there.join(models)
        await there.come_to(TOGETHER)
        stop = asyncio.Event()
        seen: list[Seen] = []

        async def client(number: int) -> None:
            while not stop.is_set():
                url = there.gateways[number % 2].url
                seen.append(await send(url, ask(f"{number} {len(seen)}", model="ultra")))

        async def most_until(phase: GroupPhase) -> int:
            coming, most = asyncio.create_task(there.come_to(phase, *there.gateways[:2])), 0
            while not coming.done():
                most = max(most, there.in_flight(0))
                await asyncio.sleep(0.002)
            await coming
            return most

        clients = [asyncio.create_task(client(number)) for number in range(16)]
        await eventually(lambda: there.in_flight(0) == BOUND)
        there.gateways[2].server.should_exit = True
        # A place is told a moment late to the group by which others still choose. Each on its own would come to twice
        # the bound within one answer.
        assert await most_until(APART) < 2 * BOUND
        ended = len(seen)
        await eventually(lambda: len(seen) >= ended + 2 * BOUND)
        assert there.in_flight(0) <= BOUND
        stop.set()
        await asyncio.gather(*clients)
        assert lost(seen) == []
        await there.nothing_held()
