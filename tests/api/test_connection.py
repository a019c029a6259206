"""What the data plane's connections hold by themselves: heads that come again, layers of ASGI, many at once."""

import asyncio
import hashlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer

from gateway.api.layers import Layers
from tests.support.gateways import running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, scripted_node
from tests.support.raw import head, raw_client

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
KEY, OTHER = "sk-a-key-that-is-right-0001", "sk-a-key-that-is-wrong-0002"


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
    layers = Layers(nowhere, trusted_proxies=("10.0.0.0/8", "::1"))
    said = [(b"x-forwarded-for", b"6.6.6.6, 1.2.3.4"), (b"x-forwarded-for", b"10.0.0.7")]
    assert layers.address(("10.1.2.3", 1), said) == "1.2.3.4"
    assert layers.address(("::1", 1), said) == "1.2.3.4"
    assert layers.address(("9.9.9.9", 1), said) == "9.9.9.9"
    assert layers.address(("10.1.2.3", 1), []) == "10.1.2.3"
    assert layers.address(None, said) == "unknown"
    assert Layers(nowhere).address(("10.1.2.3", 1), said) == "10.1.2.3"
