"""What web pages can do to the listeners: the rows of "Web pages" in docs/access.md, over the wire."""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import pytest

from gateway.core.access.api_keys import key_digest
from gateway.core.dialects import DIALECTS
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import Answer, raw_client

KEY, TOKEN, PAGE = "fg-a-key", "an-admin-token", "https://app.example"
TENANTS = [{"name": "one", "keys": [{"sha256": key_digest(KEY).hex()}]}]
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
EVIL = "http://evil.test:9091"
REBOUND = ("host: evil.test:9091", f"origin: {EVIL}")
BEYOND: dict[str, Any] = {"listen": {"host": "0.0.0.0", "hosts": ()}, "no_auth": True}
ON_LOOPBACK: dict[str, Any] = {"listen": {"hosts": ()}, "admin": {"hosts": ()}}
WITH_KEYS: dict[str, Any] = {**ON_LOOPBACK, "tenants": TENANTS}
WITH_TOKEN: dict[str, Any] = {"admin": {"token": TOKEN, "hosts": ()}}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


async def ask(port: int, method: str, path: str, *lines: str, body: bytes = b"") -> Answer:
    """One request with exactly these header lines."""
    head = "\r\n".join((f"{method} {path} HTTP/1.1", *lines, f"content-length: {len(body)}", "", ""))
    async with raw_client(port) as client:
        await client.send(head.encode() + body)
        return await client.answer(method)


@pytest.mark.parametrize(
    ("settings", "lines", "status"),
    [
        (ON_LOOPBACK, ("host: localhost:8080",), 200),
        (ON_LOOPBACK, ("host: gateway:8080",), 403),
        (ON_LOOPBACK, REBOUND, 403),
        (ON_LOOPBACK, ("host: localhost", f"origin: {EVIL}"), 403),
        (ON_LOOPBACK, ("host: localhost", "sec-fetch-site: cross-site"), 403),
        (BEYOND, ("host: gateway:8080",), 200),
        (BEYOND, ("host: 10.0.0.5:8080",), 200),
        (BEYOND, REBOUND, 403),
        (BEYOND, ("host: gateway:8080", f"origin: {EVIL}"), 403),
        ({"listen": {"hosts": ["gw.example"]}}, ("host: gw.example",), 200),
        ({"listen": {"hosts": (), "cors_origins": [PAGE]}}, ("host: localhost", f"origin: {PAGE}"), 200),
        ({"listen": {"hosts": (), "cors_origins": ["*"]}}, REBOUND, 200),
        (WITH_KEYS, (*REBOUND, f"authorization: Bearer {KEY}"), 200),
        (WITH_KEYS, REBOUND, 401),
    ],
)
async def test_the_public_listener(settings: dict[str, Any], lines: tuple[str, ...], status: int) -> None:
    """On every path where a caller is asked for: the dialects', the models', stored responses'."""
    body = json.dumps(ASK).encode()
    async with scripted_node(plain) as node, running_gateway(node.url, **settings) as gateway:
        asked = len(node.asked)
        for _ in range(2):  # also where the head is known already
            got = await ask(gateway.port, "POST", "/v1/chat/completions", *lines, body=body)
            assert got.status == status, got.body
        assert len(node.asked) - asked == (2 if status == 200 else 0)
        models = await ask(gateway.port, "GET", "/v1/models", *lines)
        assert models.status == status
        if status == 403:
            assert models.json()["error"]["code"] == "cross_site_request"
            for dialect in DIALECTS:
                got = await ask(gateway.port, "POST", dialect.path, *lines, "content-type: text/plain", body=body)
                assert got.status == 403 and got.json()["error"]["type"] == "permission_error"
            assert (await ask(gateway.port, "GET", "/v1/responses/resp_abc", *lines)).status == 403
        for path in ("/health", "/ready"):
            assert (await ask(gateway.port, "GET", path, "host: evil.test")).status == 200


async def test_keys_that_are_no_longer_asked_for_close_a_kept_connection_to_pages() -> None:
    """What a connection's heads are known to be does not outlive what the configuration asks."""
    async with scripted_node(plain) as node, running_gateway(node.url, **WITH_KEYS) as gateway:
        async with raw_client(gateway.port) as client:
            head = ("host: evil.test", f"origin: {EVIL}", f"authorization: Bearer {KEY}")
            lines = "\r\n".join(("POST /v1/chat/completions HTTP/1.1", *head, "content-length: %d", "", ""))
            body = json.dumps(ASK)
            for status in (200, 200, 403):
                if status == 403:
                    gateway.app.apply(gateway.app.config.model_copy(update={"tenants": ()}))
                await client.send(lines % len(body) + body)
                assert (await client.answer()).status == status


CHANGES = ("/admin/reload", "/admin/drain")
SIMPLE = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain;json", "")


@pytest.mark.parametrize("path", CHANGES)
async def test_a_page_changes_nothing_on_an_admin_listener_without_a_token(path: str) -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, **ON_LOOPBACK) as gateway:
        port, own = gateway.admin_port, f"host: localhost:{gateway.admin_port}"
        body = json.dumps({"node": node.url.removeprefix("http://")}).encode() if path != CHANGES[0] else b""
        json_type = "content-type: application/json"
        for lines in (
            (*REBOUND, json_type),
            ("host: evil.test", json_type),
            (own, f"origin: {EVIL}", json_type),
            (own, "origin: null", json_type),
            (own, f"origin: http://localhost:{port + 1}", json_type),
            (own, "sec-fetch-site: cross-site", json_type),
            ("host: gateway:9091", json_type),
        ):
            assert (await ask(port, "POST", path, *lines, body=body)).status == 403
        for kind in SIMPLE:  # from a browser so old that it sends no Origin
            got = await ask(port, "POST", path, own, f"content-type: {kind}", body=body or b"x")
            assert got.status == 415
        assert (await ask(port, "POST", path, own, body=b"{}")).status == 415
        assert gateway.app.fleet.nodes[0].drain is None
        got = await ask(port, "POST", path, own, f"origin: http://localhost:{port}", json_type, body=body)
        assert got.status in (200, 400), "its own page, and who is no browser, may (this one has no file to reload)"
        assert (gateway.app.fleet.nodes[0].drain is None) == (path == CHANGES[0])


async def test_a_page_reads_nothing_of_an_admin_listener_without_a_token() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, **ON_LOOPBACK) as gateway:
        port = gateway.admin_port
        for path in ("/metrics", "/admin/fleet", "/openapi.json", "/admin/nowhere", "/docs"):
            assert (await ask(port, "GET", path, "host: evil.test")).status == 403
        for path in ("/metrics", "/admin/fleet", "/openapi.json"):
            assert (await ask(port, "GET", path, f"host: 127.0.0.1:{port}")).status == 200
        assert (await ask(port, "GET", "/health", "host: 10.0.0.5")).status == 200


async def test_where_a_token_is_asked_the_name_does_not_matter() -> None:
    """Pods are scraped by their addresses, and called by the names of Services."""
    settings: dict[str, Any] = {"admin": {**WITH_TOKEN["admin"], "open_metrics": True}}
    async with scripted_node(plain) as node, running_gateway(node.url, **settings) as gateway:
        port, token = gateway.admin_port, f"authorization: Bearer {TOKEN}"
        for host in ("host: 10.0.0.5:9091", "host: fleetgate.default.svc:9091", "host: gw.example"):
            assert (await ask(port, "GET", "/admin/fleet", host, token)).status == 200
            assert (await ask(port, "GET", "/metrics", host)).status == 200
            assert (await ask(port, "GET", "/admin/fleet", host)).status == 401


async def test_the_token_is_looked_at_before_anything_else_of_a_request() -> None:
    """The body has not come, is none, or is too much; the path is not there: all are 401, at once."""
    async with scripted_node(plain) as node, running_gateway(node.url, **WITH_TOKEN) as gateway:
        port = gateway.admin_port
        for method, path in (("POST", "/admin/tenants"), ("POST", "/admin/nowhere"), ("GET", "/nowhere")):
            for body in (b"{x", b'{"name": 1}', b""):
                got = await ask(port, method, path, "host: x", "content-type: application/json", body=body)
                assert got.status == 401 and got.headers["www-authenticate"] == "Bearer"
        async with raw_client(port) as client:
            await client.send("POST /admin/tenants HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
            assert (await client.answer()).status == 401


async def test_guessing_the_token_is_slowed_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**WITH_TOKEN, "access": {"wrong_keys_per_minute": 3}}
    async with scripted_node(plain) as node, running_gateway(node.url, **settings) as gateway:
        port = gateway.admin_port
        wrong = [f"authorization: Bearer wrong-{number}" for number in range(40)]
        got = [await ask(port, "GET", "/admin/fleet", "host: x", line) for line in wrong]
        assert [each.status for each in got[:3]] == [401, 401, 401]
        assert {each.status for each in got[3:10]} == {429}
        assert 1 <= int(got[3].headers["retry-after"]) <= 20
        assert (await ask(port, "GET", "/admin/fleet", "host: x")).status == 401, "no token is no guess"
        assert (await ask(port, "GET", "/health", "host: x")).status == 200
        right = await ask(port, "GET", "/admin/fleet", "host: x", f"authorization: Bearer {TOKEN}")
        assert right.status == 429, "a right guess is not told from a wrong one, or guessing would not be slow"
    told = capsys.readouterr()
    lines = [line for line in (told.out + told.err).splitlines() if "wrong_admin_token" in line]
    assert len(lines) == 1 and "127.0.0.1" in lines[0] and "wrong-" not in lines[0]
    assert (told.out + told.err).count("admin_tokens_throttled") == 1


async def test_every_answer_of_the_admin_listener_is_closed_to_pages() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, **WITH_TOKEN) as gateway:
        token = f"authorization: Bearer {TOKEN}"
        paths = ("/health", "/metrics", "/admin/fleet", "/admin/nowhere", "/openapi.json", "/redoc")
        for path in paths:
            for lines in ((token,), ()):
                got = await ask(gateway.admin_port, "GET", path, "host: x", *lines)
                assert got.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
                assert got.headers["x-content-type-options"] == "nosniff"
                assert got.headers["x-frame-options"] == "DENY"
                assert got.headers["cache-control"] == "no-store"
                assert got.headers["referrer-policy"] == "no-referrer"
                assert b"https://" not in got.body and b"<script" not in got.body
        for path in ("/redoc", "/docs/oauth2-redirect"):
            assert (await ask(gateway.admin_port, "GET", path, "host: x", token)).status == 404


async def test_many_hosts_at_once_are_judged_each_by_itself() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, **ON_LOOPBACK) as gateway:
        hosts = [("localhost", 200), ("evil.test", 403)] * 20
        got = await asyncio.gather(*[ask(gateway.port, "GET", "/v1/models", f"host: {host}") for host, _ in hosts])
        assert [each.status for each in got] == [status for _, status in hosts]
