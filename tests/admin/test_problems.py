"""Every error of the admin listener has one shape: all its routes are walked with all kinds of errors."""

import asyncio
import gzip
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter

from gateway.admin.app import MetricsPage, build_admin
from gateway.admin.problems import Problem
from gateway.cli.admin_client import AdminClient, AdminClientError
from gateway.core.dialects import DIALECTS
from gateway.redis.refusals import FOR_ALL
from gateway.wiring import parts
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import RedisServer, redis_server
from tests.support.resp import resp_proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "t" * 20
RIGHT, WRONG = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer no"}
MEMBERS = {"title", "status", "code", "detail", "field", "remedy", "problems"}
OPEN = ("/health", "/ready")

Route = tuple[str, str]


def checked(got: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """The problem that was answered; fails where it is none."""
    assert got.headers["content-type"] == "application/problem+json", (got.status_code, got.text)
    told = got.json()
    assert set(told) == MEMBERS, told
    Problem.model_validate(told)
    assert told["status"] == got.status_code
    assert status in (None, got.status_code), told
    assert told["detail"] and told["remedy"] and told["code"], told
    assert "\n" not in told["detail"], "one sentence"
    return told  # type: ignore[no-any-return]


@dataclass
class Asked:
    gateway: RunningGateway
    redis: RedisServer
    client: httpx.AsyncClient
    routes: list[Route]

    async def send(self, route: Route, headers: dict[str, str], content: bytes | None = None) -> httpx.Response:
        method, path = route
        path = "/".join("nobody" if part.startswith("{") else part for part in path.split("/"))
        kind = {"content-type": "application/json"} if content is not None else {}
        return await self.client.request(method, path, headers={**kind, **headers}, content=content)

    @property
    def guarded(self) -> list[Route]:
        return [route for route in self.routes if route[1] not in OPEN]

    @property
    def changing(self) -> list[Route]:
        return [route for route in self.routes if route[0] != "GET"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at() -> AsyncIterator[Asked]:
    async with redis_server() as redis:
        settings: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True, "wrong_keys_per_minute": 100_000},
            "usage": {"stored": True},
            "admin": {"token": TOKEN},
        }
        async with running_gateway("http://127.0.0.1:1", ready=False, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=30) as client:
                paths = (await client.get("/openapi.json")).json()["paths"]
                routes = [(method.upper(), path) for path, methods in paths.items() for method in methods]
                yield Asked(gateway, redis, client, routes)


async def test_all_routes_with_all_kinds_of_errors(at: Asked) -> None:
    met: dict[int, set[Route]] = defaultdict(set)

    async def ask(route: Route, headers: dict[str, str], content: bytes | None = None, status: int = 0) -> None:
        got = await at.send(route, headers, content)
        if status or got.status_code >= 400:
            checked(got, status or None)
            met[got.status_code].add(route)

    for route in at.guarded:
        await ask(route, {}, status=401)
        await ask(route, WRONG, status=401)
        await ask(("TRACE", route[1]), RIGHT, status=405)
        await ask(route, RIGHT)  # what is named does not exist
    for route in at.changing:
        for body in (b"{", b"[]", b"7", b'{"no": 1}', b'{"a": 1, "a": 2}', b'{"a": NaN}', b'"\\ud800"', b"[" * 5000):
            await ask(route, RIGHT, body)
        await ask(route, {**RIGHT, "content-encoding": "gzip"}, gzip.compress(b"{}"), status=415)
        await ask(route, RIGHT, b" " * (2**20 + 1), status=413)
    for method, path in at.guarded:
        for query in ("since=soon", "limit=many", "per=year", "by=mood", "since=2026-02-01&until=2026-01-01"):
            got = await at.client.request(method, path.replace("{name}", "x"), params=query, headers=RIGHT)
            if got.status_code == 422:
                checked(got)
    assert met[401] == set(at.guarded)
    assert met[413] == met[415] == set(at.changing)
    assert met[422] >= {("POST", "/admin/tenants"), ("POST", "/admin/keys"), ("POST", "/admin/drain")}
    assert met[404] >= {("GET", "/admin/tenants/{name}"), ("DELETE", "/admin/keys/{id}")}
    assert not met.keys() & {500, 503}, "Redis was there"


async def test_paths_of_the_data_plane_and_of_nothing(at: Asked) -> None:
    for path in ("/v1/models", *(dialect.path for dialect in DIALECTS)):
        told = checked(await at.client.post(path, json={}, headers=RIGHT), 404)
        assert "listen.port" in told["remedy"], path
    assert checked(await at.client.get("/admin/nothing", headers=RIGHT), 404)["code"] == "unknown_path"
    assert checked(await at.client.get("/docs/nothing", headers=RIGHT), 404)
    checked(await at.client.get("/ready?without_nodes_after=-1"), 422)


async def test_the_field_at_fault_is_named(at: Asked) -> None:
    body = {"name": "acme", "limits": {"requests_per_minute": "many"}, "modles": []}
    told = checked(await at.client.post("/admin/tenants", json=body, headers=RIGHT), 422)
    assert [each["field"] for each in told["problems"]] == ["limits.requests_per_minute", "modles"]
    assert told["field"] == "limits.requests_per_minute" and "many" not in told["detail"]
    with AdminClient(at.gateway.admin_url, TOKEN) as control, pytest.raises(AdminClientError) as refused:
        await asyncio.to_thread(control.post, "/admin/tenants", body)
    first, second = str(refused.value).splitlines()
    assert first.startswith("limits.requests_per_minute: ") and second == "modles: is not a setting"
    with AdminClient(at.gateway.admin_url, TOKEN) as control, pytest.raises(AdminClientError, match="tenants list"):
        await asyncio.to_thread(control.get, "/admin/tenants/nobody")


async def test_while_redis_is_away_every_route_says_so(at: Asked) -> None:
    at.redis.freeze()
    try:
        slow = [("GET", "/admin/keys"), ("GET", "/admin/audit"), ("POST", "/admin/block"), ("GET", "/admin/usage")]
        bodies = {"/admin/block": b'{"key": "key_0000000000000000"}'}
        answers = await asyncio.gather(*(at.send(route, RIGHT, bodies.get(route[1])) for route in slow))
        for route, got in zip(slow, answers, strict=True):
            assert "Redis" in checked(got, 503)["detail"], route
    finally:
        at.redis.thaw()


async def test_a_full_redis_is_told_as_full_with_what_to_do(at: Asked) -> None:
    """It refuses changes, and whoever reads that it is unreachable looks for it in the wrong place."""
    made = await at.client.post("/admin/tenants", json={"name": "acme"}, headers=RIGHT)
    assert made.status_code == 201, made.text
    exported = map(json.loads, (await at.client.get("/admin/export", headers=RIGHT)).text.splitlines())
    record = next(line for line in exported if line["kind"] == "tenant")
    changes = {
        "/admin/tenants": {"name": "other"},
        "/admin/keys": {"tenant": "acme"},
        "/admin/import": {"records": [{**record, "name": "other"}], "mode": "merge", "dry_run": False},
    }
    at.redis.do("CONFIG", "SET", "maxmemory", 1)
    try:
        for path, body in changes.items():
            told = checked(await at.client.post(path, json=body, headers=RIGHT), 503)
            assert "full (OOM" in told["detail"] and "maxmemory" in told["detail"], told
            assert "unreachable" not in told["detail"] and "script:" not in told["detail"], told
        told = checked(await at.client.delete("/admin/tenants/acme", headers=RIGHT), 503)
        assert told["remedy"].startswith("raise its maxmemory"), told
        assert (await at.client.get("/admin/tenants", headers=RIGHT)).status_code == 200, "it answers who only reads"
    finally:
        at.redis.do("CONFIG", "SET", "maxmemory", 0)
    assert (await at.client.delete("/admin/tenants/acme", headers=RIGHT)).status_code == 200


@pytest.mark.parametrize("code", sorted(FOR_ALL))
async def test_what_redis_refuses_everybody_is_told_by_its_state(code: str) -> None:
    """On the admin API, in `fleetgate status` and as the reason of the outage, whichever library reads the reply."""
    text = "ERR max number of clients reached" if code == "MAXCLIENTS" else f"{code} because"
    why = text.partition(" ")[2]
    state, remedy = FOR_ALL[code]
    async with redis_server() as redis, resp_proxy(redis) as proxy:
        settings: dict[str, Any] = {"redis": {**redis.settings, "url": proxy.url}, "access": {"stored": True}}
        async with running_gateway("http://127.0.0.1:1", ready=False, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=30) as client:
                proxy.strike(f"-{text}\r\n".encode())
                changed = checked(await client.post("/admin/tenants", json={"name": "acme"}), 503)
                asked = checked(await client.get("/admin/tenants"), 503)
                for told in (changed, asked):
                    assert told["detail"].startswith(f"Redis is {state} (") and why in told["detail"], told
                    assert told["remedy"] == f"{remedy}, and retry"
                assert "refused the change" in changed["detail"] and "change" not in asked["detail"]
                link = gateway.app.redis
                assert link is not None
                await eventually(lambda: not link.up)
                shown = (await client.get("/admin/fleet")).json()["redis_troubles"][0]
                assert shown.startswith(f"{state} (") and why in shown and shown.endswith(f"): {remedy}"), shown


async def test_a_gateway_without_redis_says_what_to_set_on_every_route() -> None:
    async with running_gateway(ready=False) as gateway, httpx.AsyncClient(base_url=gateway.admin_url) as client:
        for method, path, body in (
            ("POST", "/admin/tenants", {"name": "acme"}),
            ("POST", "/admin/keys", {"tenant": "acme"}),
            ("GET", "/admin/usage", None),
            ("GET", "/admin/requests/x", None),
            ("GET", "/admin/blocks", None),
        ):
            told = checked(await client.request(method, path, json=body), 409)
            assert "redis.url" in told["remedy"], path
        checked(await client.post("/admin/drain", json={"node": "x"}, headers={"origin": "http://evil.test"}), 403)
        checked(await client.post("/admin/drain", content=b"{}", headers={"content-type": "text/plain"}), 415)
        reload = checked(await client.post("/admin/reload"), 400)
        assert "config file" in reload["detail"] and len(reload["problems"]) == 1


async def test_guessing_is_refused_in_the_same_shape() -> None:
    access = {"wrong_keys_per_minute": 1}
    async with running_gateway(ready=False, admin={"token": TOKEN}, access=access) as gateway:
        async with httpx.AsyncClient(base_url=gateway.admin_url) as client:
            answers = [await client.get("/admin/tenants", headers=WRONG) for _ in range(3)]
    told = [checked(got) for got in answers]
    assert told[-1]["status"] == 429 and answers[-1].headers["retry-after"]


async def test_what_is_no_http_is_refused_in_the_same_shape(at: Asked) -> None:
    host, _, port = at.gateway.admin_url.removeprefix("http://").partition(":")
    for sent, status in ((b"no http\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431)):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status) and b"application/problem+json" in head
        assert set(json.loads(body)) == MEMBERS


class Broken:
    """Routes with a mistake of ours."""

    tag: ClassVar[str] = "broken"
    about: ClassVar[str] = "Raises."

    def add_to(self, router: APIRouter) -> None:
        router.get("/broken")(self.broken)

    async def broken(self) -> None:
        raise RuntimeError("with a secret in it")


async def test_a_mistake_of_ours_is_told_without_its_words(at: Asked) -> None:
    app = at.gateway.app
    page = MetricsPage(app.metrics, lambda: None)
    access = parts.admin_access(
        app.config, app._wrong_tokens, parts.console(app.config, {"admin": b"key"}, app.open_sessions)
    )
    admin = build_admin(app.pipeline, app.fleet, access, page, Broken())
    transport = httpx.ASGITransport(admin, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        got = await client.get("/admin/broken", headers=RIGHT)
    assert checked(got, 500)["code"] == "internal_error"
    assert "secret" not in got.text and got.headers["x-content-type-options"] == "nosniff"
