"""Limits as clients meet them: what is told, when to come back, and what a request has used in the end."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.core.models import Models
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.raw import head, raw_client
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


def chat(max_tokens: int | None = 10, **more: Any) -> dict[str, Any]:
    """The fake writes exactly `max_tokens`."""
    turns = [{"role": "user", "content": "hello"}]
    return {"model": MODEL, "messages": turns, "max_tokens": max_tokens, "ignore_eos": True, **more}


@contextlib.asynccontextmanager
async def limited(
    redis: RedisServer | None = None, faults: tuple[Fault, ...] = (), node: FakeSettings | None = None, **limits: Any
) -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient, FakeNode]]:
    """A gateway whose only tenant has `limits`."""
    settings: dict[str, Any] = {"limits": {"default": limits}}
    if redis is not None:
        settings["redis"] = redis.settings
    async with serve_fake(node or FakeSettings()) as fake, running_gateway(fake.url, **settings) as gateway:
        fake.set_faults(*faults)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            yield gateway, client, fake


@contextlib.asynccontextmanager
async def store(kind: str) -> AsyncIterator[RedisServer | None]:
    if kind == "memory":
        yield None
    else:
        async with redis_server() as redis:
            yield redis


async def left(client: httpx.AsyncClient, name: str = "tokens") -> int:
    """What was left before a request that takes one token."""
    answer = await client.post("/tokenize", json={"model": MODEL, "prompt": "a"})
    return int(answer.headers[f"x-ratelimit-remaining-{name}"]) + 1


async def at_rest(gateway: RunningGateway) -> None:
    """Wait until no request holds anything."""
    limiter = gateway.app.limiter
    assert limiter is not None
    await eventually(lambda: not limiter.live)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_requests_sent_ahead_are_one_at_a_time(kind: str) -> None:
    async with store(kind) as redis, limited(redis, concurrent_requests=1) as (gateway, http, _):
        assert (await http.post(CHAT, json=chat())).status_code == 200  # Redis gets to know the scripts
        await at_rest(gateway)
        async with raw_client(gateway.port) as client:
            body = json.dumps(chat()).encode()
            await client.send((head("POST", CHAT, f"content-length: {len(body)}") + body) * 3)
            assert [(await client.answer()).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_every_answer_tells_what_is_left(kind: str) -> None:
    async with store(kind) as redis, limited(redis, requests_per_minute=100, tokens_per_minute=1000) as (_, client, _):
        first = await client.post(CHAT, json=chat(400))
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "100"
        assert first.headers["x-ratelimit-remaining-requests"] == "99"
        assert first.headers["x-ratelimit-limit-tokens"] == "1000"
        assert 580 <= int(first.headers["x-ratelimit-remaining-tokens"]) <= 600
        assert re.fullmatch(r"\d+(\.\d+)?s", first.headers["x-ratelimit-reset-tokens"])
        bad = await client.post(CHAT, json={"model": MODEL, "messages": "no list", "max_tokens": 1})
        assert bad.status_code == 400 and "x-ratelimit-remaining-requests" in bad.headers
        async with client.stream("POST", CHAT, json=chat(10, stream=True)) as stream:
            assert "x-ratelimit-reset-requests" in stream.headers


async def test_messages_are_told_in_anthropics_headers_too() -> None:
    async with limited(requests_per_minute=100, input_tokens_per_minute=500, output_tokens_per_minute=800) as found:
        answer = await found[1].post(MESSAGES, json=chat(400))
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "99"
        assert answer.headers["anthropic-ratelimit-input-tokens-limit"] == "500"
        assert answer.headers["anthropic-ratelimit-output-tokens-remaining"] == "400"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.headers["anthropic-ratelimit-tokens-reset"])


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_who_waits_as_long_as_told_passes(kind: str) -> None:
    async with store(kind) as redis, limited(redis, tokens_per_minute=60_000, burst_seconds=1) as (_, client, _):
        for _ in range(3):
            while (refused := await client.post(CHAT, json=chat(900))).status_code == 200:
                pass
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"
            assert "tokens_per_minute 1000, requested 9" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) == 1
            await asyncio.sleep(int(refused.headers["retry-after-ms"]) / 1000)  # this is what is promised
            assert (await client.post(CHAT, json=chat(900))).status_code == 200


async def test_a_refusal_is_in_the_clients_own_format() -> None:
    async with limited(requests_per_minute=1) as (_, client, _):
        assert (await client.post(MESSAGES, json=chat())).status_code == 200
        refused = await client.post(MESSAGES, json=chat())
        assert refused.status_code == 429
        assert refused.json()["type"] == "error" and refused.json()["error"]["type"] == "rate_limit_error"
        assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_what_can_never_fit_says_so_and_is_not_to_be_tried_again() -> None:
    async with limited(output_tokens_per_minute=100) as (_, client, _):
        refused = await client.post(CHAT, json=chat(101))
        assert refused.status_code == 429 and refused.headers["x-should-retry"] == "false"
        assert "The request exceeds a limit of" in refused.json()["error"]["message"]
        assert "retry-after" not in refused.headers
        # Where nobody bounded the answer, only an assumption is too large.
        assert (await client.post(CHAT, json=chat() | {"max_tokens": None, "ignore_eos": False})).status_code == 200
        endless = await client.post(CHAT, json=chat() | {"max_tokens": None})
        assert endless.status_code == 429, "it would surely fill the context window"


async def test_a_days_quota_is_no_reason_to_come_back_soon() -> None:
    async with limited(tokens_per_day=1000) as (_, client, _):
        assert (await client.post(CHAT, json=chat(500))).status_code == 200
        refused = await client.post(CHAT, json=chat(600))
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "quota_exceeded"
        assert refused.headers["x-should-retry"] == "false" and int(refused.headers["retry-after"]) <= 86_400


@pytest.mark.parametrize("kind", ["memory", "redis"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_has_used_in_the_end_what_it_used(kind: str, stream: bool) -> None:
    body = chat(900, stream=stream) | {"ignore_eos": False}
    async with store(kind) as redis, limited(redis, tokens_per_minute=1000, burst_seconds=3600) as found:
        gateway, client, _ = found
        full = await left(client) - 1
        answer = await client.post(CHAT, json=body | {"stream_options": {"include_usage": True}} if stream else body)
        used = int(re.findall(r'"total_tokens": ?(\d+)', answer.text)[-1])
        assert used < 900
        await at_rest(gateway)
        assert 0 <= await left(client) - (full - used) <= 60, "a bucket of 60,000 fills by 17 a second"


async def test_a_stream_that_its_client_left_counts_what_came() -> None:
    slow = FakeSettings(rate=200)
    async with limited(
        None, (), slow, output_tokens_per_minute=100, burst_seconds=3600, concurrent_requests=1
    ) as found:
        gateway, client, _ = found
        async with client.stream("POST", CHAT, json=chat(3000, stream=True)) as stream:
            seen = 0
            async for line in stream.aiter_lines():
                seen += line.startswith("data: ")
                if seen > 50:
                    break
        await at_rest(gateway)
        assert 5_500 < await left(client) < 5_970, "of 6000; some fifty came, and some more were on their way"
        assert (await client.post(CHAT, json=chat(1))).status_code == 200, "its place is free"


async def test_a_node_that_fails_costs_no_tokens() -> None:
    async with limited(None, (Fault("status", status=500),), tokens_per_minute=1000) as (_, client, _):
        assert (await client.post(CHAT, json=chat(900))).status_code >= 500
        assert await left(client) == 1000


async def test_a_request_that_finds_no_node_holds_nothing() -> None:
    async with redis_server() as redis, limited(redis, concurrent_requests=2, tokens_per_minute=1000) as found:
        gateway, client, _ = found
        gateway.app.fleet.update(())  # the model is listed, and all its nodes are gone
        gateway.app.pipeline.settings = replace(gateway.app.pipeline.settings, models=Models([MODEL]))
        for _ in range(5):
            assert (await client.post(CHAT, json=chat(300))).status_code == 503
        await eventually(lambda: redis.do("HVALS", "fg1:{default}:held") == [b"s"] * 5)
        assert redis.do("HGET", "fg1:{default}:t", "live") == b"0"


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_many_at_once_on_few_places(kind: str) -> None:
    async with store(kind) as redis, limited(redis, (), FakeSettings(rate=4), concurrent_requests=7) as found:
        gateway, client, _ = found
        answers = await asyncio.gather(*[client.post(CHAT, json=chat(20)) for _ in range(40)])
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 33
        assert all("concurrent_requests 7" in a.text for a in answers if a.status_code == 429)
        await at_rest(gateway)
        assert (await client.post(CHAT, json=chat(1))).status_code == 200


def test_the_sdks_own_retry_waits_as_long_as_it_should() -> None:
    async def check() -> None:
        async with limited(requests_per_minute=60, burst_seconds=1) as (gateway, _, _):
            openai_client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=2)
            anthropic_client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="any", max_retries=2)
            async with openai_client, anthropic_client:
                for _ in range(2):
                    turns: Any = [{"role": "user", "content": "hello"}]
                    answer = await openai_client.chat.completions.create(model=MODEL, messages=turns, max_tokens=1)
                    assert answer.usage is not None
                    message = await anthropic_client.messages.create(model=MODEL, messages=turns, max_tokens=1)
                    assert message.usage.output_tokens == 1

    asyncio.run(check())


async def test_a_reload_takes_limits_along() -> None:
    async with limited(requests_per_minute=1) as (gateway, client, _):
        assert (await client.post(CHAT, json=chat())).status_code == 200
        assert (await client.post(CHAT, json=chat())).status_code == 429
        config = gateway.app.config
        more = config.limits.model_copy(
            update={"default": config.limits.default.model_copy(update={"requests_per_minute": 1000})}
        )
        gateway.app.apply(config.model_copy(update={"limits": more}))
        answers = [await client.post(CHAT, json=chat()) for _ in range(2)]
        assert [answer.headers.get("x-ratelimit-limit-requests") for answer in answers] == ["1000"] * 2


async def test_a_large_body_is_not_refused_for_requests_that_were_given_back() -> None:
    """What Redis refused is remembered for bodies that cost something to read, until it is known otherwise."""
    large = chat(metadata={"note": "x" * 100_000})
    async with redis_server() as redis, limited(redis, requests_per_minute=2) as (gateway, client, fake):
        fake.set_faults(Fault("hang"))
        waiting = [asyncio.create_task(client.post(CHAT, json=chat())) for _ in range(2)]
        limiter = gateway.app.limiter
        assert limiter is not None
        await eventually(lambda: len(limiter.live) == 2)
        assert (await client.post(CHAT, json=chat())).status_code == 429
        gateway.app.relay.end_on(gateway.app.fleet.nodes[0])
        assert {answer.status_code // 100 for answer in await asyncio.gather(*waiting)} == {5}
        fake.set_faults()
        assert (await client.post(CHAT, json=large)).status_code == 200


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_tokens_that_are_owed_are_no_error_of_a_large_body(kind: str) -> None:
    """Whether they refuse it is found out by what it asks for, which is not known before it is read."""
    large, long = chat(metadata={"note": "x" * 100_000}), FakeSettings(answer_tokens=900)
    limits: dict[str, Any] = {"tokens_per_minute": 100, "requests_per_minute": 100}
    async with store(kind) as redis, limited(redis, node=long, **limits) as (_, client, _):
        assert (await client.post(CHAT, json=chat(None, ignore_eos=False))).status_code == 200
        for body in (chat(), large, large):
            refused = await client.post(CHAT, json=body)
            assert (refused.status_code, "tokens_per_minute 100" in refused.text) == (429, True), refused.text
