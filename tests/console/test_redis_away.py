"""Redis goes away while a console is open, refuses, and comes back: the console goes on with what it has."""

from typing import Any

from tests.console.chromium import TOKEN
from tests.console.operators import operator, watching
from tests.support.gateways import eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import FakeSettings, serve_fake


async def test_a_console_goes_on_without_redis_and_notices_when_it_is_back() -> None:
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        settings: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True},
            "usage": {"stored": True},
            "admin": {"token": TOKEN, "hosts": []},
        }
        async with running_gateway(node.url, **settings) as one, running_gateway(node.url, **settings) as two:
            async with operator(one.admin_url) as client, watching(client) as seen, operator(two.admin_url):
                await eventually(lambda: seen.facts.get("redis") is True and seen.facts["gateways"] == 2)
                redis.kill()
                await eventually(lambda: seen.facts["redis"] is False)
                count = seen.events
                await eventually(lambda: seen.events > count + 1)
                assert seen.tables["nodes"]
                got = await client.delete("/admin/requests/nobody")
                assert got.status_code == 404
                assert (await client.post("/admin/block", json={"tenant": "default"})).status_code in (404, 503)
                redis.restart()
                await eventually(lambda: seen.facts["redis"] is True)
                count = seen.events
                await eventually(lambda: seen.events > count + 1)


async def test_a_redis_that_refuses_the_consoles_calls_does_not_blind_it() -> None:
    """Its key is of another type: each call of the console fails, and no other."""
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        settings: dict[str, Any] = {"redis": redis.settings, "admin": {"token": TOKEN, "hosts": []}}
        async with running_gateway(node.url, **settings) as one, running_gateway(node.url, **settings) as two:
            async with operator(one.admin_url) as client:
                await eventually(lambda: one.app.fleet.gateways == two.app.fleet.gateways == 2)
                assert one.app.redis is not None
                redis.do("SET", f"{one.app.redis.schema.live}:{{console}}:orders", "x")
                async with watching(client) as seen:
                    await eventually(lambda: seen.events > 2)
                    assert seen.tables["nodes"] and seen.facts["redis"] is True
