"""Where requests go, seen at the nodes: conversations stay, load spreads, and nothing that was taken stays taken."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
CHAT = "/v1/chat/completions"
PENDING = "fg1:{route}:pending"
ENTRIES = "fg1:{route}:entries"


@pytest_asyncio.fixture
async def nodes(request: pytest.FixtureRequest) -> AsyncIterator[list[FakeNode]]:
    """Three, set as the test's parameter says."""
    settings = getattr(request, "param", FakeSettings(max_model_len=200_000))
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serve_fake(settings)) for _ in range(3)]


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@contextlib.asynccontextmanager
async def gateway_of(nodes: list[FakeNode], **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway that has found all of its nodes."""
    async with running_gateway(*[node.url for node in nodes], **settings) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        yield gateway


def turns(name: str, count: int) -> list[dict[str, str]]:
    """A conversation in its `count`th turn."""
    words = f"{name} " * 500
    told = [{"role": "user", "content": f"{words}{turn}"} for turn in range(count)]
    return [{"role": "system", "content": f"{name}'s agent"}, *told]


async def ask(gateway: RunningGateway, messages: list[dict[str, str]], **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "stream": True, "messages": messages, "max_tokens": 4, **fields}
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{gateway.url}{CHAT}", json=body)


def asked(nodes: list[FakeNode]) -> list[int]:
    return [node.stats.requests.get(CHAT, 0) for node in nodes]


async def test_a_conversation_stays_where_its_cache_is_and_others_spread(nodes: list[FakeNode]) -> None:
    async with gateway_of(nodes) as gateway:
        for count in range(1, 6):
            await ask(gateway, turns("ada", count))
        assert sorted(asked(nodes)) == [0, 0, 5]
        await asyncio.gather(*[ask(gateway, turns(f"person {i}", 1)) for i in range(24)])
        assert min(asked(nodes)) >= 4
        assert gateway.app.router.placement.pending == {}


async def test_gateways_that_share_redis_know_each_others_conversations(
    nodes: list[FakeNode], redis: RedisServer
) -> None:
    async with gateway_of(nodes, redis=redis.settings) as one, gateway_of(nodes, redis=redis.settings) as two:
        for name in ("ada", "bob", "cyd"):
            before = asked(nodes)
            for count in range(1, 7):
                await ask((one, two)[count % 2], turns(name, count))
            here = [after - then for after, then in zip(asked(nodes), before, strict=True)]
            assert sorted(here) == [0, 0, 6]
        await eventually(lambda: redis.do("HLEN", PENDING) == redis.do("HLEN", ENTRIES) == 0)


async def test_requests_go_on_while_redis_is_away(nodes: list[FakeNode], redis: RedisServer) -> None:
    async with gateway_of(nodes, redis=redis.settings) as gateway:
        link = gateway.app.redis
        assert link is not None
        await ask(gateway, turns("ada", 1))
        home = asked(nodes)
        redis.kill()
        for count in range(2, 5):
            assert (await ask(gateway, turns("ada", count))).status_code == 200
        assert asked(nodes) == [4 * served for served in home], "its own memory knows the conversation, too"
        redis.restart()
        await eventually(lambda: link.up)
        assert (await ask(gateway, turns("ada", 5))).status_code == 200


async def test_what_a_dead_node_had_in_its_cache_is_forgotten(nodes: list[FakeNode]) -> None:
    health = {"interval": 0.05, "timeout": 2.0, "slow_start": 0}
    async with gateway_of(nodes, health=health) as gateway:
        await ask(gateway, turns("ada", 1))
        home = asked(nodes).index(1)
        node = gateway.app.fleet.nodes[home]
        nodes[home].crash()
        await eventually(lambda: not node.ready)
        await nodes[home].restart()
        await eventually(lambda: node.ready)
        placement = gateway.app.router.placement
        (conversation,) = placement._last
        left = placement.left(conversation, asyncio.get_running_loop().time())
        assert left is not None
        assert left.age > asyncio.get_running_loop().time() - node.cold_since, "older than the node's caches"


@pytest.mark.parametrize("nodes", [FakeSettings(rate=20)], indirect=True)
async def test_a_hot_conversation_does_not_overload_its_node(nodes: list[FakeNode]) -> None:
    """All of its prompt is cached in one place, and the answers are long: it spreads as places fill."""
    listed = [{"url": node.url, "max_concurrency": 8} for node in nodes]
    async with running_gateway(nodes=listed) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        await ask(gateway, turns("ada", 1))
        many = [asyncio.create_task(ask(gateway, turns("ada", 1), max_tokens=40)) for _ in range(20)]
        await eventually(lambda: sum(asked(nodes)) == 21)
        assert max(node.in_flight for node in gateway.app.fleet.nodes) <= 8
        answers = await asyncio.gather(*many)
        assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("kind", ["hang", "die", "status"])
async def test_what_fails_gives_its_place_and_its_work_back(
    nodes: list[FakeNode], redis: RedisServer, kind: Any
) -> None:
    async with gateway_of(nodes, redis=redis.settings) as gateway:
        for node in nodes:
            node.set_faults(Fault(kind))
        with contextlib.suppress(httpx.HTTPError):
            body = {"model": MODEL, "stream": True, "messages": turns("ada", 1)}
            async with httpx.AsyncClient(timeout=0.5) as client:  # this client has no patience
                await client.post(f"{gateway.url}{CHAT}", json=body)
        await eventually(lambda: all(node.in_flight == 0 for node in gateway.app.fleet.nodes))
        assert gateway.app.router.placement.pending == {}
        await eventually(lambda: redis.do("HLEN", PENDING) == redis.do("HLEN", ENTRIES) == 0)


async def test_a_request_that_its_limits_refuse_takes_nothing(nodes: list[FakeNode], redis: RedisServer) -> None:
    limits = {"default": {"requests_per_minute": 1}}
    async with gateway_of(nodes, redis=redis.settings, limits=limits) as gateway:
        statuses = [(await ask(gateway, turns("ada", 1))).status_code for _ in range(3)]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        await eventually(lambda: redis.do("HLEN", PENDING) == redis.do("HLEN", ENTRIES) == 0)
        assert sum(asked(nodes)) == statuses.count(200)


async def test_each_model_has_its_own_policy(nodes: list[FakeNode]) -> None:
    models = [{"name": MODEL, "routing": "round_robin"}]
    async with gateway_of(nodes, models=models) as gateway:
        for _ in range(6):
            await ask(gateway, turns("ada", 1))
        assert asked(nodes) == [2, 2, 2]


async def expected_cached(gateway: RunningGateway) -> float:
    """Prompt tokens that were expected in caches so far."""
    async with httpx.AsyncClient(timeout=30) as client:
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
    found = [line for line in page.splitlines() if line.startswith("fleetgate_expected_cached_tokens_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.mark.parametrize("nodes", [FakeSettings(max_model_len=200_000, block_size=528, capacity=40)], indirect=True)
@pytest.mark.parametrize("shared", [False, True])
async def test_a_conversation_has_whole_blocks_in_a_cache_until_others_have_filled_it(
    nodes: list[FakeNode], redis: RedisServer, shared: bool
) -> None:
    settings: dict[str, Any] = {"redis": {"url": redis.url}} if shared else {}
    async with gateway_of(nodes, **settings) as gateway:
        await eventually(lambda: all(node.kv_tokens == 528 * 40 for node in gateway.app.fleet.nodes))
        short, long = [{"role": "user", "content": "hello " * 60}], turns("ada", 3)
        for _ in range(2):
            await ask(gateway, short)
        assert await expected_cached(gateway) == 0
        await ask(gateway, long)
        await ask(gateway, long)
        cached = await expected_cached(gateway)
        assert cached > 0
        assert cached % 528 == 0
        # At once, so that they spread: three times as much as the three caches have room for.
        await asyncio.gather(*[ask(gateway, turns(f"other{number:02}", 3)) for number in range(40)])
        before = await expected_cached(gateway)
        await ask(gateway, long)
        assert await expected_cached(gateway) == before
