"""What the data plane's connections hold by themselves: heads that come again, layers of ASGI, many at once."""

import asyncio
import hashlib
import json
import sys
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import pytest

from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.middleware import MAX_WARNED, Middleware
from gateway.api.request_head import RequestHead
from gateway.api.trusted_proxies import TrustedProxies
from tests.support.gateways import running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, scripted_node
from tests.support.raw import head, raw_client

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
KEY, OTHER = "sk-a-key-that-is-right-0001", "sk-a-key-that-is-wrong-0002"
TENANT = {"name": "one", "keys": [{"sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}


async def echo(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """A stream where one was asked for, else the request's `id`."""
    body = json.loads(asked.body)
    if body.get("stream"):
        writer.write(STREAM_HEAD + chunk(DONE) + LAST_CHUNK)
    else:
        writer.write(answer(json.dumps({"id": body.get("id")}).encode()))


async def test_a_kept_connection_gets_the_answer_to_each_of_its_requests() -> None:
    async with scripted_node(echo) as node, running_gateway(node.url) as gateway:
        async with raw_client(gateway.port) as client:
            for number in range(12):
                await client.post(CHAT, {**ASK, "id": "x" * number})
                assert (await client.answer()).json() == {"id": "x" * number}
                if number % 3 == 2:  # the same head again, but in two reads
                    raw = json.dumps({**ASK, "id": number}).encode()
                    await client.send(head("POST", CHAT, f"content-length: {len(raw)}") + raw[:9])
                    await asyncio.sleep(0)
                    await client.send(raw[9:])
                    assert (await client.answer()).json() == {"id": number}
                if number % 4 == 3:  # and in one read with the next
                    both = b""
                    for name in ("a", "b"):
                        raw = json.dumps({**ASK, "id": name}).encode()
                        both += head("POST", CHAT, f"content-length: {len(raw)}") + raw
                    await client.send(both)
                    assert [(await client.answer()).json()["id"] for _ in range(2)] == ["a", "b"]


async def test_another_key_in_the_same_place_of_a_head_is_another_key() -> None:
    tenants = [{"name": "a", "keys": [{"sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}]
    async with scripted_node(echo) as node, running_gateway(node.url, tenants=tenants) as gateway:
        async with raw_client(gateway.port) as client:
            for key, status in ((KEY, 200), (KEY, 200), (OTHER, 401), (KEY, 200), (OTHER, 401), (KEY, 200)):
                await client.post(CHAT, ASK, f"authorization: Bearer {key}")
                assert (await client.answer()).status == status


async def test_what_follows_a_familiar_head_is_still_checked() -> None:
    async with scripted_node(echo) as node, running_gateway(node.url, requests={"max_body": 1024}) as gateway:
        async with raw_client(gateway.port) as client:
            for body, status in ((ASK, 200), (b"{", 400), (ASK, 200), (b" " * 1025, 413)):
                await client.post(CHAT, body)
                assert (await client.answer()).status == status
        async with raw_client(gateway.port) as client:
            await client.post(CHAT, ASK)
            assert (await client.answer()).status == 200
            await client.send(head("POST", CHAT, "content-length: +2") + b"{}")
            assert (await client.answer()).status == 400


async def test_thousands_of_requests_in_a_few_reads_are_all_answered() -> None:
    """Those that end at once are not begun from within each other: the stack would not hold them."""
    many = 3000
    async with scripted_node(echo) as node, running_gateway(node.url) as gateway:
        async with raw_client(gateway.port, patience=60) as client:
            await client.post(CHAT, {**ASK, "id": 1})  # all wait behind it
            client.writer.write((head("POST", CHAT, "content-length: 1") + b"{") * many)
            assert (await client.answer()).json() == {"id": 1}
            for _ in range(many):
                assert (await client.answer()).status == 400
            await client.post(CHAT, {**ASK, "id": 2})
            assert (await client.answer()).json() == {"id": 2}


async def test_browsers_are_told_on_every_answer_what_other_pages_may_do() -> None:
    ours, strange = "https://app.example", "https://elsewhere.example"
    async with scripted_node(echo) as node, running_gateway(node.url, listen={"cors_origins": [ours]}) as gateway:
        async with raw_client(gateway.port) as client:
            asks = ("access-control-request-method: POST", "access-control-request-headers: authorization")
            for path in (CHAT, "/v1/models"):
                await client.send(head("OPTIONS", path, f"origin: {ours}", *asks))
                got = await client.answer()
                assert (got.status, got.headers["access-control-allow-origin"]) == (200, ours)
                await client.send(head("OPTIONS", path, f"origin: {strange}", *asks))
                assert (await client.answer()).status == 400
            for body, status in ((ASK, 200), (ASK, 200), (b"{", 400), ({**ASK, "stream": True}, 200)):
                await client.post(CHAT, body, f"origin: {ours}")
                got = await client.answer()
                assert (got.status, got.headers["access-control-allow-origin"]) == (status, ours)
                assert got.headers["access-control-expose-headers"].startswith("x-request-id, request-id")
                assert got.headers["vary"] == "Origin"
            await client.post(CHAT, ASK, f"origin: {strange}")
            assert "access-control-allow-origin" not in (await client.answer()).headers
            await client.send(head("GET", "/v1/models", f"origin: {ours}"))
            assert (await client.answer()).headers["access-control-allow-origin"] == ours


async def nowhere(scope: object, receive: object, send: object) -> None: ...


def test_only_trusted_proxies_are_believed_about_a_client() -> None:
    layers = Middleware(nowhere, trusted_proxies=("10.0.0.0/8", "::1"))
    said = [(b"x-forwarded-for", b"6.6.6.6, 1.2.3.4"), (b"x-forwarded-for", b"10.0.0.7")]
    assert layers.address(("10.1.2.3", 1), said) == "1.2.3.4"
    assert layers.address(("::1", 1), said) == "1.2.3.4"
    assert layers.address(("9.9.9.9", 1), said) == "9.9.9.9"
    assert layers.address(("10.1.2.3", 1), []) == "10.1.2.3"
    assert layers.address(None, said) == "unknown"
    assert Middleware(nowhere).address(("10.1.2.3", 1), said) == "10.1.2.3"


@pytest.mark.parametrize("trusted", ["10.0.0.0/8", "::ffff:10.0.0.0/104", "10.1.2.3", "::ffff:10.1.2.3"])
@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203"])
def test_a_proxy_is_known_in_every_spelling_of_its_address(trusted: str, peer: str) -> None:
    """A listener of both families sees IPv4 peers as IPv6; so may the proxy behind a proxy."""
    layers = Middleware(nowhere, trusted_proxies=(trusted,))
    for told in (b"1.2.3.4", b"::ffff:1.2.3.4", b"1.2.3.4, %b" % peer.encode()):
        assert layers.address((peer, 1), [(b"x-forwarded-for", told)]) == "1.2.3.4"
    bounds = ConnectionBounds(10, 1, layers.proxies)
    assert [bounds.enter(peer) for _ in range(3)] == [None] * 3
    assert layers.address(("::ffff:10.9.9.9", 1), []) == "10.9.9.9"


def test_a_list_of_addresses_is_read_no_further_than_its_client() -> None:
    """A client can send a list as long as a head may be, which its proxy appends to."""
    proxies, calls = TrustedProxies(["10.0.0.0/8"]), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        client = proxies.client(("10.0.0.1", 1), [(b"x-forwarded-for", b"::1," * 16_000 + b"203.0.113.9, 10.0.0.2")])
    finally:
        sys.setprofile(None)
    assert client == ("203.0.113.9", 0)
    assert calls < 1000


def test_a_zone_is_no_part_of_an_address() -> None:
    for trusted in ("fe80::1", "fe80::1%eth0", "fe80::/64"):
        layers = Middleware(nowhere, trusted_proxies=(trusted,))
        for peer in ("fe80::1", "fe80::1%eth1"):
            assert layers.address((peer, 1), [(b"x-forwarded-for", b"fe80::7%eth0, 2001:db8::1%2")]) == "2001:db8::1"


async def test_a_listener_of_both_families_trusts_and_counts_addresses_of_ipv4() -> None:
    listen = {"trusted_proxies": ["127.0.0.0/8"], "max_connections_per_address": 1}
    settings: dict[str, Any] = {"tenants": [TENANT], "access": {"wrong_keys_per_minute": 1}}
    async with scripted_node(echo) as node:
        async with running_gateway(node.url, host="::", listen=listen, **settings) as gateway:
            async with raw_client(gateway.port) as first, raw_client(gateway.port) as second:
                for client, address, status in (
                    (first, "192.0.2.1", 401),
                    (second, "192.0.2.1", 429),
                    (second, "::ffff:192.0.2.1", 429),
                    (first, "192.0.2.2", 401),
                ):
                    await client.post(CHAT, ASK, "x-api-key: fg-wrong", f"x-forwarded-for: {address}")
                    assert (await client.answer()).status == status
        listen |= {"trusted_proxies": []}
        async with running_gateway(node.url, host="::", listen=listen, **settings) as gateway:
            async with raw_client(gateway.port) as first, raw_client(gateway.port) as second:
                await first.post(CHAT, ASK, "x-api-key: fg-wrong")
                assert (await first.answer()).status == 401
                refused = await second.answer()
                assert refused.status == 503
                assert "open connections from 127.0.0.1:" in refused.json()["error"]["message"]


# Proxies that are not trusted


async def told_of(capsys: pytest.CaptureFixture[str], listen: dict[str, Any], *lines: str) -> list[str]:
    """What the log says of proxies, after some requests with these header lines, on one connection and on others."""
    async with scripted_node(echo) as node, running_gateway(node.url, listen=listen) as gateway:
        for _ in range(2):
            async with raw_client(gateway.port) as client:
                for path in (CHAT, CHAT, "/v1/models"):
                    await client.post(path, ASK, *lines)
                    await client.answer()
    printed = capsys.readouterr().out
    return [line for line in printed.splitlines() if "proxy_not_trusted" in line or "forwarded_header_ignored" in line]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_a_proxy_that_is_not_trusted_is_told_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = await told_of(capsys, {}, f"{name}: for=192.0.2.1")
    assert "address=127.0.0.1" in line and name.lower() in line and "listen.trusted_proxies" in line
    (line,) = await told_of(capsys, {"trusted_proxies": ["10.0.0.0/8"]}, f"{name}: for=192.0.2.1")
    assert "proxy_not_trusted" in line


async def test_a_trusted_proxy_is_not_told_of_unless_it_speaks_another_way(capsys: pytest.CaptureFixture[str]) -> None:
    trusted = {"trusted_proxies": ["127.0.0.1"]}
    assert not await told_of(capsys, trusted, "x-forwarded-for: 192.0.2.1", "forwarded: for=192.0.2.1")
    assert not await told_of(capsys, trusted)
    assert not await told_of(capsys, {})
    (line,) = await told_of(capsys, trusted, "forwarded: for=192.0.2.1")
    assert "forwarded_header_ignored" in line and "X-Forwarded-For" in line


def test_a_flood_of_addresses_tells_and_keeps_a_bounded_number(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {b"x-forwarded-for": b"1.2.3.4"}
    head = RequestHead("GET", "/", b"/", b"", [*fields.items()], fields, False, True, False)
    layers = Middleware(nowhere)
    for number in range(20_000):
        layers.warn_of_untrusted_proxy((f"2001:db8:{number:x}::1", 1), head)
    assert len(layers._warned) == MAX_WARNED
    assert capsys.readouterr().out.count("proxy_not_trusted") == MAX_WARNED
