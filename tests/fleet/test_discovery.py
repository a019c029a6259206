"""Nodes that come and go: sources merged, names resolved, registrations believed, gateways counted."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.core.fleet.registration import KnownRegistrations, RegistrationTrust
from gateway.fleet.dns import DnsName, DnsWatch
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.registrations import RegistrationRules, Registrations
from tests.support.gateways import eventually, running_gateway
from tests.support.redis import RedisServer, linked, redis_server
from tests.support.registrations import record
from workers.fake import FakeSettings, serve_fake
from workers.registration import TIME_TO_LIVE_SECONDS
from workers.registry import RedisRegistry

SECRET = "shared by both sides"
TRUST = RegistrationTrust(secret=SECRET)


class Taken:
    """The URLs that a roster gave last, and how often it gave any."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.times = 0

    def __call__(self, specs: Sequence[NodeSpec]) -> None:
        self.urls = [spec.url for spec in specs]
        self.times += 1


def test_sources_are_merged_and_the_first_is_believed() -> None:
    specs: list[NodeSpec] = []
    sources = NodeSources(("config", "dns"), lambda told: specs.__setitem__(slice(None), told))
    sources.update("dns", [NodeSpec("http://a:1", weight=5.0), NodeSpec("http://b:1")])
    sources.update("config", [NodeSpec("http://a:1", weight=2.0)])
    assert [(spec.url, spec.weight) for spec in specs] == [("http://a:1", 2.0), ("http://b:1", 1.0)]
    sources.update("config", [])
    assert [(spec.url, spec.weight) for spec in specs] == [("http://a:1", 5.0), ("http://b:1", 1.0)]


async def test_every_address_of_a_name_is_a_node_until_it_is_gone_from_it() -> None:
    addresses, taken = ["10.0.0.2", "10.0.0.1", "fd00::1"], Taken()

    async def resolve(host: str) -> list[str]:
        assert host == "vllm"
        if not addresses:
            raise OSError("no such name")
        return addresses

    name = DnsName("vllm", 8000, 5.0, NodeSpec("http://vllm", api_key="k", max_concurrency=8))
    watch = DnsWatch(name, NodeSources(("dns",), taken), "dns", resolve)
    await watch.resolve()
    await watch.resolve()
    assert taken.urls == ["http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://[fd00::1]:8000"]
    assert taken.times == 1, "nothing is told where nothing changed"
    addresses[:] = ["10.0.0.2"]
    await watch.resolve()
    assert taken.urls == ["http://10.0.0.2:8000"]
    addresses.clear()
    await watch.resolve()
    assert taken.urls == ["http://10.0.0.2:8000"], "a name server that is gone costs no node"


async def test_a_gateway_finds_its_nodes_under_a_name() -> None:
    async with serve_fake(FakeSettings()) as node:
        dns = {"host": "localhost", "port": int(node.url.rpartition(":")[2]), "interval": 0.1}
        async with running_gateway(discovery={"dns": [dns]}) as gateway:
            assert node.url in {found.spec.url for found in gateway.app.fleet.nodes}


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


def looks(redis: RedisServer) -> int:
    """How often a gateway has read the registrations since the server began."""
    return int(redis.do("INFO", "commandstats").get("cmdstat_zrangebyscore", {}).get("calls", 0))


def discovering(redis: RedisServer) -> dict[str, Any]:
    return {"redis": redis.settings, "discovery": {"registrations": {"secret": SECRET, "interval": 0.05}}}


async def test_nodes_come_and_go_as_they_register(redis: RedisServer) -> None:
    async with serve_fake(FakeSettings()) as one, serve_fake(FakeSettings()) as two:
        async with running_gateway(one.url, **discovering(redis)) as gateway:
            fleet = gateway.app.fleet
            async with RedisRegistry(redis.url, SECRET) as registry, RedisRegistry(redis.url, "guessed") as stranger:
                await stranger.announce(record("http://127.0.0.1:9"))
                await registry.announce(record(two.url, state="starting"))
                await registry.announce(record(two.url, weight=3.0, labels={"zone": "a"}))
                await eventually(lambda: len(fleet.nodes) == 2 and fleet.nodes[1].ready)
                spec = fleet.nodes[1].spec
                assert (spec.weight, spec.max_concurrency, spec.labels) == (3.0, 8, (("zone", "a"),))
                async with httpx.AsyncClient() as client:
                    shown = (await client.get(f"{gateway.admin_url}/admin/fleet")).json()
                configured, registered = shown["nodes"]
                assert configured["launch"] is None
                told = {"profile": "fake", "max_model_len": 4096, "warm_up": False, "thinking_budget": "not_checked"}
                assert registered["launch"] == {"vllm_version": None, "price_kind": None, **told}

                await registry.announce(record(two.url, state="draining"))
                await eventually(lambda: not fleet.nodes[1].ready)
                await registry.announce(record(two.url))
                await eventually(lambda: fleet.nodes[1].ready)
                await registry.announce(record(two.url, state="failed"))
                await eventually(lambda: [node.spec.url for node in fleet.nodes] == [one.url])


async def test_a_node_is_asked_only_for_models_that_it_registered(redis: RedisServer) -> None:
    settings = FakeSettings(models=("nemotron-3-ultra", "another"))
    async with serve_fake(settings) as node, RedisRegistry(redis.url, SECRET) as registry:
        await registry.announce(record(node.url))
        async with running_gateway(**discovering(redis)) as gateway:
            assert list(gateway.app.fleet.served) == ["nemotron-3-ultra"]


async def test_a_redis_that_dies_or_comes_back_empty_costs_no_node(redis: RedisServer) -> None:
    async with serve_fake(FakeSettings()) as node, RedisRegistry(redis.url, SECRET) as registry:
        await registry.announce(record(node.url))
        async with running_gateway(**discovering(redis)) as gateway:
            link = gateway.app.redis
            assert link is not None
            redis.kill()
            await eventually(lambda: not link.up)
            assert gateway.app.fleet.serves()
            redis.restart()
            await eventually(lambda: link.up)
            await eventually(lambda: looks(redis) > 1)
            assert gateway.app.fleet.serves()


async def test_gateways_are_counted(redis: RedisServer) -> None:
    async with serve_fake(FakeSettings()) as node:
        settings: dict[str, Any] = {"redis": redis.settings, "nodes": [{"url": node.url, "max_concurrency": 9}]}
        async with running_gateway(**settings) as one, running_gateway(**settings) as two:
            await eventually(lambda: one.app.fleet.gateways == two.app.fleet.gateways == 2)
            async with running_gateway(**settings):
                await eventually(lambda: one.app.fleet.gateways == 3)
            await eventually(lambda: one.app.fleet.gateways == 2)


def test_both_sides_agree_on_a_records_life() -> None:
    from gateway.core.fleet.registration import TIME_TO_LIVE

    assert TIME_TO_LIVE == TIME_TO_LIVE_SECONDS
    assert json.loads(record("http://127.0.0.1:1").wire(SECRET))["signature"]


async def test_a_large_fleet_is_known_with_one_look_and_a_record_read_again_once_it_is_renewed(
    redis: RedisServer,
) -> None:
    """So many reads at once would each have opened a connection."""
    async with linked(redis) as link, RedisRegistry(redis.url, SECRET) as registry:
        taken = Taken()
        rules = RegistrationRules(TRUST)
        watch = Registrations(link, rules, NodeSources(("registrations",), taken), Fleet())

        def reads() -> int:
            return int(redis.do("INFO", "commandstats").get("cmdstat_get", {}).get("calls", 0))

        for port in range(1, 401):
            await registry.announce(record(f"http://10.0.0.1:{port}"))
        await watch.poll()
        assert (len(taken.urls), reads()) == (400, 400)
        await watch.poll()
        assert (len(taken.urls), reads(), taken.times) == (400, 400, 1)
        await registry.announce(record("http://10.0.0.1:7", weight=2.0))
        await registry.withdraw("n-8")
        redis.do("DEL", "fleetgate:node:n-9")
        redis.do("LPUSH", "fleetgate:node:n-9", "of another type")
        await watch.poll()
        assert (len(taken.urls), taken.times) == (400, 2), "one that is gone stays for a while"
        assert 400 < reads() <= 403


async def registered(redis: RedisServer, count: int) -> None:
    async with RedisRegistry(redis.url, SECRET) as registry:
        for port in range(1, count + 1):
            await registry.announce(record(f"http://10.0.0.1:{port}"))


def failing(times: int, real: Any, only: Callable[..., bool]) -> Any:
    """`real`, which raises the first `times` that `only` is true of its arguments."""
    left = [times]

    def call(*given: Any) -> Any:
        if left[0] and only(*given):
            left[0] -= 1
            raise RuntimeError("a fault of our own")
        return real(*given)

    return call


async def test_a_record_that_cannot_be_read_costs_no_other_and_is_read_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await registered(redis, 3)
    async with linked(redis) as link:
        taken = Taken()
        watch = Registrations(link, RegistrationRules(TRUST), NodeSources(("registrations",), taken), Fleet())
        reads = failing(2, KnownRegistrations.read, lambda _, node_id, *__: node_id == "n-2")
        monkeypatch.setattr(KnownRegistrations, "read", reads)
        for expected in (2, 2, 3, 3):
            await watch.poll()
            assert len(taken.urls) == expected
    assert capsys.readouterr().out.count("registration_refresh_failed") == 1


async def test_a_poll_that_fails_is_made_up_for_by_the_next(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registered(redis, 3)
    async with linked(redis) as link:
        taken = Taken()
        watch = Registrations(link, RegistrationRules(TRUST), NodeSources(("registrations",), taken), Fleet())
        monkeypatch.setattr(Registrations, "_spec", failing(1, Registrations._spec, lambda *_: True))
        with pytest.raises(RuntimeError):
            await watch.poll()
        await watch.poll()
        assert len(taken.urls) == 3, "though none of them was renewed"


async def test_a_node_that_cannot_be_updated_keeps_no_other_from_its_drain(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with linked(redis) as link, RedisRegistry(redis.url, SECRET) as registry:
        for port in (1, 2):
            await registry.announce(record(f"http://10.0.0.1:{port}", state="draining"))
        fleet = Fleet()

        def taken(specs: list[NodeSpec]) -> None:
            fleet.update(specs)

        sources = NodeSources(("registrations",), taken)
        watch = Registrations(link, RegistrationRules(TRUST), sources, fleet)
        drains = failing(3, Node.drain_for, lambda node, *_: node.spec.url == "http://10.0.0.1:1")
        monkeypatch.setattr(Node, "drain_for", drains)
        for drained in (1, 1, 1, 2):
            await watch.poll()
            assert sum(node.closed for node in fleet.nodes) == drained
    assert capsys.readouterr().out.count("registration_refresh_failed") == 1


async def test_a_fault_is_logged_once_where_a_record_is_named_as_its_node(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read, and the node is not updated."""
    async with linked(redis) as link, RedisRegistry(redis.url, SECRET) as registry:
        fleet = Fleet()

        def taken(specs: list[NodeSpec]) -> None:
            fleet.update(specs)

        watch = Registrations(link, RegistrationRules(TRUST), NodeSources(("registrations",), taken), fleet)
        monkeypatch.setattr(Node, "drain_for", failing(3, Node.drain_for, lambda *_: True))
        for _ in range(4):
            await registry.announce(record("http://10.0.0.1:1").model_copy(update={"node_id": "10.0.0.1:1"}))
            await watch.poll()
        assert [node.name for node in fleet.nodes] == ["10.0.0.1:1"]
    assert capsys.readouterr().out.count("registration_refresh_failed") == 1
