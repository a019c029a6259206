"""Gateways of two versions on one Redis: what may be lost is kept apart, what has to be kept is read by both."""

import json
from typing import Any

import httpx
import pytest

from gateway.access.directory import Directory
from gateway.access.new_keys import make_key
from gateway.core.limits.rules import Limits, rules_of
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import RedisStore
from gateway.redis.client import RedisClient, RedisSettings
from gateway.redis.schema import LIVE, KeySchema
from tests.limits.awaited import AwaitedStore
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeSettings, serve_fake

ADMIN = {"authorization": "Bearer admin"}
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
PER_MINUTE = Ruleset.of(tuple(rules_of(Limits(requests_per_minute=3), "t")))


def settings(redis: RedisServer, **more: Any) -> dict[str, Any]:
    return {"redis": redis.settings, "access": {"stored": True}, "admin": {"token": "admin"}, **more}


def of_the_next_version(redis: RedisServer) -> RedisClient:
    schema = KeySchema(live_version=LIVE + 1)
    return RedisClient(RedisSettings(redis.url, timeout=1.0, connect_timeout=2.0, schema=schema))


async def ask(gateway: RunningGateway, key: str) -> int:
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(
            f"{gateway.url}/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {key}"}
        )
        return answer.status_code


async def test_each_version_has_limits_of_its_own_and_both_know_the_same_tenants() -> None:
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        async with running_gateway(node.url, **settings(redis)) as today:
            later = of_the_next_version(redis)
            directory, store = Directory(later, 100), AwaitedStore(RedisStore(later, 60.0))
            await directory.create_tenant("who", "acme", {"limits": {"requests_per_minute": 3}})
            key, digest = make_key()
            made = await directory.create_key("who", "acme", bytes.fromhex(digest), {}, in_file=False)

            assert [await ask(today, key) for _ in range(4)] == [200, 200, 200, 429]
            taken = [(await store.reserve("acme", f"r{n}", PER_MINUTE, (60_000_000,))).granted for n in range(4)]
            assert taken == [True, True, True, False], "the next version's limits start full, once"
            for n in range(3):
                await store.settle("acme", f"r{n}", PER_MINUTE, (0,))
            assert await ask(today, key) == 429, "what comes back there does not come back here"
            begins = {name.split(b":")[0] for name in redis.do("KEYS", "*{acme}*")}
            assert begins == {b"fg1", b"fg2"}

            kept = await directory.key(made.id)
            assert kept is not None
            await directory.revoke_key("who", kept)
            await eventually(lambda: today.app.keyring is not None and len(today.app.keyring._known) == 0)
            assert await ask(today, key) == 401
            await later.stop()


def put(redis: RedisServer, digest: str) -> None:
    """What a newer gateway might write, and what no gateway should have."""
    limits = {"requests_per_minute": 1000, "dances_per_minute": 1}
    times = {"created": 1.0, "changed": 1.0}
    tenant = {"settings": {"limits": limits, "colour": "red"}, "owner": "ada", **times}
    key = {"digest": digest, "tenant": "acme", "settings": {"label": "x", "scopes": ["a"]}, "created": 1.0, "by": "ada"}
    redis.do("HSET", "fg1:{access}:tenants", "acme", json.dumps(tenant), "broken", b"\xff", "odd", "[]")
    redis.do("HSET", "fg1:{access}:keys", f"key_{digest[:16]}", json.dumps(key), "key_0000000000000000", "{}")
    redis.do("XADD", "fg1:{access}:audit", "*", "line", "no JSON")
    redis.do("SADD", "fg1:{usage}:tenants", "acme")
    sums = ("m k requests", 2, "m k dances", 3, "nonsense", 1, "m k output", "many")
    redis.do("HSET", "fg1:{usage}:d:20000:acme", *sums)
    order = {"since": 5.0, "until": None, "drained": True, "reason": "spot"}
    redis.do("HSET", "fg1:drains", "other:1", json.dumps(order), "bad:1", "{")


async def test_records_of_a_newer_version_are_read_and_left_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        key, digest = make_key()
        put(redis, digest)
        async with running_gateway(node.url, **settings(redis)) as gateway:
            id = f"key_{digest[:16]}"
            before = redis.do("HGETALL", "fg1:{access}:tenants"), redis.do("HGETALL", "fg1:{access}:keys")
            async with httpx.AsyncClient(base_url=gateway.admin_url, headers=ADMIN, timeout=20) as admin:
                assert await ask(gateway, key) == 200
                assert await ask(gateway, make_key()[0]) == 401, "what cannot be read keeps nobody from being looked up"
                assert [each["name"] for each in (await admin.get("/admin/tenants")).json()] == ["acme"]
                kept = (await admin.get("/admin/keys")).json()
                assert [(each["id"], each["state"], each["label"]) for each in kept] == [(id, "active", "x")]

                changed = await admin.patch("/admin/tenants/acme", json={"models": ["a"]})
                assert changed.status_code == 409
                told = changed.json()["detail"]
                assert "acme has settings of a newer gateway (owner, limits.dances_per_minute, colour)" in told
                rotated = await admin.post(f"/admin/keys/{id}/rotate")
                assert rotated.status_code == 409 and "(by, scopes)" in rotated.json()["detail"]
                assert (redis.do("HGETALL", "fg1:{access}:tenants"), redis.do("HGETALL", "fg1:{access}:keys")) == before

                span = {"since": "2024-10-01T00:00:00Z", "until": "2024-10-10T00:00:00Z"}
                usage = (await admin.get("/admin/usage", params={**span, "tenant": "acme"})).json()
                assert [row["requests"] for row in usage["rows"]] == [2]
                assert (await admin.get("/admin/audit")).json() == []
                assert gateway.app.drains.synced and set(gateway.app.drains._orders) == {"other:1"}
                assert redis.do("HGET", "fg1:drains", "other:1").endswith(b'"reason": "spot"}')

                assert (await admin.delete(f"/admin/keys/{id}")).status_code == 200, "taking out is always possible"
                await eventually(lambda: gateway.app.keyring is not None and len(gateway.app.keyring._known) == 0)
    logged = capsys.readouterr()
    text = logged.out + logged.err
    assert text.count("record_invalid") >= 2 and "settings_from_newer_version" in text
    assert "key_refresh_failed" not in text and "drain_refresh_failed" not in text
