"""A reload gives Redis another password, address or time: no call is lost, nothing is left, and it is no outage."""

import asyncio
import dataclasses
import socket
from pathlib import Path

import pytest
import yaml

from gateway.core.access.api_keys import key_digest
from gateway.redis.client import RedisClient, Script
from tests.flow.test_server_process import Stage
from tests.support.gateway_process import gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import scripted_node
from tests.support.redis import RedisServer, linked, redis_server
from tests.support.rights import documented

ADD = Script.of("add", "return {redis.call('HINCRBY', KEYS[1], 'n', ARGV[1]), ARGV[1]}")


def go_over(link: RedisClient, url: str) -> None:
    link.configure(dataclasses.replace(link._settings, url=url))


def password(redis: RedisServer, new: str, old: str | None = None) -> str:
    """Have the user `gate` take `new`, and `old` no more; the URL with the new one."""
    rights = [] if old else ["on", *documented("rights")]
    redis.do("ACL", "SETUSER", "gate", *rights, f">{new}", *([f"<{old}"] if old else []))
    return redis.url.replace("://", f"://gate:{new}@")


def connections(redis: RedisServer) -> int:
    """Those of others than who asks."""
    return int(redis.do("CLIENT", "LIST").count(b"\n")) - 1


async def test_another_password_is_no_outage() -> None:
    async with redis_server() as redis, linked(redis) as link:
        go_over(link, password(redis, "first"))
        for old, new in (("first", "second"), ("second", "third")):
            assert (await link.run(ADD, ["fg1:k"], [1]))[1] == b"1"
            for way in (link, link.reports):
                await way.command("HGET", "fg1:k", "n")
            go_over(link, password(redis, new, old))
            redis.do("CLIENT", "KILL", "USER", "gate")
        assert await link.run(ADD, ["fg1:k"], [1]) == [3, b"1"]
        for way in (link, link.reports):
            assert await way.command("HGET", "fg1:k", "n") == b"3"
        assert link.up and link.outages == 0
        await eventually(lambda: connections(redis) <= 3)


async def test_what_is_under_way_ends_where_it_is() -> None:
    async with redis_server() as old, redis_server() as new, linked(old) as link:
        await link.run(ADD, ["k"], [1])
        old.freeze()
        waiting = [asyncio.ensure_future(link.run(ADD, ["k"], [1])) for _ in range(20)]
        waiting.append(asyncio.ensure_future(link.command("HGET", "k", "n")))
        await asyncio.sleep(0.05)
        go_over(link, new.url)
        assert await link.run(ADD, ["k"], [100]) == [100, b"100"]
        old.thaw()
        *added, read = await asyncio.gather(*waiting)
        assert [reply[0] for reply in added] == list(range(2, 22)) and read in (b"100", None)
        assert link.up and link.outages == 0
        await eventually(lambda: connections(old) == 0)


@pytest.mark.parametrize("turns", range(12))
async def test_no_call_is_lost_whenever_it_goes_over(turns: int) -> None:
    """Also while a connection is being made, and in the turn in which calls are gathered."""
    async with redis_server() as old, redis_server() as new, linked(old) as link:
        if turns % 2:
            await link.run(ADD, ["k"], [1])
        calls = [asyncio.ensure_future(link.run(ADD, ["k"], [1])) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        go_over(link, new.url)
        calls += [asyncio.ensure_future(link.run(ADD, ["k"], [1])) for _ in range(5)]
        await asyncio.gather(*calls)
        assert link.outages == 0
        assert sum(int(redis.do("HGET", "k", "n") or 0) for redis in (old, new)) == 10 + turns % 2
        await eventually(lambda: connections(old) == 0)


async def test_a_connection_that_is_being_made_to_the_old_address_is_not_waited_for() -> None:
    with socket.socket() as silent:  # takes connections, and answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with redis_server() as redis, linked(redis, timeout=30.0, connect_timeout=30.0) as link:
            go_over(link, f"redis://127.0.0.1:{silent.getsockname()[1]}")
            calls = [asyncio.ensure_future(link.run(ADD, ["k"], [1])) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert not any(call.done() for call in calls)
            go_over(link, redis.url)
            assert [reply[0] for reply in await asyncio.gather(*calls)] == [1, 2, 3]
            assert link.outages == 0


async def test_a_connection_of_before_that_breaks_has_its_calls_sent_anew() -> None:
    async with redis_server() as old, redis_server() as new, linked(old) as link:
        await link.run(ADD, ["k"], [1])
        old.freeze()
        call = asyncio.ensure_future(link.run(ADD, ["k"], [1]))
        await asyncio.sleep(0.05)
        go_over(link, new.url)
        old.kill()
        assert await call == [1, b"1"]
        assert link.outages == 0


async def test_an_outage_ends_at_the_new_address() -> None:
    async with redis_server() as old, redis_server() as new, linked(old) as link:
        old.kill()
        await eventually(lambda: not link.up)
        go_over(link, new.url)
        await eventually(lambda: link.up)
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]


async def test_a_gateway_goes_over_at_a_reload(tmp_path: Path) -> None:
    """The new password is added, the file is reloaded, and the old password is removed: no process loses Redis."""
    file, secret = tmp_path / "fleetgate.yaml", tmp_path / "url"
    async with redis_server() as redis, scripted_node(Stage().reply) as node:
        secret.write_text(password(redis, "first"))
        settings = {
            "nodes": [{"url": node.url}],
            "redis": {"url": {"file": str(secret)}, "timeout": 5, "connect_timeout": 5},
            "tenants": [{"name": "t", "keys": [{"sha256": key_digest("k").hex()}]}],
        }
        file.write_text(yaml.safe_dump(settings))
        async with gateway_process("-c", file, "--workers", "2") as gateway:
            await eventually(lambda: len(gateway.events("max_connections_set")) == 2)  # both have read the file
            redis.do("ACL", "SETUSER", "gate", ">second")
            secret.write_text(redis.url.replace("://", "://gate:second@"))
            file.write_text(yaml.safe_dump({**settings, "timeouts": {"idle": 77}}))
            await eventually(lambda: len(gateway.events("config_reloaded")) == 2)
            redis.do("ACL", "SETUSER", "gate", "<first")
            redis.do("CLIENT", "KILL", "USER", "gate")
            calls = int(redis.do("INFO", "stats")["total_commands_processed"])
            await eventually(lambda: int(redis.do("INFO", "stats")["total_commands_processed"]) > calls + 40)
            for line in gateway.events("config_reloaded"):
                assert sorted(line["changed"]) == ["redis.url: changed", "timeouts.idle: 120.0 -> 77.0"]
                assert line["needs_restart"] == []
            assert gateway.events("redis_lost") == gateway.events("redis_refused") == []
