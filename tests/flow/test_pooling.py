"""Models that pool: embeddings, reranking, scoring and the pooler, limited and counted as all else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from gateway.core.access.api_keys import key_digest
from gateway.core.routing.conversations import ConversationNaming, conversation_of
from gateway.core.thinking.sizes import BYTES_PER_TOKEN, estimate_input
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import FakeSettings, Fault, serve_fake
from workers.fake.server import FakeNode

MODEL = "ranker"
SETTINGS = FakeSettings(models=(MODEL,), pooling=True)
RERANK: dict[str, Any] = {"model": MODEL, "query": "What is a cat?", "documents": ["An animal.", "A tool.", "A town."]}
SCORE: dict[str, Any] = {"model": MODEL, "text_1": "What is a cat?", "text_2": ["An animal.", "A tool."]}
POOL: dict[str, Any] = {"model": MODEL, "input": ["An animal.", "A tool."]}
REQUESTS = [
    ("/v1/rerank", RERANK),
    ("/rerank", RERANK),
    ("/v2/rerank", {**RERANK, "top_n": 1}),
    ("/v1/score", SCORE),
    ("/score", {"model": MODEL, "queries": ["a", "b"], "documents": ["c", "d"]}),
    ("/pooling", POOL),
    ("/v1/embeddings", POOL),
]
EVERY = pytest.mark.parametrize(("path", "body"), REQUESTS)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def node() -> AsyncIterator[FakeNode]:
    async with serve_fake(SETTINGS) as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(node: FakeNode) -> AsyncIterator[RunningGateway]:
    async with running_gateway(node.url) as running:
        yield running


async def post(url: str, path: str, body: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        return await client.post(path, json=body, headers=headers)


def without_volatile(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


@EVERY
async def test_the_nodes_answer(gateway: RunningGateway, node: FakeNode, path: str, body: dict[str, Any]) -> None:
    direct, through = await post(node.url, path, body), await post(gateway.url, path, body)
    assert (direct.status_code, through.status_code) == (200, 200), through.text
    assert without_volatile(through.json()) == without_volatile(direct.json())
    assert through.json()["usage"]["prompt_tokens"] > 0


@EVERY
async def test_a_bad_request_is_the_nodes_to_refuse(gateway: RunningGateway, path: str, body: dict[str, Any]) -> None:
    missing = await post(gateway.url, path, {"model": body["model"]})
    assert missing.status_code == 400 and missing.json()["error"]["message"]
    unknown = await post(gateway.url, path, {**body, "model": "unknown"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (await post(gateway.url, path, [])).status_code == 400


@EVERY
@pytest.mark.parametrize("redis", [False, True], ids=["memory", "redis"])
async def test_it_is_limited_and_charged(path: str, body: dict[str, Any], redis: bool) -> None:
    limits = {"requests_per_minute": 3, "input_tokens_per_minute": 600}
    tenant = {"name": "a", "keys": [{"sha256": key_digest("fg-a").hex()}], "limits": limits}
    async with contextlib.AsyncExitStack() as stack:
        settings: dict[str, Any] = {"tenants": [tenant]}
        if redis:
            settings["redis"] = (await stack.enter_async_context(redis_server())).settings
        fake = await stack.enter_async_context(serve_fake(SETTINGS))
        running = await stack.enter_async_context(running_gateway(fake.url, **settings))
        assert (await post(running.url, path, body)).status_code == 401
        first = await post(running.url, path, body, authorization="Bearer fg-a")
        used = first.json()["usage"]["prompt_tokens"]
        await asyncio.sleep(0.2)  # settled by now
        second = await post(running.url, path, body, authorization="Bearer fg-a")
        left = int(second.headers["x-ratelimit-remaining-tokens"])
        assert left == pytest.approx(600 - used - planned(body), abs=20), "10 come back in a second"
        await post(running.url, path, body, authorization="Bearer fg-a")
        refused = await post(running.url, path, body, authorization="Bearer fg-a")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def planned(body: dict[str, Any]) -> int:
    return estimate_input(body, BYTES_PER_TOKEN)


async def test_a_query_is_read_with_each_document() -> None:
    long = "x" * 400
    lone = estimate_input({"query": long, "documents": ["a"]}, 4.0)
    assert estimate_input({"query": long, "documents": ["a"] * 50}, 4.0) == pytest.approx(50 * lone, rel=0.02)
    assert estimate_input({"text_1": [long], "text_2": ["a"] * 50}, 4.0) == pytest.approx(50 * lone, rel=0.02)
    for one in (long, {"content": [{"text": long}]}):
        many = {"content": [{"text": "a"}] * 50}
        assert estimate_input({"query": one, "documents": many}, 4.0) == pytest.approx(50 * lone, rel=0.02)
    pairs = {"queries": [long] * 50, "documents": ["a"] * 50}
    assert estimate_input(pairs, 4.0) == pytest.approx(50 * lone, rel=0.02), "each with its own"
    for odd in ({"query": long}, {"query": long, "documents": []}, {"query": long, "documents": "a"}, {"query": 3}):
        assert estimate_input(odd, 4.0) <= lone


async def test_openais_sdk(gateway: RunningGateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
        made = await client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
        assert [len(each.embedding) for each in made.data] == [8, 8]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])


async def test_another_node_answers_for_one_that_failed() -> None:
    async with (
        serve_fake(SETTINGS) as first,
        serve_fake(SETTINGS) as second,
        running_gateway(first.url, nodes=[{"url": first.url}, {"url": second.url}]) as gateway,
    ):
        await eventually(lambda: len([node for node in gateway.app.fleet.nodes if node.ready]) == 2)
        for path, body in REQUESTS:
            for node in (first, second):
                node.set_faults(Fault("status", status=500, next=1))
                assert (await post(gateway.url, path, body)).status_code == 200
                node.set_faults()


async def test_queries_are_conversations_of_their_own() -> None:
    """Else all that a tenant ranks would go to one node."""
    naming = ConversationNaming()
    inputs = ["d", ["e"], [1, 2], [[1, 3]], [{"role": "user", "content": "f"}]]
    bodies = [RERANK, {**RERANK, "query": "b"}, {**SCORE, "text_1": ["c"]}, POOL, *({"input": each} for each in inputs)]
    assert len({conversation_of(body, {}, "a", naming) for body in bodies}) == len(bodies)


async def test_a_node_that_generates_has_none_of_it() -> None:
    async with serve_fake(FakeSettings(models=(MODEL,))) as node, running_gateway(node.url) as gateway:
        for path, body in REQUESTS:
            assert (await post(gateway.url, path, body)).status_code == 404
