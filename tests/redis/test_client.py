"""The way to Redis: what it carries, and that nobody waits when Redis is in trouble."""

import asyncio
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.aio.inline_future import InlineFuture
from gateway.redis import client
from gateway.redis.client import RedisClient, RedisRefusesAll, RedisSettings, RedisUnavailable, Script, ScriptFailed
from gateway.redis.connections import EACH
from tests.support.certificates import self_signed
from tests.support.gateways import eventually
from tests.support.redis import Kind, redis_cluster, redis_server
from tests.support.redis import linked as linked_to
from tests.support.resp import resp_proxy

ADD = Script.of("add", "return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[1]}")
NAME = Script.of("name", "return redis.call('SET', KEYS[1], ARGV[1])")
linked = partial(linked_to, timeout=1.0, connect_timeout=2.0)


@pytest.mark.parametrize("kind", ["valkey9", "redis7"])
async def test_calls_of_one_turn_travel_together_and_get_their_own_replies(kind: Kind) -> None:
    async with redis_server(kind) as redis, linked(redis) as link:
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]
        replies = await asyncio.gather(*[link.run(ADD, ["k"], [1]) for _ in range(20)], link.command("GET", "k"))
        assert replies[:20] == [[n, b"1"] for n in range(2, 22)]
        assert 1 <= int(replies[20]) <= 21, "it goes by another connection: before, between or after them"
        pipelines = int(redis.do("INFO", "stats")["total_reads_processed"])
        await asyncio.gather(*[link.run(ADD, ["k"], [1]) for _ in range(100)])
        # One read for the pipeline and those of looking: not a hundred.
        assert int(redis.do("INFO", "stats")["total_reads_processed"]) < pipelines + 20


async def test_a_mistake_in_a_call_is_the_callers_alone() -> None:
    async with redis_server() as redis, linked(redis) as link:
        redis.do("SET", "word", "letters")
        bad = asyncio.create_task(link.run(ADD, ["word"], [1]))
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]
        with pytest.raises(ScriptFailed, match="add: "):
            await bad
        assert link.up


async def test_scripts_that_redis_has_forgotten_are_sent_again() -> None:
    async with redis_server() as redis, linked(redis) as link:
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]
        redis.forget_scripts()
        assert await asyncio.gather(*[link.run(ADD, ["k"], [1]) for _ in range(3)]) == [[n, b"1"] for n in (2, 3, 4)]


async def test_a_frozen_redis_holds_a_call_for_the_timeout_and_later_ones_not_at_all() -> None:
    async with redis_server() as redis, linked(redis, timeout=0.5) as link:
        changes: list[bool] = []
        link.on_change(changes.append)
        redis.freeze()
        with pytest.raises(RedisUnavailable, match="no answer in time"):
            await link.run(ADD, ["k"], [1])
        call = link.submit(("EVALSHA", ADD.sha, 1, "k", 1), ADD)
        assert call.done(), "the breaker answers on the spot"
        with pytest.raises(RedisUnavailable):
            await call
        redis.thaw()
        await eventually(lambda: link.up)
        assert changes == [False, True]
        assert link.reason is None and link.outages == 1


def be_busy(seconds: float) -> None:
    """What else a turn of the loop has to do, on a slow machine."""
    time.sleep(seconds)


async def test_a_turn_that_takes_long_does_not_make_an_answer_late() -> None:
    slow = Script.of("slow", "for i = 1, 1000000 do end return 1")
    async with redis_server() as redis, linked(redis, timeout=1.0) as link:
        assert await link.run(slow, ["k"]) == 1
        call = link.submit(("EVALSHA", slow.sha, 1, "k"), slow)
        be_busy(1.2)
        assert await call == 1
        assert link.outages == 0


async def test_a_call_that_is_gathered_while_the_clock_is_looked_at_has_its_time_too() -> None:
    loop = asyncio.get_running_loop()
    async with redis_server() as redis, linked(redis, timeout=0.5, connect_timeout=100.0) as link:
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]
        redis.freeze()
        asked: asyncio.Future[InlineFuture[Any]] = loop.create_future()

        def ask() -> None:
            loop.remove_reader(ours)
            be_busy(0.6)  # the time of the first call passes: the loop looks at its clock before it sends this one
            asked.set_result(link.submit(("EVALSHA", ADD.sha, 1, "k", 1), ADD))

        ours, its = socket.socketpair()
        with ours, its:
            loop.add_reader(ours, ask)
            its.send(b"go")
            call = await asked
            async with asyncio.timeout(30):  # the probe alone would wait for longer
                with pytest.raises(RedisUnavailable, match="no answer in time"):
                    await call
        redis.thaw()


async def test_a_burst_is_given_the_time_that_what_is_ahead_of_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "IDLE_CHECK", 600.0)  # on a busy machine the script outlasts a look at Redis
    busy = Script.of("busy", "local ends = os.clock() + ARGV[1] repeat until os.clock() > ends return 1")
    ahead = round(30.0 / EACH)
    async with redis_server() as redis, linked(redis, timeout=2.0) as link:
        assert await link.run(busy, ["k"], [0]) == 1
        calls = [link.submit(("PING",)) for _ in range(ahead)]
        assert await link.run(busy, ["k"], [2.5]) == 1, "it had 2 s, and 30 for those ahead of it"  # of CPU time
        assert [await call for call in calls] == [b"PONG"] * ahead
        assert link.outages == 0
        with pytest.raises(RedisUnavailable, match="no answer in time"):  # nothing is ahead any more
            await link.run(busy, ["k"], [4.0])


async def test_everybody_is_told_although_a_listener_fails() -> None:
    async with redis_server() as redis, linked(redis) as link:
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]

        def fail(_: bool) -> None:
            raise OSError("no space left")

        link.on_change(fail)
        redis.do("CONFIG", "SET", "maxmemory", 1)
        async with asyncio.timeout(30):
            told = await asyncio.gather(*[link.run(ADD, ["k"], [1]) for _ in range(5)], return_exceptions=True)
        assert [type(error) for error in told] == [RedisRefusesAll] * 5
        redis.do("CONFIG", "SET", "maxmemory", 0)


async def test_a_killed_redis_is_noticed_without_a_call_and_so_is_its_return() -> None:
    async with redis_server() as redis, linked(redis) as link:
        redis.kill()
        await eventually(lambda: not link.up)
        with pytest.raises(RedisUnavailable, match="connect"):
            await link.run(ADD, ["k"], [1])
        redis.restart()
        await eventually(lambda: link.up)
        assert await link.run(ADD, ["k"], [1]) == [1, b"1"]


async def test_who_stops_as_redis_falls_does_not_wait_for_ever() -> None:
    async with redis_server() as redis:
        link = RedisClient(RedisSettings(redis.url, timeout=1.0, connect_timeout=2.0))
        await link.start()
        await asyncio.sleep(0)  # it watches
        redis.kill()
        with pytest.raises(RedisUnavailable):
            await link.run(ADD, ["k"], [1])
        async with asyncio.timeout(30):
            await link.stop()


async def test_a_command_that_is_cancelled_at_any_moment_ends() -> None:
    async with redis_server() as redis, linked(redis) as link:
        for turns in range(40):
            asked = asyncio.create_task(link.command("GET", "k"))
            for _ in range(turns):
                await asyncio.sleep(0)
            if asked.cancel():
                await asyncio.wait([asked])
                assert asked.cancelled(), f"forgotten after {turns} turns of the loop"
        assert link.up


async def test_a_lost_connection_to_a_healthy_redis_is_not_an_outage() -> None:
    async with redis_server() as redis, linked(redis) as link:
        await link.run(ADD, ["k"], [1])
        redis.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert (await link.run(NAME, ["k"], ["v"])) == b"OK"
        assert link.outages == 0


async def test_a_redis_that_cannot_write_is_as_good_as_none() -> None:
    async with redis_server() as redis, linked(redis) as link:
        redis.do("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(RedisUnavailable):
            await link.run(ADD, ["k"], [1])
        assert not link.up
        redis.do("REPLICAOF", "NO", "ONE")
        await eventually(lambda: link.up)


async def test_a_full_redis_is_as_good_as_none() -> None:
    async with redis_server() as redis, linked(redis) as link:
        redis.do("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RedisUnavailable):
            await link.run(ADD, ["k"], [1])
        assert not link.up
        redis.do("CONFIG", "SET", "maxmemory", "0")
        await eventually(lambda: link.up)


async def test_who_leaves_while_waiting_takes_nobody_along() -> None:
    async with redis_server() as redis, linked(redis) as link:
        leaving = asyncio.create_task(link.run(ADD, ["k"], [1]))
        staying = asyncio.create_task(link.run(ADD, ["k"], [1]))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying)[1] == b"1"
        with pytest.raises(asyncio.CancelledError):
            await leaving


async def test_a_gateway_may_start_before_its_redis() -> None:
    async with redis_server() as redis:
        redis.kill()
        async with linked(redis) as link:
            assert not link.up
            redis.restart()
            await eventually(lambda: link.up)


async def test_tls_and_an_acl_user(tmp_path: Path) -> None:
    made = self_signed(tmp_path)
    acl = ("--user", "gate", "on", ">pass", "~fg1:*", "+@all")
    tls = ("--tls-cert-file", str(made.cert), "--tls-key-file", str(made.key), "--tls-auth-clients", "no")
    async with redis_server("redis7", *tls, *acl, tls=True) as redis:
        url = redis.url.replace("://", "://gate:pass@")
        link = RedisClient(RedisSettings(url, ca_file=made.cert, timeout=1.0, connect_timeout=2.0))
        await link.start()
        try:
            assert await link.run(ADD, ["fg1:k"], [1]) == [1, b"1"]
            with pytest.raises(ScriptFailed, match=r"(?i)permission"):
                await link.run(ADD, ["other"], [1])
        finally:
            await link.stop()


async def test_a_renewed_certificate_is_no_outage(tmp_path: Path) -> None:
    """The server shows another one, of another authority, whose file was written anew before."""
    folders, ca = (tmp_path / "old", tmp_path / "new"), tmp_path / "ca.pem"
    for folder in folders:
        folder.mkdir()
    old, new = map(self_signed, folders)
    ca.write_bytes(old.cert.read_bytes())
    tls = ("--tls-cert-file", str(old.cert), "--tls-key-file", str(old.key), "--tls-auth-clients", "no")
    async with redis_server("redis7", *tls, tls=True) as redis:
        link = RedisClient(RedisSettings(redis.url, ca_file=ca, timeout=5.0, connect_timeout=5.0))
        await link.start()
        try:
            for way in (link, link.reports):
                assert await way.command("GET", "k") is None
            assert await link.run(ADD, ["k"], [1]) == [1, b"1"]
            ca.write_bytes(old.cert.read_bytes() + new.cert.read_bytes())
            with redis.client(ssl=True, ssl_ca_certs=str(old.cert)) as admin:
                files = ("tls-cert-file", str(new.cert), "tls-key-file", str(new.key))
                admin.execute_command("CONFIG", "SET", *files)
                admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await link.run(ADD, ["k"], [1]) == [2, b"1"]
            for way in (link, link.reports):
                assert await way.command("GET", "k") == b"2"
            assert link.outages == 0
        finally:
            await link.stop()


async def test_a_cluster() -> None:
    async with redis_cluster() as redis, linked(redis) as link:
        keys = [f"k{{{number}}}" for number in range(30)]
        assert await asyncio.gather(*[link.run(ADD, [key], [1]) for key in keys]) == [[1, b"1"]] * 30
        assert all(node.do("DBSIZE") > 0 for node in redis.nodes), "every node holds some of them"
        for node in redis.nodes:
            node.forget_scripts()
        assert await asyncio.gather(*[link.run(ADD, [key], [1]) for key in keys]) == [[2, b"1"]] * 30


async def test_what_failed_over_an_outage_that_is_over_makes_no_other_one() -> None:
    never = asyncio.Event()
    async with redis_server() as redis, resp_proxy(redis) as proxy:
        proxy.meanwhile = lambda command: never.wait() if command[0] == b"GET" else None  # type: ignore[assignment,return-value]
        link = RedisClient(RedisSettings(proxy.url, timeout=0.5, connect_timeout=5.0))
        await link.start()
        try:
            asking = asyncio.create_task(link.command("GET", "k"))
            await eventually(lambda: [b"GET", b"k"] in proxy.asked)
            proxy.strike(b"-LOADING Redis is loading the dataset in memory\r\n")
            with pytest.raises(RedisUnavailable):
                await link.run(ADD, ["k"], [1])
            proxy.heal()
            await eventually(lambda: link.up)
            assert not asking.done()
            with pytest.raises(RedisUnavailable):
                await asking
            assert (link.up, link.outages) == (True, 1)
        finally:
            await link.stop()
