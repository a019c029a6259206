"""Whatever Redis answers, a request goes by `on_failure`, and every other use by its documented fallback: never 500."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.access.new_keys import make_key
from gateway.core.access.api_keys import key_digest
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from tests.support.resp import RespProxy, resp_proxy
from tests.support.rights import documented, give
from workers.fake import FakeSettings, serve_fake

MODES = ("local", "open", "closed")
SOME = ("local", pytest.param("open", marks=pytest.mark.prove), pytest.param("closed", marks=pytest.mark.prove))
""""open" and "closed" differ in one place, which the tests of rights look at each time."""
KEY, _ = make_key()
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
ERRORS = (
    "NOPERM User x has no permissions to run the 'evalsha' command",
    "ERR ACL failure in script: User x has no permissions to run the 'time' command script: on @user_script:1.",
    "ERR The user executing the script can't run this command or subcommand script: 0f, on @user_script:1.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MISCONF Redis is configured to save RDB snapshots",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOREPLICAS Not enough good replicas to write.",
    "MASTERDOWN Link with MASTER is down",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "MOVED 3999 127.0.0.1:1",
    "ASK 3999 127.0.0.1:1",
    "NOSCRIPT No matching script.",
    "EXECABORT Transaction discarded",
    "ERR user_script:1: attempt to perform arithmetic on a nil value",
    "ERR max number of clients reached",
    "ERR unknown command 'EVALSHA', with args beginning with: 'OOM' 'LOADING'",
    "",
)
SHAPES = (
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b":7\r\n",
    b"$1\r\n7\r\n",
    b"+OK\r\n",
    b"*2\r\n:1\r\n:5\r\n",
    b"*4\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n",
    b"*4\r\n:9\r\n:0\r\n:0\r\n:0\r\n",
    b"*3\r\n:1\r\n-WRONGTYPE within\r\n:1\r\n",
    b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nx\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
)
REPLIES = [f"-{error}\r\n".encode() for error in ERRORS] + list(SHAPES)


@dataclass
class House:
    """A gateway with everything that uses Redis, whose way to it leads through the proxy."""

    gateway: RunningGateway
    redis: RedisServer
    proxy: RespProxy
    client: httpx.AsyncClient
    admin: httpx.AsyncClient

    async def ask(self, key: str = KEY) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return (await self.client.post("/v1/chat/completions", json=BODY, headers=headers)).status_code

    @property
    def link(self) -> Any:
        return self.gateway.app.redis


@contextlib.asynccontextmanager
async def house(mode: str, url: str | None = None) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        proxy = await stack.enter_async_context(resp_proxy(redis))
        nodes = [await stack.enter_async_context(serve_fake(FakeSettings())) for _ in range(2)]
        limits = {"requests_per_minute": 6000, "tokens_per_day": 1_000_000, "concurrent_requests": 50}
        tenant = {"name": "acme", "keys": [{"sha256": key_digest(KEY).hex()}], "limits": limits}
        more: dict[str, Any] = {
            "redis": {**redis.settings, "url": url or proxy.url},
            "access": {"stored": True, "wrong_keys_per_minute": 100_000},
            "limits": {"on_failure": mode},
            "tenants": [tenant],
        }
        gateway = await stack.enter_async_context(running_gateway(*[node.url for node in nodes], **more))
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=30))
        admin = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.admin_url, timeout=30))
        yield House(gateway, redis, proxy, client, admin)


async def operate(at: House) -> set[int]:
    """The statuses of all that an operator does over Redis."""
    node = at.gateway.app.fleet.nodes[0].name
    asked = [
        at.admin.get("/admin/tenants"),
        at.admin.post("/admin/tenants", json={"name": f"t-{asyncio.get_running_loop().time()}"}),
        at.admin.post("/admin/keys", json={"tenant": "acme"}),
        at.admin.get("/admin/keys"),
        at.admin.get("/admin/usage"),
        at.admin.get("/admin/audit"),
        at.admin.post("/admin/undrain", json={"node": node}),
        at.admin.get("/admin/fleet"),
    ]
    return {(await answer).status_code for answer in asked}


@pytest.mark.parametrize("mode", SOME)
async def test_no_answer_of_redis_is_a_500(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with house(mode) as at:
        made = (await at.admin.post("/admin/keys", json={"tenant": "acme"})).json()["key"]
        assert [await at.ask(), await at.ask(made), await at.ask(make_key()[0])] == [200, 200, 401]
        for reply in REPLIES:
            at.proxy.strike(reply, b"SET")  # probes are answered: Redis counts as up wherever that can be
            served = Counter([await at.ask() for _ in range(3)])
            known, strange = await at.ask(made), await at.ask(make_key()[0])
            expected = 503 if mode == "closed" else 200
            assert served == {expected: 3}, reply
            assert known == expected and strange == 503, reply
            assert await operate(at) <= {200, 201, 503}, reply
            at.proxy.heal()
            async with asyncio.timeout(30):  # an answer from Redis, by which it heals itself
                while not at.link.up or await at.ask() != 200 or "limits" in _refused(at):
                    await asyncio.sleep(0.01)
        assert await operate(at) == {200, 201}
        limiter, ledger = at.gateway.app.limiter, at.gateway.app.ledger
        assert limiter is not None and ledger is not None
        await eventually(lambda: not limiter.live and not limiter.waiting and not ledger.waiting)
        assert (limiter.dropped, ledger.dropped) == (0, 0), "all was settled and written once Redis took it"
    text = capsys.readouterr().out
    assert "Traceback" not in text, text
    assert "failed" not in text.replace("audit_write_failed", ""), text


def _refused(at: House) -> set[str]:
    return {"limits" for refusal in at.link.refusals.standing.values() if refusal.call == "reserve"}


async def test_a_refusal_is_told_once_with_its_remedy_and_so_is_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    async with house("local") as at:
        at.proxy.strike(b"-NOPERM User x has no permissions to run the 'evalsha' command\r\n", b"SET")
        assert [await at.ask() for _ in range(20)] == [200] * 20
        shown = (await at.admin.get("/admin/fleet")).json()["redis_troubles"]
        assert any("reserve: NOPERM" in words and "The Redis user lacks EVALSHA on fg*" in words for words in shown)
        page = (await at.admin.get("/metrics")).text
        assert "fleetgate_redis_refusing 0.0" not in page and "fleetgate_redis_refusing" in page
        at.proxy.heal()
        assert await at.ask() == 200
        await eventually(lambda: not at.link.refusals.standing)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "redis_refused" in line and "call=reserve" in line]) == 1
    assert len([line for line in lines if "redis_refusal_ended" in line and "call=reserve" in line]) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_rights_that_are_taken_away_at_run_time(mode: str) -> None:
    """A real Redis: the user that the gateway is logged in as loses rights, and gets them back."""
    rights = documented("rights")
    async with redis_server() as redis:
        async with house(mode, url=give(redis, "gate", rights)) as at:
            assert await at.ask() == 200
            for missing in ("+evalsha", "+time", "+hset", "+zadd", "~fg1:*"):
                redis.do("ACL", "SETUSER", "gate", *(["resetkeys"] if missing[0] == "~" else ["-" + missing[1:]]))
                assert {await at.ask() for _ in range(5)} == {503 if mode == "closed" else 200}, missing
                assert at.link.outages == 0 or missing == "~fg1:*", "the probe writes a key there"
                redis.do("ACL", "SETUSER", "gate", *rights)
                async with asyncio.timeout(30):
                    while not at.link.up or await at.ask() != 200 or "limits" in _refused(at):
                        await asyncio.sleep(0.01)
            limiter = at.gateway.app.limiter
            assert limiter is not None
            await eventually(lambda: not limiter.live and not limiter.waiting)
            assert limiter.dropped == 0


PLANTED = (
    "fg1:{acme}:t",
    "fg1:{acme}:held",
    "fg1:{acme}:leases",
    "fg1:{route}:pending",
    "fg1:{route}:entries",
    "fg1:{route}:expiry",
    "fg1:{access}:tenants",
    "fg1:{access}:keys",
    "fg1:{access}:used",
    "fg1:{access}:version",
    "fg1:{access}:audit",
    "fg1:{usage}:records",
    "fg1:{usage}:tenants",
    "fg1:gateways",
    "fg1:drains",
    "fg1:{sights}:views",
    "fg1:{sights}:until",
)


@pytest.mark.parametrize("mode", SOME)
async def test_a_key_of_another_type_under_any_of_our_names(mode: str) -> None:
    async with house(mode) as at:
        assert await at.ask() == 200
        for key in PLANTED:
            at.redis.do("DEL", key)
            at.redis.do("PFADD" if key.endswith("version") else "LPUSH", key, "x")
            limits = key.startswith("fg1:{acme}")
            expected = 503 if mode == "closed" and limits else 200
            assert {await at.ask() for _ in range(3)} == {expected}, key
            assert await operate(at) <= {200, 201, 503}, key
            assert at.link.up and at.link.outages == 0, "others are served"
            at.redis.do("DEL", key)
            async with asyncio.timeout(30):
                while await at.ask() != 200 or "limits" in _refused(at):
                    await asyncio.sleep(0.01)
        assert await operate(at) == {200, 201}


async def test_one_tenants_broken_key_leaves_the_limits_of_others_exact() -> None:
    """And its own requests are limited to the gateway's share, also while another model's are taken by Redis."""
    async with house("local") as at:
        limiter = at.gateway.app.limiter
        assert limiter is not None
        at.redis.do("LPUSH", "fg1:{acme}:t", "x")
        assert await at.ask() == 200
        at.redis.do("DEL", "fg1:{acme}:t")
        await eventually(lambda: at.redis.do("HVALS", "fg1:{acme}:held") == [b"s"])


async def test_usage_waits_part_by_part() -> None:
    async with house("open") as at:
        ledger = at.gateway.app.ledger
        assert ledger is not None
        at.redis.do("SET", "fg1:{usage}:records", "x")
        assert [await at.ask() for _ in range(3)] == [200] * 3
        await eventually(lambda: at.redis.do("EXISTS", "fg1:{usage}:tenants") == 1)
        assert ledger.waiting == 3, "sums are written, records wait"
        at.redis.do("DEL", "fg1:{usage}:records")
        await eventually(lambda: ledger.waiting == 0)
        entries = at.redis.do("XRANGE", "fg1:{usage}:records", "-", "+")
        assert len({json.loads(fields[b"record"])["request_id"] for _, fields in entries}) == len(entries) == 3
        total = (await at.admin.get("/admin/usage")).json()["total"]
        assert (total["requests"], total["errors"]) == (3, 0)
