"""What a request may hold and when it is refused: before its bytes are kept, in its dialect, and all is given back."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.access.api_keys import key_from
from gateway.core.dialects import DIALECTS
from gateway.core.memory import STRANGER
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, chunk, scripted_node
from tests.support.raw import Answer, RawClient, head, raw_client
from tests.support.redis import redis_server

CHAT = "/v1/chat/completions"
MIB = 1 << 20
KEYS = {name: f"key-of-{name}" for name in ("a", "b")}


def tenants(**limits: Any) -> list[dict[str, Any]]:
    """`limits` are of the tenant a."""
    keys = {name: [{"sha256": hashlib.sha256(key.encode()).hexdigest()}] for name, key in KEYS.items()}
    return [{"name": name, "keys": keys[name], **({"limits": limits} if name == "a" else {})} for name in KEYS]


def ask(**more: Any) -> bytes:
    body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
    return json.dumps({**body, **more}, separators=(",", ":")).encode()


async def ok(node: ScriptedNode, *_: Any) -> None:
    said = b'"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]'  # for what is asked in chat
    _[-1].write(answer(b'{"count":1,%b,"usage":{"prompt_tokens":1,"completion_tokens":1}}' % said))


@contextlib.asynccontextmanager
async def serving(reply: Any = ok, **settings: Any) -> AsyncIterator[RunningGateway]:
    """At its end nothing is held, and nobody has a place."""
    async with scripted_node(reply) as node, running_gateway(node.url, **settings) as gateway:
        yield gateway
        await eventually(lambda: gateway.app.memory.held == 0)
        limiter = gateway.app.limiter
        assert limiter is None or (limiter.live, limiter._arrivals._running) == ({}, {})


async def begun(client: RawClient, length: int, name: str = "a", path: str = CHAT) -> None:
    await client.send(head("POST", path, f"content-length: {length}", f"authorization: Bearer {KEYS[name]}"))


def refused(got: Answer, status: int, code: str) -> None:
    said = got.json()["error"]
    assert (got.status, said.get("code", code)) == (status, code)
    if status != 413:
        assert int(got.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", [dialect.path for dialect in DIALECTS])
async def test_memory_is_shared_out_before_a_body_comes(path: str) -> None:
    """Of 16 MiB one tenant gets 8; a body takes four times its length."""
    async with serving(tenants=tenants(), requests={"memory": 16 * MIB}) as gateway:
        async with raw_client(gateway.port) as first, raw_client(gateway.port) as second, raw_client(gateway.port) as b:
            await begun(first, 3 * MIB // 2)
            await eventually(lambda: gateway.app.memory.held == 6 * MIB)
            await begun(second, MIB, path=path)
            refused(await second.answer(), 503, "memory_full")
            await b.post(path, ask(), f"authorization: Bearer {KEYS['b']}")
            assert (await b.answer()).status == 200
        async with raw_client(gateway.port) as client:
            await begun(client, 2 * MIB + 1, path=path)
            refused(await client.answer(), 413, "body_too_large")


async def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    async with serving(tenants=tenants(), requests={"memory": 16 * MIB}) as gateway:
        async with raw_client(gateway.port) as client:
            lines = ("transfer-encoding: chunked", f"authorization: Bearer {KEYS['a']}")
            await client.send(head("POST", CHAT, *lines))
            with contextlib.suppress(ConnectionError):
                for _ in range(30):
                    await client.send(chunk(b" " * (MIB // 8)))
            refused(await client.answer(), 413, "body_too_large")
            assert gateway.app.memory.held <= 8 * MIB


async def test_what_was_kept_of_a_refused_body_is_let_go_although_the_client_sends_on() -> None:
    async with serving(tenants=tenants(), requests={"memory": 96 * MIB, "max_json_values": 50_000}) as gateway:
        async with raw_client(gateway.port) as client:
            await begun(client, 3 * MIB)
            await client.send(b'{"x":[' + b"[]," * (MIB // 4))
            refused(await client.answer(), 413, "too_many_values")
            await eventually(lambda: gateway.app.memory.held == 0)


@pytest.mark.parametrize("unit", [b"1", b"[]", b"{}", b'"a"', b'{"a":1}'])
async def test_values_are_counted_in_every_shape(unit: bytes) -> None:
    """Commas and opening brackets of the whole body: at the bound it is served, one beyond it is not."""
    each = 1 + unit.count(b"{") + unit.count(b"[")
    around = ask(x=[]).count(b",") + ask(x=[]).count(b"{") + ask(x=[]).count(b"[")
    fits = (10_000 - around + 1) // each
    async with serving(requests={"max_json_values": 10_000}) as gateway:
        for count, status in ((fits, 200), (fits + 2, 413)):
            body = ask(x=[]).replace(b"[]", b"[%b%b]" % (b" " * 20_000, b",".join([unit] * count)))
            async with raw_client(gateway.port) as client:
                await client.post(CHAT, body)
                got = await client.answer()
                assert got.status == status, (count, got.body)


async def test_what_stands_in_strings_is_no_value() -> None:
    text = '{"a":[1,2,3]},\\"' * 40_000
    async with serving(requests={"max_json_values": 10_000}) as gateway:
        async with raw_client(gateway.port) as client:
            for _ in range(2):  # in one read with a known head, and by the parser
                await client.post(CHAT, ask(messages=[{"role": "user", "content": text}]))
                assert (await client.answer()).status == 200


async def test_the_body_of_a_stranger_is_not_read_while_its_key_is_looked_up() -> None:
    async with (
        redis_server() as redis,
        serving(redis=redis.settings, access={"stored": True}, timeouts={"body": 5}) as gateway,
    ):
        redis.freeze()
        async with raw_client(gateway.port, patience=30) as client:
            line = f"authorization: Bearer {key_from(b'0' * 64)}"
            await client.send(head("POST", CHAT, f"content-length: {15 * MIB}", line))
            sending = asyncio.create_task(client.send(b" " * (15 * MIB)))
            await asyncio.sleep(0.3)
            assert gateway.app.memory.held < 16 * MIB
            sending.cancel()
        redis.thaw()


async def test_strangers_lock_no_tenant_out() -> None:
    """Bodies that wait behind other requests are strangers' until these are answered."""
    body = ask(messages=[{"role": "user", "content": "hello " * 4000}])

    async def slow(node: ScriptedNode, asked: Asked, *_: Any) -> None:
        if b"slow" in asked.body:
            await released.wait()
        await ok(node, *_)

    released = asyncio.Event()
    async with serving(slow, tenants=tenants(), requests={"memory": 16 * MIB}) as gateway:
        memory = gateway.app.memory
        async with contextlib.AsyncExitStack() as stack:
            for size in [16_000] * 8 + [1000] * 16:
                client = await stack.enter_async_context(raw_client(gateway.port))
                await client.post(CHAT, ask(pad="slow"), f"authorization: Bearer {KEYS['b']}")
                await client.send(head("POST", CHAT, "content-length: 1000000") + b"[" * size)
            await eventually(lambda: memory.held_by(STRANGER) > memory.most - 200_000)
            async with raw_client(gateway.port) as client:
                await client.post(CHAT, body, f"authorization: Bearer {KEYS['a']}")
                assert (await client.answer()).status == 200
            released.set()


# Limits that are known before a body is read


async def _status_of(gateway: RunningGateway, body: bytes) -> int:
    async with raw_client(gateway.port) as client:
        await begun(client, len(body))
        await client.send(body)
        return (await client.answer()).status


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_places_are_counted_from_the_head_of_a_request(kind: str) -> None:
    async with _limited(kind, concurrent_requests=1) as gateway:
        async with raw_client(gateway.port) as first, raw_client(gateway.port) as second, raw_client(gateway.port) as b:
            body = ask(pad="x" * 100_000)
            await begun(first, len(body))
            await first.send(body[:1000])
            await eventually(lambda: gateway.app.memory.held > 0)
            await begun(second, 15 * MIB)
            early = await second.answer()
            refused(early, 429, "rate_limit_exceeded")
            assert "concurrent_requests 1, requested 1, remaining 0" in early.json()["error"]["message"]
            await begun(b, len(body), "b")
            await b.send(body)
            assert (await b.answer()).status == 200
            await first.send(body[1000:])
            assert (await first.answer()).status == 200
        await _free(gateway)
        async with asyncio.timeout(30):
            while await _status_of(gateway, body) != 200:  # the place is on its way back to Redis
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_requests_per_minute_are_looked_at_before_a_body(kind: str) -> None:
    """The same words and headers as for a request whose body was read."""
    async with _limited(kind, requests_per_minute=1, burst_seconds=60) as gateway:
        async with raw_client(gateway.port) as client:
            for status in (200, 429):
                await client.post(CHAT, ask(), f"authorization: Bearer {KEYS['a']}")
                late = await client.answer()
                assert late.status == status
        async with raw_client(gateway.port) as client:
            await begun(client, 15 * MIB)
            early = await client.answer()
        refused(early, 429, "rate_limit_exceeded")
        assert early.headers.keys() - {"connection"} == late.headers.keys() - {"connection"}
        assert early.headers["x-ratelimit-remaining-requests"] == "0"
        said, before = (each.json()["error"]["message"].partition(" Try")[0] for each in (early, late))
        assert said == before


async def test_a_remembered_refusal_holds_no_longer_than_its_bucket_needs() -> None:
    async with _limited("redis", requests_per_minute=60, burst_seconds=1) as gateway:
        body = ask(pad="x" * 100_000)
        statuses: list[int] = []
        async with asyncio.timeout(30):
            while statuses.count(200) < 3:
                async with raw_client(gateway.port) as client:
                    await begun(client, len(body))
                    await client.send(body)
                    statuses.append((await client.answer()).status)
                await asyncio.sleep(0.05)
        assert 429 in statuses


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_remembered_refusal_is_forgotten_where_redis_grants(restarts: bool) -> None:
    large = ask(pad="x" * 100_000)
    async with redis_server() as redis:
        settings: dict[str, Any] = {"tenants": tenants(requests_per_minute=2), "redis": redis.settings}
        async with serving(**settings) as gateway:
            link: Any = gateway.app.redis

            async def status(body: bytes) -> int:
                async with raw_client(gateway.port) as client:
                    await client.post(CHAT, body, f"authorization: Bearer {KEYS['a']}")
                    return (await client.answer()).status

            assert [await status(body) for body in (ask(), ask(), ask(), large)] == [200, 200, 429, 429]
            if restarts:
                redis.stop()
                await eventually(lambda: not link.up)
                redis.start()
                await eventually(lambda: link.up)
            else:
                redis.flush()
                assert await status(ask()) == 200
            assert await status(large) == 200


async def test_a_place_is_free_again_when_a_body_is_broken_off_or_refused() -> None:
    async with _limited("memory", concurrent_requests=1) as gateway:
        for broken in (b"", b"{" * 200, ask(pad="x" * 100_000)[:-1] + b"!"):
            async with raw_client(gateway.port) as client:
                length = len(broken) if broken.endswith(b"!") else 100_000
                await begun(client, length)
                await client.send(broken)
                if length == len(broken):
                    assert (await client.answer()).status == 400
            await _free(gateway)


@contextlib.asynccontextmanager
async def _limited(kind: str, **limits: Any) -> AsyncIterator[RunningGateway]:
    async with contextlib.AsyncExitStack() as stack:
        settings: dict[str, Any] = {"tenants": tenants(**limits)}
        if kind == "redis":
            settings["redis"] = (await stack.enter_async_context(redis_server())).settings
        yield await stack.enter_async_context(serving(**settings))


async def _free(gateway: RunningGateway) -> None:
    limiter = gateway.app.limiter
    assert limiter is not None
    await eventually(lambda: not limiter.live and not limiter._arrivals._running and gateway.app.memory.held == 0)
