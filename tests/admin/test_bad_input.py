"""Mistakes on the admin listener: each is refused with the field and the remedy, and changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.cli.admin_client import AdminClient, AdminClientError, path_of
from gateway.core.access.api_keys import key_digest
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.redis import RedisServer, redis_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

IN_FILE = {"name": "in-file", "models": ["small"], "keys": [{"sha256": key_digest("fg-of-the-file").hex()}]}


@dataclass
class House:
    gateway: RunningGateway
    redis: RedisServer
    admin: httpx.AsyncClient

    async def send(self, method: str, path: str, raw: str | None = None) -> tuple[int, str]:
        """`raw` is sent as it stands; the answer's status, and what it says."""
        headers = {} if raw is None else {"content-type": "application/json"}
        answer = await self.admin.request(method, path, content=raw, headers=headers)
        return answer.status_code, answer.text

    def kept(self) -> dict[bytes, Any]:
        with self.redis.client() as client:
            names = [name for name in client.scan_iter() if name.endswith((b":tenants", b":keys"))]
            return {name: client.hgetall(name) for name in sorted(names)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at() -> AsyncIterator[House]:
    async with redis_server() as redis:
        settings: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True},
            "tenants": [IN_FILE],
            "models": [{"name": "big", "aliases": ["b"]}, {"name": "small"}],
        }
        async with running_gateway("http://127.0.0.1:1", ready=False, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=30) as admin:
                for name, models in (("acme", []), ("team/one", ["big"])):
                    made = await admin.post("/admin/tenants", json={"name": name, "models": models})
                    assert made.status_code == 201
                yield House(gateway, redis, admin)


TENANT, KEY = "/admin/tenants", "/admin/keys"
REFUSED = {
    "a key that has ended": ("POST", KEY, '{"tenant": "acme", "expires": "2020-01-01"}', 422, "expires", "the past"),
    "a time before the year 1": (
        "POST",
        KEY,
        '{"tenant": "acme", "expires": "0001-01-01T00:00:00+14:00"}',
        422,
        "expires",
        "expected a time",
    ),
    "a time after 9999": (
        "POST",
        KEY,
        '{"tenant": "acme", "expires": "9999-12-31T23:59:59-14:00"}',
        422,
        "expires",
        "expected a time",
    ),
    "a time that is a number": ("POST", KEY, '{"tenant": "acme", "expires": 2027}', 422, "expires", "expected a time"),
    "a tenant's name": ("POST", TENANT, '{"name": "-x"}', 422, "name", "a letter or digit first"),
    "a tenant's class": (
        "POST",
        TENANT,
        '{"name": "x", "service_class": "Fast!"}',
        422,
        "service_class",
        "lower-case letters",
    ),
    "a class in a change": (
        "PATCH",
        f"{TENANT}/acme",
        '{"service_class": "Fast!"}',
        422,
        "service_class",
        "lower-case letters",
    ),
    "a blocked key's id": ("POST", "/admin/block", '{"key": "fg-secret"}', 422, "key", "fleetgate keys list"),
    "neither tenant nor key": ("POST", "/admin/block", "{}", 422, "", "name one of tenant and key"),
    "a key's model that there is not": (
        "POST",
        KEY,
        '{"tenant": "acme", "models": ["bg"]}',
        422,
        "models",
        "big, small",
    ),
    "a key's model by its alias": ("POST", KEY, '{"tenant": "acme", "models": ["b"]}', 422, "models", "name big"),
    "a key's model beyond its tenant": (
        "POST",
        KEY,
        '{"tenant": "team/one", "models": ["small"]}',
        422,
        "models",
        "the tenant's models: big",
    ),
    "a key's model beyond its tenant of the file": (
        "POST",
        KEY,
        '{"tenant": "in-file", "models": ["big"]}',
        422,
        "models",
        "the tenant's models: small",
    ),
    "a tenant's model that there is not": (
        "POST",
        TENANT,
        '{"name": "x", "models": ["bg"]}',
        422,
        "models",
        "bg is not in",
    ),
    "rules for a model by its alias": (
        "PATCH",
        f"{TENANT}/acme",
        '{"per_model": [{"model": "b"}]}',
        422,
        "per_model",
        "name big",
    ),
    "a name with half a character": ("POST", TENANT, r'{"name": "a\ud800"}', 422, "surrogate", ""),
    "a setting with half a character": ("PATCH", f"{TENANT}/acme", r'{"\ud800": null}', 422, "surrogate", ""),
    "a name given twice": ("POST", TENANT, '{"name": "x", "name": "y"}', 422, "name", "twice"),
    "a limit given twice": (
        "PATCH",
        f"{TENANT}/acme",
        '{"limits": {"requests_per_minute": 1, "requests_per_minute": 2}}',
        422,
        "requests_per_minute",
        "twice",
    ),
    "no number": ("PATCH", f"{TENANT}/acme", '{"limits": {"usd_per_day": NaN}}', 422, "NaN", ""),
    "a number that nothing holds": (
        "PATCH",
        f"{TENANT}/acme",
        f'{{"limits": {{"concurrent_requests": {10**18}}}}}',
        422,
        "concurrent_requests",
        "less than",
    ),
    "tokens that nothing holds": (
        "PATCH",
        f"{TENANT}/acme",
        f'{{"thinking": {{"max_budget": {10**18}}}}}',
        422,
        "max_budget",
        "less than",
    ),
    "no setting, taken back": ("PATCH", f"{TENANT}/acme", '{"who": null}', 422, "who", "not a setting"),
    "no setting below, taken back": (
        "PATCH",
        f"{TENANT}/acme",
        '{"limits": {"event": null}}',
        422,
        "event",
        "not a setting",
    ),
    "an empty name": ("POST", TENANT, '{"name": ""}', 422, "name", "at least 1"),
    "a blank name": ("POST", TENANT, '{"name": " "}', 422, "name", "a letter or digit first"),
    "a name with a control character": ("POST", TENANT, r'{"name": "a\u0000"}', 422, "name", "a letter or digit first"),
    "an empty name in the path": ("DELETE", f"{TENANT}/", None, 404, "''", "Unknown tenant"),
    "a control character in the path": ("DELETE", f"{TENANT}/a%00", None, 404, "tenant", r"a\\x00"),
    "bytes that are no text in the path": ("DELETE", f"{TENANT}/%ED%A0%80", None, 404, "tenant", "Unknown tenant"),
    "an audit since no time": ("GET", "/admin/audit?since=0001-01-01T00:00:00%2B14:00", None, 422, "since", "a time"),
    "usage until no time": ("GET", "/admin/usage?until=soon", None, 422, "until", "a time"),
    "usage of all times": ("GET", "/admin/usage?since=0001-01-01", None, 422, "too large", "shorter"),
    "a deadline that is none": ("POST", "/admin/drain", '{"node": "127.0.0.1:1", "deadline": NaN}', 422, "NaN", ""),
    "a body nested without end": ("POST", TENANT, "[" * 5000, 422, "", ""),
}
"""Method, path, body; status, and two things that are said."""


@pytest.mark.parametrize("name", REFUSED)
async def test_a_mistake_is_refused_in_words_and_changes_nothing(name: str, at: House) -> None:
    method, path, raw, status, field, words = REFUSED[name]
    before = at.kept()
    got, text = await at.send(method, path, raw)
    assert (got, field in text, words in text) == (status, True, True), (got, text)
    assert at.kept() == before
    assert (await at.send("GET", TENANT))[0] == 200


@pytest.mark.parametrize("id", ["../tenants/acme", "x/../../tenants/acme", "..", "acme?x", "acme#x", "a\udcff", "a\n"])
async def test_what_is_typed_for_an_id_never_becomes_a_path(id: str, at: House) -> None:
    """`fleetgate keys revoke ../tenants/acme` once deleted the tenant."""
    before = at.kept()
    with AdminClient(at.gateway.admin_url) as control:
        with pytest.raises(AdminClientError, match=r"Unknown key|Unknown path"):
            await asyncio.to_thread(control.ask, "DELETE", path_of("admin", "keys", id))
    assert at.kept() == before


TAKEN = {
    "an audit since the year 1": ("GET", "/admin/audit?since=0001-01-01", None),
    "an audit since before 1970": ("GET", "/admin/audit?since=1969-12-31T00:00:00", None),
    "usage at the end of time": ("GET", "/admin/usage?since=9999-12-31&until=9999-12-31T23:59:59", None),
    "usage in the year 1": ("GET", "/admin/usage?since=0001-01-01&until=0001-01-02", None),
    "a name with a slash": ("GET", f"{TENANT}/team/one", None),
    "a name with an escaped slash": ("GET", f"{TENANT}/team%2Fone", None),
    "a setting taken back": ("PATCH", f"{TENANT}/acme", '{"models": null, "limits": {"usd_per_day": null}}'),
    "nothing changed": ("PATCH", f"{TENANT}/acme", "{}"),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_what_is_odd_but_right_is_served(name: str, at: House) -> None:
    status, text = await at.send(*TAKEN[name])
    assert status == 200, text
    json.loads(text)
