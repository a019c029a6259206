"""What a request has used of its limits when nodes or Redis fail under it.

Every token counts once, every place is freed once, and what was made for nobody is charged to nobody.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.app import Gateway
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

CHAT = "/v1/chat/completions"
LIMITS = {"tokens_per_day": 100_000, "concurrent_requests": 5, "requests_per_minute": 1000}


def chat(max_tokens: int, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "hello"}]
    return {"model": MODEL, "messages": turns, "max_tokens": max_tokens, "ignore_eos": True, **more}


@contextlib.asynccontextmanager
async def two_nodes(rate: float = 0, **settings: Any) -> AsyncIterator[tuple[RunningGateway, RedisServer, FakeNode]]:
    """A limited tenant in front of two nodes that take turns, of which the returned one gets the first request."""
    fake = FakeSettings(rate=rate)
    async with redis_server() as redis, serve_fake(fake) as first, serve_fake(fake) as second:
        more: dict[str, Any] = {"redis": redis.settings, "limits": {"default": LIMITS}, **settings}
        async with running_gateway(first.url, second.url, routing={"policy": "round_robin"}, **more) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            yield gateway, redis, first


async def used(gateway: Gateway, redis: RedisServer) -> tuple[int, int]:
    """Tokens of the day and places, as Redis has them once nothing is under way."""
    limiter = gateway.limiter
    assert limiter is not None
    await eventually(lambda: not limiter.live and not limiter.waiting)
    await eventually(lambda: redis.do("HVALS", "fg1:{default}:held") in ([b"s"], [b"s", b"s"]))
    day, live = redis.do("HMGET", "fg1:{default}:t", "tpd", "live")
    return int(day), int(live)


async def recorded(gateway: Gateway, redis: RedisServer) -> dict[str, Any]:
    """The usage record of the only request."""
    assert gateway.ledger is not None
    assert await gateway.ledger.flush()
    [(_, fields)] = _records(redis)
    found: dict[str, Any] = json.loads(fields[b"record"])
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Fault("status", status=500), Fault("reset", after=-1)], ids=lambda fault: fault.kind)
async def test_a_request_that_another_node_answered_counts_once(fault: Fault, stream: bool) -> None:
    async with two_nodes() as (gateway, redis, first), httpx.AsyncClient(timeout=30) as client:
        first.set_faults(fault)
        body = chat(40, stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        answer = await client.post(gateway.url + CHAT, json=body)
        assert answer.status_code == 200
        usage = json.loads(answer.text.split("data: ")[-2])["usage"] if stream else answer.json()["usage"]
        assert usage["completion_tokens"] == 40
        assert await used(gateway.app, redis) == (usage["total_tokens"], 0)
        record = await recorded(gateway.app, redis)
        assert (record["attempts"], record["output"]) == (2, 40)
        assert record["wasted"] == 0 or (fault.kind == "reset" and not stream), "who knows what a node did that died"


async def test_what_a_node_made_that_died_over_it_is_counted_apart() -> None:
    """It says nothing of it, so it is taken to have been as fast as the one that answered."""
    async with two_nodes(rate=100) as (gateway, redis, first), httpx.AsyncClient(timeout=30) as client:
        first.set_faults(Fault("die"))
        answer = await client.post(gateway.url + CHAT, json=chat(40))
        usage = answer.json()["usage"]
        assert await used(gateway.app, redis) == (usage["total_tokens"], 0)
        record = await recorded(gateway.app, redis)
        assert (record["attempts"], record["output"]) == (2, 40) and record["wasted"] > 0
        async with httpx.AsyncClient(base_url=gateway.admin_url) as admin:
            page = (await admin.get("/metrics")).text
        assert f'fleetgate_tokens_total{{kind="wasted",model="{MODEL}",tenant="default"}}' in page
        assert "fleetgate_thinking_cuts_total{{" not in page


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_saw_of_a_node_that_died_is_counted(stream: bool) -> None:
    """Without resume. An answer that the gateway makes out of a stream goes elsewhere, and its events are nobody's. Of
    a stream whose thinking is hidden the client has the beginning: its events are charged."""
    hidden: dict[str, Any] = {"reasoning": {"exclude": True}} if stream else {"thinking_token_budget": 500}
    budgets = {"canary": True, "native": False}  # the gateway holds them, on a stream
    more: dict[str, Any] = {"budgets": budgets, "resume": {"enabled": False}}
    async with two_nodes(**more) as (gateway, redis, first), httpx.AsyncClient(timeout=30) as client:
        await eventually(lambda: all(node.capabilities.native_budget is False for node in gateway.app.fleet.nodes))
        first.set_faults(Fault("die", after=20))
        body = chat(60, stream=stream, **hidden) | {"messages": [{"role": "user", "content": "[[think=40]]"}]}
        assert (await client.post(gateway.url + CHAT, json=body)).status_code == 200
        day, live = await used(gateway.app, redis)
        record = await recorded(gateway.app, redis)
        assert (day, live) == (record["input"] + record["output"], 0)
        assert (record["attempts"], record["estimated"]) == ((1, True) if stream else (2, False))
        assert 15 <= record["output" if stream else "wasted"] <= 25


@pytest.mark.parametrize(
    ("hidden", "stream"),
    [({"reasoning": {"exclude": True}}, True), ({"thinking_token_budget": 500}, False), ({}, True)],
)
async def test_what_goes_on_after_its_node_died_is_charged_as_if_unbroken(hidden: dict[str, Any], stream: bool) -> None:
    budgets = {"canary": True, "native": False}
    async with two_nodes(budgets=budgets) as (gateway, redis, first), httpx.AsyncClient(timeout=30) as client:
        await eventually(lambda: all(node.capabilities.native_budget is False for node in gateway.app.fleet.nodes))
        body = chat(60, stream=stream, **hidden) | {"messages": [{"role": "user", "content": "[[think=40]]"}]}
        first.set_faults(Fault("die", after=20, path=CHAT))
        assert (await client.post(gateway.url + CHAT, json=body)).status_code == 200
        day, live = await used(gateway.app, redis)
        record = await recorded(gateway.app, redis)
        assert (day, live) == (record["input"] + record["output"], 0)
        assert (record["attempts"], record["estimated"], record["output"], record["wasted"]) == (2, False, 60, 0)


@pytest.mark.parametrize("why", ["resume is off", "logprobs"])
async def test_a_stream_that_breaks_off_counts_what_came_of_it(why: str) -> None:
    """Where it is not resumed."""
    settings: dict[str, Any] = {"resume": {"enabled": why == "logprobs"}}
    fields: dict[str, Any] = {"logprobs": True} if why == "logprobs" else {}
    async with two_nodes(**settings) as (gateway, redis, first), httpx.AsyncClient(timeout=30) as client:
        first.set_faults(Fault("die", after=100))
        answer = await client.post(gateway.url + CHAT, json=chat(5000, stream=True, **fields))
        assert '"code":"upstream_cut"' in answer.text
        day, live = await used(gateway.app, redis)
        assert live == 0 and 50 < day < 250, "about a hundred tokens came, and the prompt"


async def test_a_stream_that_its_client_left_gives_its_place_back_once() -> None:
    async with two_nodes(rate=200) as (gateway, redis, _), httpx.AsyncClient(timeout=30) as client:
        async with client.stream("POST", gateway.url + CHAT, json=chat(3000, stream=True)) as stream:
            async for _ in stream.aiter_lines():
                break
        day, live = await used(gateway.app, redis)
        assert live == 0 and 0 < day < 1500


RESPONSES = "/v1/responses"
UNFINISHED = ("queued", "in_progress")


async def test_asking_for_a_stored_response_is_a_request_and_its_tokens_count_once() -> None:
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        limits = {"tokens_per_day": 100_000, "requests_per_minute": 5}
        more: dict[str, Any] = {"redis": redis.settings, "limits": {"default": limits}}
        async with running_gateway(node.url, **more) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
                body = {"model": MODEL, "input": "hello", "max_output_tokens": 40}
                made = (await client.post(RESPONSES, json=body)).json()
                work = (await client.post(RESPONSES, json={**body, "background": True})).json()
                place = f"{RESPONSES}/{made['id']}"
                assert (await client.get(place)).json()["usage"] == made["usage"]
                streamed = await client.get(place, params={"stream": "true"})
                assert streamed.status_code in (200, 400), "a node keeps events of background work only"
                async with asyncio.timeout(10):  # asked of the node itself, since asking here is what is counted
                    while (await client.get(f"{node.url}{RESPONSES}/{work['id']}")).json()["status"] in UNFINISHED:
                        await asyncio.sleep(0.01)
                done = (await client.get(f"{RESPONSES}/{work['id']}")).json()

                refused = await client.get(place)
                assert refused.status_code == 429 and "requests_per_minute 5" in refused.json()["error"]["message"]
                cancelled = await client.post(f"{RESPONSES}/{work['id']}/cancel")
                assert cancelled.status_code != 429, "work can always be ended"

                limiter, ledger = gateway.app.limiter, gateway.app.ledger
                assert limiter is not None and ledger is not None
                await eventually(lambda: not limiter.live and not limiter.waiting)
                planned = int(redis.do("HGET", "fg1:{default}:t", "tpd")) - made["usage"]["total_tokens"]
                assert 40 < planned < 60, "background work is charged as planned, its prompt by an estimate"
                assert await ledger.flush()
                written = [json.loads(fields[b"record"]) for _, fields in _records(redis)]
                taken = int(redis.do("HGET", "fg1:{default}:t", "tpd"))
                assert sum(record["input"] + record["output"] for record in written) == taken
                assert [record["output"] for record in written if record["estimated"]] == [40]
                assert done["usage"]["output_tokens"] <= 40


def _records(redis: RedisServer) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: list[tuple[bytes, dict[bytes, bytes]]] = redis.do("XRANGE", "fg1:{usage}:records", "-", "+")
    return found


async def test_what_waits_at_the_end_without_redis_is_told_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        more: dict[str, Any] = {"redis": redis.settings, "limits": {"default": LIMITS}}
        async with running_gateway(node.url, **more) as gateway, httpx.AsyncClient(timeout=30) as client:
            redis.kill()
            for _ in range(3):
                assert (await client.post(gateway.url + CHAT, json=chat(2))).status_code == 200
            ledger = gateway.app.ledger
            assert ledger is not None
        text = capsys.readouterr().out
    assert ledger.dropped == 3
    lost = [line for line in text.splitlines() if "usage_lost" in line]
    assert len(lost) == 1 and "records=3" in lost[0]
    unsettled = [line for line in text.splitlines() if "settlements_lost" in line]
    assert len(unsettled) == 1 and "count=3" in unsettled[0]
