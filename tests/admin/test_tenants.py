"""Tenants and keys that are created at run time: over the admin routes, in a real Redis, by real requests."""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.access.new_keys import make_key
from gateway.core.access.api_keys import is_whole, key_digest, key_id
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import RedisServer, redis_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE_KEY, _ = make_key()
FILE_TENANT = {"name": "in-file", "keys": [{"sha256": key_digest(FILE_KEY).hex(), "label": "of the file"}]}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


@dataclass
class House:
    """A gateway with a Redis, and the ways in."""

    gateway: RunningGateway
    redis: RedisServer
    admin: httpx.AsyncClient

    async def made(self, path: str, **body: Any) -> Any:
        got = await self.admin.post(f"/admin/{path}", json=body)
        assert got.status_code == 201, got.text
        return got.json()

    async def status(self, key: str, gateway: RunningGateway | None = None, model: str = MODEL) -> int:
        """What a request with `key` is answered."""
        async with httpx.AsyncClient(timeout=10) as client:
            url = (gateway or self.gateway).url + "/v1/chat/completions"
            return (await client.post(url, json={"model": model}, headers={"x-api-key": key})).status_code

    async def comes_to(
        self, key: str, status: int, gateway: RunningGateway | None = None, within: float = 10.0
    ) -> None:
        """The promise is 2 s: test_cli_tenants proves it. Here the machine may be busy with something else."""
        async with asyncio.timeout(within):
            while await self.status(key, gateway) != status:
                await asyncio.sleep(0.02)


def settings(redis: RedisServer, **more: Any) -> dict[str, Any]:
    access = {"stored": True, "wrong_keys_per_minute": 100_000, **more.pop("access", {})}
    return {"redis": redis.settings, "access": access, "tenants": [FILE_TENANT], **more}


@asynccontextmanager
async def house(**more: Any) -> AsyncIterator[House]:
    async with scripted_node(plain) as node, redis_server() as redis:
        async with running_gateway(node.url, **settings(redis, **more)) as gateway:
            async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=10) as admin:
                yield House(gateway, redis, admin)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[House]:
    async with house() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def at(shared: House) -> House:
    shared.redis.flush()
    keyring = shared.gateway.app.keyring
    assert keyring is not None
    await eventually(lambda: not keyring._known)
    return shared


async def test_limits_under_their_old_names_are_taken_shown_as_new_and_kept_as_older_gateways_know_them(
    at: House,
) -> None:
    def kept(table: str, name: str) -> dict[str, Any]:
        [raw] = at.redis.do("HMGET", f"fg1:{{access}}:{table}", name)
        return json.loads(raw)["settings"]  # type: ignore[no-any-return]

    def limit(name: str, most: int) -> dict[str, Any]:
        return {"limits": {f"{name}_tokens_per_minute": most}}

    tenant = await at.made("tenants", name="acme", **limit("thinking", 5))
    assert tenant["settings"] == limit("reasoning", 5)
    assert kept("tenants", "acme") == limit("thinking", 5)
    for spelled, most in (("thinking", 6), ("reasoning", 7)):
        got = await at.admin.patch("/admin/tenants/acme", json=limit(spelled, most))
        assert got.json()["settings"] == limit("reasoning", most)
        assert kept("tenants", "acme") == limit("thinking", most)
    got = await at.admin.patch("/admin/tenants/acme", json={"limits": {"thinking_tokens_per_minute": None}})
    assert (got.json()["settings"], kept("tenants", "acme")) == ({}, {})

    key = await at.made("keys", tenant="acme", **limit("thinking", 8))
    assert (key["settings"], kept("keys", key["id"])) == (limit("reasoning", 8), limit("thinking", 8))
    renewed = await at.made(f"keys/{key['id']}/rotate", grace_seconds=60)
    assert kept("keys", renewed["id"])["limits"] == kept("keys", key["id"])["limits"] == limit("thinking", 8)["limits"]

    both = {"limits": {"thinking_tokens_per_minute": 1, "reasoning_tokens_per_minute": 2}}
    for method, path, body in (
        ("POST", "tenants", {"name": "two", **both}),
        ("POST", "keys", {"tenant": "acme", **both}),
        ("PATCH", "tenants/acme", both),
    ):
        got = await at.admin.request(method, f"/admin/{path}", json=body)
        assert got.status_code == 422
        assert "limits.thinking_tokens_per_minute is the deprecated name of limits.reasoning" in got.text


async def test_a_tenant_and_its_key_serve_at_once(at: House) -> None:
    tenant = await at.made("tenants", name="acme")
    assert (tenant["origin"], tenant["settings"], tenant["keys"]) == ("redis", {}, 0)
    made = await at.made("keys", tenant="acme", label="Ada's laptop")
    assert is_whole(made["key"].encode()) and made["id"] == key_id(key_digest(made["key"]))
    assert await at.status(made["key"]) == 200
    listed = (await at.admin.get("/admin/keys", params={"tenant": "acme"})).json()
    assert [(key["id"], key["label"], key["state"], key["origin"]) for key in listed] == [
        (made["id"], "Ada's laptop", "active", "redis")
    ]
    assert "key" not in listed[0]


async def test_the_key_itself_is_kept_nowhere(at: House) -> None:
    await at.made("tenants", name="acme")
    made = await at.made("keys", tenant="acme")
    with at.redis.client() as client:
        for name in client.scan_iter():
            assert made["key"].encode() not in (client.dump(name) or b"")
    assert made["key"] not in (await at.admin.get("/admin/audit")).text


async def test_a_revoked_key_is_soon_refused(at: House) -> None:
    await at.made("tenants", name="acme")
    made = await at.made("keys", tenant="acme")
    assert await at.status(made["key"]) == 200
    assert (await at.admin.delete(f"/admin/keys/{made['id']}")).json()["id"] == made["id"]
    await at.comes_to(made["key"], 401)
    assert (await at.admin.delete(f"/admin/keys/{made['id']}")).status_code == 404


async def test_a_rotated_key_works_beside_the_new_one_for_its_grace(at: House) -> None:
    await at.made("tenants", name="acme")
    old = await at.made("keys", tenant="acme", label="ci", models=[MODEL])
    new = await at.made(f"keys/{old['id']}/rotate", grace_seconds=3)
    assert (new["label"], new["models"], new["replaces"]) == ("ci", [MODEL], old["id"])
    assert await at.status(new["key"]) == await at.status(old["key"]) == 200
    await at.comes_to(old["key"], 401, within=20)
    assert await at.status(new["key"]) == 200
    states = {key["id"]: key["state"] for key in (await at.admin.get("/admin/keys?tenant=acme")).json()}
    assert states == {old["id"]: "expired", new["id"]: "active"}


async def test_without_grace_the_old_key_ends_at_once(at: House) -> None:
    await at.made("tenants", name="acme")
    old = await at.made("keys", tenant="acme")
    await at.made(f"keys/{old['id']}/rotate", grace_seconds=0)
    await at.comes_to(old["key"], 401)


async def test_a_key_may_be_allowed_less_than_its_tenant(at: House) -> None:
    await at.made("tenants", name="acme")
    narrow = await at.made("keys", tenant="acme", models=["another"])
    assert await at.status(narrow["key"]) == 404
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    ending = await at.made("keys", tenant="acme", expires=soon)
    await at.comes_to(ending["key"], 401)


async def test_a_tenants_settings_change_for_keys_in_use(at: House) -> None:
    await at.made("tenants", name="acme")
    made = await at.made("keys", tenant="acme")
    assert await at.status(made["key"]) == 200
    changed = await at.admin.patch("/admin/tenants/acme", json={"models": ["another"], "cache_salt": True})
    assert changed.json()["settings"] == {"models": ["another"], "cache_salt": True}
    await at.comes_to(made["key"], 404)
    changed = await at.admin.patch("/admin/tenants/acme", json={"models": None})
    assert changed.json()["settings"] == {"cache_salt": True}
    await at.comes_to(made["key"], 200)


async def test_a_deleted_tenants_keys_open_nothing_not_even_for_its_namesake(at: House) -> None:
    await at.made("tenants", name="acme")
    made = await at.made("keys", tenant="acme")
    assert await at.status(made["key"]) == 200
    assert (await at.admin.delete("/admin/tenants/acme")).json() == {"name": "acme", "keys": 1}
    await at.comes_to(made["key"], 401)
    await at.made("tenants", name="acme")
    assert (await at.admin.get("/admin/tenants/acme")).json()["keys"] == 0
    assert await at.status(made["key"]) == 401


async def test_what_stands_in_the_file_is_shown_and_not_changed(at: House) -> None:
    assert await at.status(FILE_KEY) == 200
    listed = (await at.admin.get("/admin/tenants")).json()
    assert [(tenant["name"], tenant["origin"], tenant["keys"]) for tenant in listed] == [("in-file", "file", 1)]
    (key,) = (await at.admin.get("/admin/keys")).json()
    assert (key["origin"], key["label"], key["created"]) == ("file", "of the file", None)
    for method, path, body in (
        ("POST", "tenants", {"name": "in-file"}),
        ("PATCH", "tenants/in-file", {"models": ["a"]}),
        ("DELETE", "tenants/in-file", None),
        ("DELETE", f"keys/{key['id']}", None),
        ("POST", f"keys/{key['id']}/rotate", {}),
    ):
        got = await at.admin.request(method, f"/admin/{path}", json=body)
        assert got.status_code == 409 and "config file" in got.json()["detail"]


async def test_a_tenant_of_the_file_can_have_keys_from_redis(at: House) -> None:
    made = await at.made("keys", tenant="in-file")
    assert await at.status(made["key"]) == 200
    assert (await at.admin.get("/admin/tenants/in-file")).json()["keys"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "tenants", {"name": "a b"}, 422, "a letter or digit first"),
        ("POST", "tenants", {"name": "a", "modles": []}, 422, "modles"),
        ("POST", "tenants", {}, 422, "name"),
        ("PATCH", "tenants/none", {"models": ["a"]}, 404, "Unknown tenant"),
        ("GET", "tenants/none", None, 404, "Unknown tenant"),
        ("DELETE", "tenants/none", None, 404, "Unknown tenant"),
        ("PATCH", "tenants/acme", {"cache_salt": "salt"}, 422, "cache_salt"),
        ("PATCH", "tenants/acme", {"name": "other"}, 422, "name"),
        ("POST", "tenants", {"name": "acme"}, 409, "already"),
        ("POST", "keys", {"tenant": "none"}, 404, "create it first"),
        ("POST", "keys", {"tenant": "acme", "label": "a\nb"}, 422, "label"),
        ("POST", "keys", {"tenant": "acme", "expires": "soon"}, 422, "expires"),
        ("POST", "keys/key_0000000000000000/rotate", {}, 404, "Unknown key"),
        ("POST", "keys/key_0000000000000000/rotate", {"grace_seconds": -1}, 422, "grace_seconds"),
    ],
)
async def test_mistakes_are_told(
    method: str, path: str, body: dict[str, Any] | None, status: int, word: str, at: House
) -> None:
    await at.made("tenants", name="acme")
    got = await at.admin.request(method, f"/admin/{path}", json=body)
    assert (got.status_code, word in got.text) == (status, True), got.text


@pytest.mark.parametrize("odd", ["NaN", "Infinity", '"\\ud800"', '{"\\ud800": 1}', "1e400"])
@pytest.mark.parametrize(
    "body", ['{"name": ODD}', '{"name": "a", "limits": ODD}', "ODD", '{"tenant": ODD, "node": ODD}']
)
async def test_what_json_cannot_repeat_is_a_mistake_like_others(odd: str, body: str, at: House) -> None:
    for path in ("tenants", "keys", "drain"):
        got = await at.admin.post(
            f"/admin/{path}", content=body.replace("ODD", odd), headers={"content-type": "application/json"}
        )
        assert (got.status_code, '"input":' in got.text) == (422, False), got.text


async def test_two_who_change_the_same_tenant_are_told(at: House) -> None:
    """None of the changes is lost: whoever did not see the other's is asked to look again."""
    await at.made("tenants", name="acme")
    answers = await asyncio.gather(
        *(at.admin.patch("/admin/tenants/acme", json={"models": [f"m{n}"]}) for n in range(8))
    )
    statuses = [got.status_code for got in answers]
    assert set(statuses) <= {200, 409} and 200 in statuses
    told = [got.json()["settings"]["models"] for got in answers if got.status_code == 200]
    assert (await at.admin.get("/admin/tenants/acme")).json()["settings"]["models"] in told


async def test_every_change_leaves_an_audit_line(at: House) -> None:
    await at.made("tenants", name="acme", models=["a"])
    made = await at.made("keys", tenant="acme", label="x")
    await at.admin.patch("/admin/tenants/acme", json={"models": None})
    new = await at.made(f"keys/{made['id']}/rotate")
    await at.admin.delete(f"/admin/keys/{made['id']}")
    await at.admin.delete("/admin/tenants/acme")
    await at.admin.post("/admin/reload")
    await at.made("tenants", name="acme")
    refused = await at.admin.post("/admin/tenants", json={"name": "acme"})
    assert refused.status_code == 409
    lines = (await at.admin.get("/admin/audit")).json()
    assert [(line["what"], line["subject"]) for line in reversed(lines)] == [
        ("tenant created", "acme"),
        ("key created", made["id"]),
        ("tenant changed", "acme"),
        ("key rotated", made["id"]),
        ("key revoked", made["id"]),
        ("tenant deleted", "acme"),
        ("config reloaded", "config"),
        ("tenant created", "acme"),
    ]
    assert all(line["who"] == "anybody@127.0.0.1" for line in lines)
    assert lines[-1]["detail"] == {"models": ["a"]} and lines[-4]["detail"]["new"] == new["id"]
    assert len((await at.admin.get("/admin/audit", params={"limit": 2})).json()) == 2
    assert (await at.admin.get("/admin/audit", params={"since": lines[0]["at"]})).json() == lines[:1]
    assert (await at.admin.get("/admin/audit", params={"since": "2099-01-01T00:00:00Z"})).json() == []


async def test_when_a_key_was_last_used_is_known_to_the_hour(at: House) -> None:
    await at.made("tenants", name="acme")
    made = await at.made("keys", tenant="acme")
    keyring = at.gateway.app.keyring
    assert keyring is not None
    assert await at.status(made["key"]) == 200
    await keyring._usage.flush()
    (key,) = (await at.admin.get("/admin/keys?tenant=acme")).json()
    assert key["last_used"][:13] == made["created"][:13] and key["last_used"].endswith(":00:00Z")


async def test_guessed_keys_are_asked_for_once(at: House) -> None:
    """The second time they are known to be wrong: guessing does not load Redis."""

    def looked_up() -> int:
        """Only a key's look-up asks for one field; what runs in the background does not."""
        return int(at.redis.do("INFO", "commandstats").get("cmdstat_hget", {"calls": 0})["calls"])

    wrong, _ = make_key()
    before = looked_up()
    assert await at.status(wrong) == 401
    once = looked_up()
    assert once > before
    for _ in range(20):
        assert await at.status(wrong) == 401
    assert looked_up() == once


# Trouble


async def test_known_keys_outlive_redis_and_strangers_are_not_called_wrong() -> None:
    async with house() as at:
        await at.made("tenants", name="acme")
        made = await at.made("keys", tenant="acme")
        assert await at.status(made["key"]) == 200
        keyring, link = at.gateway.app.keyring, at.gateway.app.redis
        assert keyring is not None and link is not None
        other = await at.made("keys", tenant="acme")
        at.redis.freeze()
        assert await at.status(made["key"]) == await at.status(FILE_KEY) == 200
        assert await at.status(other["key"]) == 503, "it may be a good one"
        assert await at.status(make_key()[0]) == 503
        assert await at.status(made["key"][:-1] + "_") == 401, "a typo is one without Redis"
        got = await at.admin.post("/admin/keys", json={"tenant": "acme"})
        assert got.status_code == 503 and "Redis" in got.json()["detail"]
        at.redis.thaw()
        await at.comes_to(other["key"], 200, within=10)
        at.redis.kill()
        assert await at.status(made["key"]) == 200


async def test_after_the_longest_outage_known_keys_are_not_trusted_any_more() -> None:
    async with house(access={"outage": 0.5}) as at:
        await at.made("tenants", name="acme")
        made = await at.made("keys", tenant="acme")
        await at.comes_to(made["key"], 200)
        at.redis.freeze()
        await at.comes_to(made["key"], 503, within=10)
        assert await at.status(FILE_KEY) == 200
        at.redis.thaw()
        await at.comes_to(made["key"], 200, within=10)


async def test_a_gateway_that_starts_reads_the_keys_that_there_are() -> None:
    """So that an outage right after finds them known."""
    async with house() as at:
        await at.made("tenants", name="acme")
        made = await at.made("keys", tenant="acme")
        async with scripted_node(plain) as node, running_gateway(node.url, **settings(at.redis)) as second:
            keyring = second.app.keyring
            assert keyring is not None
            await eventually(lambda: len(keyring._known) == 1)
            at.redis.freeze()
            assert await at.status(made["key"], second) == 200


async def test_a_gateway_without_stored_tenants_says_how_to_have_them() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, tenants=[FILE_TENANT]) as gateway:
        async with httpx.AsyncClient(base_url=gateway.admin_url) as admin:
            got = await admin.post("/admin/tenants", json={"name": "acme"})
            assert got.status_code == 409 and "access.stored" in got.json()["detail"]
            assert [tenant["name"] for tenant in (await admin.get("/admin/tenants")).json()] == ["in-file"]
            assert (await admin.get("/admin/audit")).json() == []


async def test_the_audit_tells_whose_token_it_was() -> None:
    admin = {"token": "main", "tokens": [{"name": "ada", "token": "hers"}]}
    async with house(admin=admin) as at:
        for token in ("main", "hers"):
            headers = {"authorization": f"Bearer {token}"}
            await at.admin.post("/admin/tenants", json={"name": token}, headers=headers)
        lines = (await at.admin.get("/admin/audit", headers={"authorization": "Bearer hers"})).json()
        assert [(line["who"], line["subject"]) for line in lines] == [
            ("ada@127.0.0.1", "hers"),
            ("admin@127.0.0.1", "main"),
        ]
        assert (await at.admin.get("/admin/audit")).status_code == 401
