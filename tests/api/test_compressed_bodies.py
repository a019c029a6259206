"""Compressed bodies of clients: unpacked within the bounds of plain ones, or refused in words that name the header."""

import asyncio
import contextlib
import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.api import body as request_body
from gateway.api.body import STEPS, RequestBody
from gateway.core.access.api_keys import key_digest
from gateway.core.dialects import DIALECTS
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, ScriptedNode, answer, chunk, scripted_node
from tests.support.raw import Answer, head, raw_client

CHAT = "/v1/chat/completions"
MIB = 1 << 20
KEY = "fg-a-key"


def ask(text: str = "hi", **more: Any) -> bytes:
    body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": text}], "input": "a", **more}
    return json.dumps({**body, "prompt": "hi", "tokens": [1]}).encode()


def tenant(**limits: Any) -> dict[str, Any]:
    return {"name": "one", "keys": [{"sha256": key_digest(KEY).hex()}], "limits": limits}


def words(size: int) -> str:
    """Text that compresses to about a half."""
    return random.Random(size).randbytes(size // 2).hex()


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


async def ok(node: ScriptedNode, *_: Any) -> None:
    _[-1].write(answer(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'))


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[RunningGateway, ScriptedNode]]:
    """At its end nothing is held, and nobody has a place."""
    async with scripted_node(ok) as node, running_gateway(node.url, **settings) as gateway:
        yield gateway, node
        await eventually(lambda: gateway.app.memory.held == 0)
        limiter = gateway.app.limiter
        assert limiter is None or (limiter.live, limiter._arrivals._running) == ({}, {})
        assert not gateway.app._bounds.lanes


async def sent(gateway: RunningGateway, body: bytes, *lines: str, path: str = CHAT) -> Answer:
    async with raw_client(gateway.port, patience=60) as client:
        await client.post(path, body, f"authorization: Bearer {KEY}", *lines)
        return await client.answer()


async def sent_in_chunks(gateway: RunningGateway, body: bytes, size: int, *lines: str) -> Answer:
    async with raw_client(gateway.port, patience=60) as client:
        await client.send(head("POST", CHAT, "transfer-encoding: chunked", *lines))
        await client.send(b"".join(chunk(body[at : at + size]) for at in range(0, len(body), size)) + b"0\r\n\r\n")
        return await client.answer()


def said(node: ScriptedNode) -> Any:
    """What the node was asked last, without the id that the gateway chose."""
    body = json.loads(node.asked[-1].body)
    return {key: value for key, value in body.items() if key != "request_id"}


NEVER_AS_IT_CAME = ("compact", "input_tokens")
"""Nodes do not know these dialects."""

ENCODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("X-GZip", gzip.compress),
    ("identity, gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("Deflate", raw_deflate),
    ("identity", bytes),
]


@pytest.mark.parametrize("path", [dialect.path for dialect in DIALECTS if dialect.name not in NEVER_AS_IT_CAME])
async def test_the_node_gets_the_plain_body_in_every_dialect(path: str) -> None:
    async with serving() as (gateway, node):
        await sent(gateway, ask(), path=path)
        plain = said(node)
        for told, pack in ENCODINGS:
            got = await sent(gateway, pack(ask()), f"content-encoding: {told}", path=path)
            assert got.status == 200, (told, got.body)
            asked = node.asked[-1]
            assert said(node) == plain
            assert asked.headers["content-length"] == str(len(asked.body))
            assert "content-encoding" not in asked.headers


async def test_it_is_unpacked_however_it_comes() -> None:
    """In one read with a head that is known, by the parser, in chunks of any size, small and of many steps."""
    async with serving() as (gateway, node):
        for text in ("hi", words(MIB)):
            body = ask(text)
            for told, pack in ENCODINGS[:4]:
                packed, line = pack(body), f"content-encoding: {told}"
                async with raw_client(gateway.port, patience=60) as client:
                    for _ in range(3):
                        await client.post(CHAT, packed, line)
                        assert (await client.answer()).status == 200
                        assert node.asked[-1].body == body
                for size in (1, 7, 5000) if len(packed) < 1000 else (5000,):
                    assert (await sent_in_chunks(gateway, packed, size, line)).status == 200
                    assert node.asked[-1].body == body


@pytest.mark.parametrize("path", [dialect.path for dialect in DIALECTS])
async def test_what_is_not_taken_is_refused_by_the_header_s_name(path: str) -> None:
    """Before its body is asked for, and the connection lives on where the body came."""
    async with serving() as (gateway, node):
        for lines in (["zstd"], ["br"], ["gzip, gzip"], ["gzip", "deflate"], ["gzip;q=1"], ["x-deflate"]):
            told = [f"content-encoding: {line}" for line in lines]
            async with raw_client(gateway.port) as client:
                for _ in range(2):
                    await client.post(path, b"\x28\xb5\x2f\xfd", *told)
                    got = await client.answer()
                    assert (got.status, got.headers["accept-encoding"]) == (415, "gzip, deflate")
                    error = got.json()["error"]
                    assert "Content-Encoding" in error["message"] and "gzip, deflate" in error["message"]
                    assert error.get("code", "unsupported_content_encoding") == "unsupported_content_encoding"
                    assert error.get("param", "content-encoding") == "content-encoding"
                await client.post(CHAT, ask())
                assert (await client.answer()).status == 200
            async with raw_client(gateway.port) as client:
                await client.send(head("POST", path, "content-length: 30000000", "expect: 100-continue", *told))
                assert (await client.answer()).status == 415
        assert len(node.asked) == 6


async def test_a_request_without_a_body_may_say_what_it_likes() -> None:
    async with serving() as (gateway, _):
        async with raw_client(gateway.port) as client:
            await client.send(head("GET", "/v1/models", "content-encoding: zstd"))
            assert (await client.answer("GET")).status == 200
            for line in ("content-encoding: zstd", "content-encoding: gzip"):
                await client.send(head("POST", CHAT, "content-length: 0", line))
                got = await client.answer()
                assert (got.status, got.json()["error"]["code"]) == (400, "invalid_json")
                assert "no body" in got.json()["error"]["message"]
        assert "no body" in (await sent_in_chunks(gateway, b"", 1, "content-encoding: gzip")).json()["error"]["message"]
        assert (
            "no body" in (await sent(gateway, gzip.compress(b""), "content-encoding: gzip")).json()["error"]["message"]
        )


@pytest.mark.parametrize(
    "broken",
    [
        gzip.compress(ask())[:-1],
        gzip.compress(ask()) + b"x",
        gzip.compress(ask())[:-8] + b"\0" * 8,
        zlib.compress(ask()),
        ask(),
        b"\x1f",
        gzip.compress(ask(words(MIB)))[:-1],
    ],
)
async def test_a_body_that_is_not_what_it_says_is_told_so(broken: bytes) -> None:
    """On a connection that lives on: its bytes were all read."""
    async with serving() as (gateway, node), raw_client(gateway.port) as client:
        await client.post(CHAT, broken, "content-encoding: gzip")
        got = await client.answer()
        error = got.json()["error"]
        assert (got.status, error["code"], error["param"]) == (400, "invalid_content_encoding", "content-encoding")
        await client.post(CHAT, gzip.compress(ask()), "content-encoding: gzip")
        assert (await client.answer()).status == 200
        assert len(node.asked) == 1


async def test_members_of_one_gzip_are_one_body() -> None:
    async with serving() as (gateway, node):
        body = ask(words(MIB))
        packed = gzip.compress(body[:1000]) + gzip.compress(body[1000:])
        assert (await sent(gateway, packed, "content-encoding: gzip")).status == 200
        assert node.asked[-1].body == body


# Bounds


@contextlib.asynccontextmanager
async def peak(gateway: RunningGateway) -> AsyncIterator[list[int]]:
    """The most that was held in any turn of the loop, as the only element."""
    most, memory = [0], gateway.app.memory

    async def look() -> None:
        while True:
            most[0] = max(most[0], memory.held)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    try:
        yield most
    finally:
        looking.cancel()


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
async def test_a_bomb_is_refused_before_it_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    """Although what it unpacks to, 15 MiB, would be a body's size, and there is memory for it."""
    coding = "gzip" if pack is gzip.compress else "deflate"
    async with serving(requests={"memory": 1024 * MIB}) as (gateway, _), peak(gateway) as most:
        got = await sent(gateway, pack(bytes(15 * MIB)), f"content-encoding: {coding}")
        assert (got.status, got.json()["error"]["code"]) == (413, "body_too_large")
        assert "200 times" in got.json()["error"]["message"]
        assert most[0] < 10 * MIB


async def test_a_bomb_in_a_bomb_is_unpacked_by_nobody() -> None:
    nested = gzip.compress(gzip.compress(bytes(15 * MIB)))
    async with serving() as (gateway, _):
        assert (await sent(gateway, nested, "content-encoding: gzip, gzip")).status == 415
        got = await sent(gateway, nested, "content-encoding: gzip")
        assert (got.status, got.json()["error"]["code"]) == (400, "invalid_json")


async def test_what_unpacks_to_more_than_a_body_may_have_is_too_large() -> None:
    async with serving(requests={"max_body": MIB, "memory": 256 * MIB}) as (gateway, _), peak(gateway) as most:
        fits = ask(words(MIB - 400))
        assert (await sent(gateway, gzip.compress(fits), "content-encoding: gzip")).status == 200
        got = await sent(gateway, gzip.compress(ask(words(3 * MIB // 2))), "content-encoding: gzip")
        assert (got.status, got.json()["error"]["code"]) == (413, "body_too_large")
        assert "The decompressed body is larger than 1048576 bytes" in got.json()["error"]["message"]
        assert most[0] < 16 * MIB
        async with raw_client(gateway.port) as client:  # too large as it comes, too
            await client.send(head("POST", CHAT, f"content-length: {MIB + 1}", "content-encoding: gzip"))
            assert (await client.answer()).status == 413


async def test_what_is_unpacked_is_weighed_as_a_plain_body_is() -> None:
    async with serving(requests={"memory": 16 * MIB, "max_json_values": 10_000}) as (gateway, _), peak(gateway) as most:
        dense = ask(x=list(range(20_000)))
        assert (await sent(gateway, dense)).json()["error"]["code"] == "too_many_values"
        got = await sent(gateway, gzip.compress(dense), "content-encoding: gzip")
        assert (got.status, got.json()["error"]["code"]) == (413, "too_many_values")
        got = await sent(gateway, gzip.compress(ask(words(4 * MIB))), "content-encoding: gzip")
        assert (got.status, got.json()["error"]["code"]) == (413, "body_too_large")
        assert "bytes of memory" in got.json()["error"]["message"]
        assert most[0] <= 8 * MIB


async def test_compressed_bytes_are_not_taken_for_json() -> None:
    """One byte in 64 of a compressed body looks like a comma or a bracket, which a plain one may have 10,000 of."""
    body = ask(random.Random(1).randbytes(MIB).hex())
    packed = gzip.compress(body)
    assert sum(packed.count(byte) for byte in b"{[,") > 10_000
    async with serving(requests={"max_json_values": 10_000, "memory": 64 * MIB}) as (gateway, node):
        assert (await sent(gateway, packed, "content-encoding: gzip")).status == 200
        assert node.asked[-1].body == body


async def test_who_may_not_ask_gets_nothing_unpacked() -> None:
    """Neither without a key nor beyond a limit, and however small the body is: nobody notices that it is corrupt."""
    packed = gzip.compress(ask())
    corrupt, line = packed[:-1] + b"x", "content-encoding: gzip"
    async with serving(tenants=[tenant(requests_per_minute=1)]) as (gateway, _):
        async with raw_client(gateway.port) as client:
            for told in (line, "content-encoding: zstd"):
                await client.post(CHAT, corrupt, told, "authorization: Bearer fg-wrong")
                assert (await client.answer()).status == 401
        assert (await sent(gateway, corrupt, line)).status == 400
        assert (await sent(gateway, packed, line)).status == 200
        for body in (packed, corrupt):
            assert (await sent(gateway, body, line)).status == 429


async def test_others_are_served_while_large_bodies_are_unpacked() -> None:
    """By steps: what one step unpacks passes by, another large body of the tenant waits for its turn."""
    async with serving(requests={"memory": 512 * MIB}) as (gateway, node):
        large, lanes = gzip.compress(ask(words(8 * MIB)), 1), gateway.app._bounds.lanes
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw_client(gateway.port, patience=60)) for _ in range(2)]
            for client in clients:
                await client.post(CHAT, large, "content-encoding: gzip")
            await eventually(lambda: "default" in lanes and lanes["default"].locked())
            assert (await sent(gateway, gzip.compress(ask()), "content-encoding: gzip")).status == 200
            assert lanes["default"].locked() and len(node.asked) == 1
            assert [(await client.answer()).status for client in clients] == [200, 200]


async def test_nobody_waits_for_the_bodies_of_another_tenant() -> None:
    tenants = [tenant(), {"name": "two", "keys": [{"sha256": key_digest("fg-another").hex()}]}]
    async with serving(requests={"memory": 512 * MIB}, tenants=tenants) as (gateway, node):
        large = gzip.compress(ask(words(MIB)), 1)
        async with gateway.app._bounds.lane("one"), raw_client(gateway.port) as client:
            await client.post(CHAT, large, "content-encoding: gzip", f"authorization: Bearer {KEY}")
            await eventually(lambda: gateway.app.memory.held_by("one") > 2 * len(large))
            async with raw_client(gateway.port, patience=60) as other:
                await other.post(CHAT, large, "content-encoding: gzip", "authorization: Bearer fg-another")
                assert (await other.answer()).status == 200
            assert len(node.asked) == 1


@pytest.mark.skipif(request_body.__file__.endswith(".so"), reason="compiled modules call each other past their names")
async def test_many_tenants_hold_the_loop_up_no_longer_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"fg-key-{at}" for at in range(3 * STEPS)]
    tenants = [{"name": name, "keys": [{"sha256": key_digest(name).hex()}]} for name in names]
    steps: Counter[int] = Counter()
    turn = 0

    def count(body: RequestBody) -> bool:
        if len(body.whole or b"") < MIB // 2:  # but the first, which comes with the request
            steps[turn] += 1
        return unpack(body)

    unpack = RequestBody.unpack
    monkeypatch.setattr(RequestBody, "unpack", count)
    async with serving(requests={"memory": 512 * MIB}, tenants=tenants) as (gateway, node):
        large = gzip.compress(ask(words(2 * MIB)), 1)

        async def one(name: str) -> int:
            async with raw_client(gateway.port, patience=60) as client:
                await client.post(CHAT, large, "content-encoding: gzip", f"authorization: Bearer {name}")
                return (await client.answer()).status

        asking = asyncio.gather(*(one(name) for name in names))
        while not asking.done():
            await asyncio.sleep(0)
            turn += 1
        assert asking.result() == [200] * len(names) and len(node.asked) == len(names)
    assert 1 < max(steps.values()) <= STEPS


@pytest.mark.parametrize("waits", [False, True])
async def test_a_client_that_leaves_leaves_nothing(waits: bool) -> None:
    """While its body is unpacked, or waits for that."""
    async with serving(requests={"memory": 512 * MIB}) as (gateway, node):
        large = gzip.compress(ask(words(8 * MIB)), 1)
        lane = gateway.app._bounds.lane("default")
        if waits:
            await lane.acquire()
        async with raw_client(gateway.port) as client:
            await client.post(CHAT, large, "content-encoding: gzip")
            await eventually(lambda: gateway.app.memory.held > 2 * len(large))
        await eventually(lambda: not gateway.server.server_state.connections)
        if waits:
            lane.release()
        del lane
        await eventually(lambda: gateway.app.memory.held == 0)
        assert not node.asked


async def test_a_body_that_breaks_off_leaves_nothing() -> None:
    async with serving() as (gateway, node):
        packed = gzip.compress(ask(words(MIB)))
        for lines in (f"content-length: {len(packed)}", "transfer-encoding: chunked"):
            async with raw_client(gateway.port) as client:
                await client.send(head("POST", CHAT, "content-encoding: gzip", lines))
                await client.send(chunk(packed[:-100]) if "chunked" in lines else packed[:-100])
                await eventually(lambda: gateway.app.memory.held > 0)
            await eventually(lambda: gateway.app.memory.held == 0)
        assert not node.asked


async def test_the_admin_listener_takes_plain_documents_only() -> None:
    async with serving() as (gateway, _):
        for coding in ("gzip", "zstd"):
            async with raw_client(gateway.admin_port) as client:
                await client.post("/admin/drain", gzip.compress(b"{}"), f"content-encoding: {coding}")
                got = await client.answer()
                assert (got.status, got.headers["accept-encoding"]) == (415, "identity")
                assert "Content-Encoding" in got.json()["detail"]
        async with raw_client(gateway.admin_port) as client:
            await client.send(head("GET", "/health", "content-encoding: gzip"))
            assert (await client.answer("GET")).status == 200
