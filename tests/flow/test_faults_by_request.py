"""A client is no witness against a node: what requests break, and what breaks requests, told apart.

Each test puts one question: could the client have caused this? Where it could, no healthy node goes out; where it could
not, the ill one does.
"""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.flow.test_resume import UNPACED
from tests.support.crowd import CHAT, ask, crowd, lost, send, send_by
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from tests.support.nodes import MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, event, scripted_node
from workers.fake import FakeSettings, Fault, serve_fake

FAST = FakeSettings(thinking_tokens=2, answer_tokens=3)
OUCH = answer(b'{"error":{"message":"ouch","code":500}}', "500 Internal Server Error")
IN_TURN = {"policy": "round_robin"}
RARELY = {"interval": 60.0}
"""Probes that find out nothing by themselves while a test runs."""


def taken_out(gateway: RunningGateway) -> int:
    """How often any node was taken out so far."""
    return sum(sum(node.breaker.opened.values()) for node in gateway.app.fleet.nodes)


async def by_words(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """A healthy node: what it does depends on the body alone."""
    if b"poison" in asked.body:
        await asyncio.sleep(0.005)
        writer.write(OUCH)
    elif b"break" in asked.body:
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(event("b")))
        await writer.drain()
        writer.close()
    else:
        writer.write(answer(b"{}"))


@asynccontextmanager
async def three_nodes(reply: object = by_words, **settings: object) -> AsyncIterator[RunningGateway]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(scripted_node(reply)) for _ in range(3)]  # type: ignore[arg-type]
        gateway = await stack.enter_async_context(limited_gateway(*(node.url for node in nodes), **settings))
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        yield gateway


@pytest.mark.parametrize("at_once", [5, 20])
async def test_poison_takes_no_node_out_however_much_of_it_comes_at_once(at_once: int) -> None:
    retries = {"share": 0.2, "minimum": 2}  # soon spent, so that many fail on one node only
    async with three_nodes(retries=retries) as gateway:
        poison = asyncio.create_task(crowd(gateway.url, 60, text="poison", at_once=at_once))
        good = await crowd(gateway.url, 20, at_once=2)
        assert {one.status for one in await poison} == {500}
        assert lost(good) == []
        assert taken_out(gateway) == 0
        await nothing_held(gateway)


async def test_poison_that_breaks_streams_in_mid_answer_takes_no_node_out() -> None:
    async with three_nodes() as gateway:
        seen = await crowd(gateway.url, 60, stream=True, text="break", at_once=10)
        assert {one.code for one in seen} == {"upstream_cut"}, "there are no token ids to go on from"
        assert taken_out(gateway) == 0
        await nothing_held(gateway)


def with_ids(text: str, chat: bool, **more: object) -> bytes:
    """A stream's event with one token."""
    said: dict[str, object] = {"delta": {"content": text}} if chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": None, "token_ids": [7]}
    return chunk(
        b"data: " + json.dumps({"id": "c", "choices": [choice], **more}, separators=(",", ":")).encode() + b"\n\n"
    )


async def breaks_resumes(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """A healthy node that poison breaks after two tokens, each time that it goes on there, too."""
    chat = asked.path == CHAT
    if asked.path == "/tokenize":
        writer.write(answer(b'{"tokens":[1,2,3],"count":3,"max_model_len":4096}'))
    elif asked.path == "/detokenize":
        writer.write(answer(b'{"prompt":"ab"}'))
    elif b'"stream":true' not in asked.body:
        writer.write(answer(b"{}"))
    else:
        writer.write(STREAM_HEAD + with_ids("a", chat, prompt_token_ids=[1, 2, 3]) + with_ids("b", chat))
        await writer.drain()
        writer.close()


async def test_poison_that_breaks_resumed_streams_too_ends_on_two_nodes_and_takes_none_out() -> None:
    async with three_nodes(breaks_resumes, resume=UNPACED) as gateway:
        seen = await crowd(gateway.url, 60, stream=True, text="break", at_once=10)
        assert {one.code for one in seen} == {"stream_not_resumable"}
        assert {b'"retry_safe":false' in one.body for one in seen} == {True}
        assert {(one.body.count(b": resumed on"), one.body.count(b'"content":"a"')) for one in seen} == {(1, 2)}
        assert taken_out(gateway) == 0
        await nothing_held(gateway)


async def test_a_request_that_kills_nodes_kills_two() -> None:
    """Each dies of it: the connection breaks, and nobody listens any more."""
    dead: list[ScriptedNode] = []

    async def mortal(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if b"killer" in asked.body:
            dead.append(node)
            writer.close()
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(node.stop()))
        else:
            writer.write(answer(b"{}"))

    async with three_nodes(mortal, requests={"max_attempts": 3}) as gateway:
        got = await send(gateway.url, ask("killer"))
        assert (got.status, got.code, got.headers["x-should-retry"]) == (502, "upstream_cut", "false")
        assert len(dead) == 2
        await eventually(lambda: sum(node.ready for node in gateway.app.fleet.nodes) == 1)
        assert lost(await crowd(gateway.url, 10)) == []
        await nothing_held(gateway)


async def test_a_request_that_kills_engines_kills_two() -> None:
    """Their servers live on: they answer it, and all that follows, with 500."""
    dead: set[str] = set()

    async def mortal(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if b"killer" in asked.body:
            dead.add(node.url)
        writer.write(OUCH if node.url in dead else answer(b"{}"))

    async with three_nodes(mortal, requests={"max_attempts": 3}, health=RARELY) as gateway:
        assert (await send(gateway.url, ask("killer"))).status == 500
        assert len(dead) == 2
        await eventually(lambda: sum(node.ready for node in gateway.app.fleet.nodes) == 1)
        assert lost(await crowd(gateway.url, 10)) == []
        await nothing_held(gateway)


async def test_an_error_in_mid_stream_has_the_node_asked() -> None:
    """It may be the node's or the request's: one whose engine is dead goes out, one that is well stays. Without resume,
    whose own requests would tell as much."""
    settings: dict[str, Any] = {"routing": IN_TURN, "health": RARELY, "resume": {"enabled": False}}
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, **settings) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for node in (bad, good):
                node.set_faults(Fault("error_event", after=2, path="/v1/chat"))
            assert not any(one.whole for one in await crowd(gateway.url, 6, stream=True))
            await eventually(lambda: all(node.stats.requests["/v1/completions"] for node in (bad, good)))
            assert taken_out(gateway) == 0
            bad.set_faults(Fault("error_event", after=2, path="/v1/chat"), Fault("status", path="/v1/completions"))
            good.set_faults()

            async def is_out() -> bool:
                await crowd(gateway.url, 2, stream=True)
                return not gateway.app.fleet.nodes[0].ready

            while not await is_out():
                await asyncio.sleep(0.05)
            assert gateway.app.fleet.nodes[1].ready
            assert lost(await crowd(gateway.url, 10, stream=True)) == []
            await nothing_held(gateway, bad, good)


async def test_an_error_in_mid_stream_costs_no_answer_and_takes_a_dead_engine_out() -> None:
    """With resume. Where all streams break off once, each node is well, and stays."""
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, routing=IN_TURN, health=RARELY) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for node in (bad, good):
                node.set_faults(Fault("error_event", after=2, path="/v1/chat"))
            assert lost(await crowd(gateway.url, 6, stream=True)) == []
            assert taken_out(gateway) == 0
            bad.set_faults(Fault("error_event", after=2, path="/v1/chat"), Fault("status", path="/v1/completions"))
            good.set_faults()
            while gateway.app.fleet.nodes[0].ready:
                assert lost(await crowd(gateway.url, 2, stream=True)) == []
            assert gateway.app.fleet.nodes[1].ready
            assert lost(await crowd(gateway.url, 10, stream=True)) == []
            await nothing_held(gateway, bad, good)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_zombie_goes_out_also_when_all_send_the_same_body(stream: bool) -> None:
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, routing=IN_TURN, health=RARELY) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            node = gateway.app.fleet.nodes[0]
            bad.set_faults(Fault("zombie"))
            before = bad.stats.requests["/v1/chat/completions"]
            async with httpx.AsyncClient(timeout=30) as client:
                for _ in range(12):
                    assert (await send_by(client, gateway.url, ask(stream=stream))).whole
                assert not node.ready
                assert bad.stats.requests["/v1/chat/completions"] - before <= 5
                later = await asyncio.gather(*(send_by(client, gateway.url, ask()) for _ in range(30)))
            assert lost(later) == []
            await nothing_held(gateway, bad, good)


async def test_a_node_that_fails_what_others_answer_goes_out() -> None:
    """Also where it answers the gateway's own question: the same body counts each time."""

    async def ill(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(OUCH if asked.path == "/v1/chat/completions" else answer(b"{}"))

    async with scripted_node(ill) as bad, scripted_node(by_words) as good:
        async with limited_gateway(bad.url, good.url, routing=IN_TURN, health=RARELY) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for _ in range(12):
                assert (await send(gateway.url, ask())).status == 200
                if taken_out(gateway):
                    break
            assert not gateway.app.fleet.nodes[0].ready
            assert sum(asked.path == "/v1/chat/completions" for asked in bad.asked) == 3
            await nothing_held(gateway)


async def test_where_no_other_node_was_asked_the_gateways_own_request_decides() -> None:
    """No retries at all: every failure stands alone. A poisoned body changes nothing, a dead engine is found."""
    no_retries = {"share": 0, "minimum": 0}
    async with serve_fake(FAST) as bad, scripted_node(by_words) as good:
        async with limited_gateway(bad.url, good.url, retries=no_retries, routing=IN_TURN, health=RARELY) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            statuses = {(await send(gateway.url, ask("poison"))).status for _ in range(8)}
            assert statuses == {200, 500}, "one node serves that body, the other one cannot"
            assert taken_out(gateway) == 0
            bad.set_faults(Fault("zombie"))
            await crowd(gateway.url, 2, at_once=1)
            await eventually(lambda: not gateway.app.fleet.nodes[0].ready)
            assert gateway.app.fleet.nodes[1].ready
            assert lost(await crowd(gateway.url, 10)) == []
            await nothing_held(gateway, bad)


async def test_a_client_that_leaves_at_its_failure_neither_takes_a_node_out_nor_keeps_it_in() -> None:
    """It is gone before a second node could say otherwise."""
    async with serve_fake(FAST) as bad, serve_fake(FAST) as other:
        async with limited_gateway(bad.url, other.url, routing=IN_TURN, health=RARELY) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            other.set_faults(Fault("hang"))
            bad.set_faults(Fault("zombie"))
            leaving = [asyncio.create_task(send(gateway.url, ask())) for _ in range(2)]
            await eventually(lambda: gateway.app.fleet.nodes[1].in_flight == 2)
            for task in leaving:
                task.cancel()
            await eventually(lambda: not gateway.app.fleet.nodes[0].ready)
            assert gateway.app.fleet.nodes[1].ready
            other.set_faults()
            await nothing_held(gateway, bad, other)


async def test_a_request_that_a_second_node_refuses_is_no_evidence_against_the_first() -> None:
    """What is wrong with it is told by one and breaks the other."""

    async def breaks(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(OUCH if b"odd" in asked.body else answer(b"{}"))

    async def refuses(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        refusal = answer(json.dumps({"error": {"message": "no", "code": 400}}).encode(), "400 Bad Request")
        writer.write(refusal if b"odd" in asked.body else answer(b"{}"))

    async with scripted_node(breaks) as a, scripted_node(refuses) as b:
        async with limited_gateway(a.url, b.url, routing=IN_TURN, health=RARELY) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            assert {one.status for one in await crowd(gateway.url, 20, text="odd", at_once=4)} == {400}
            assert taken_out(gateway) == 0
            await nothing_held(gateway)


async def without_a_model(gateway: RunningGateway, response_id: str) -> list[int]:
    """What a node's server answers by itself: the statuses of a stored response, and of a count of tokens."""
    async with httpx.AsyncClient(timeout=10) as client:
        stored = await client.get(f"{gateway.url}/v1/responses/{response_id}")
        later = {"model": MODEL, "input": "hi", "background": True, "previous_response_id": response_id}
        queued = await client.post(f"{gateway.url}/v1/responses", json=later)
        counted = await client.post(f"{gateway.url}/v1/messages/count_tokens", json=ask())
        return [stored.status_code, queued.status_code, counted.status_code]


async def test_answers_without_a_model_speak_for_no_node() -> None:
    """The engine of one is dead, and a client goes on asking for what its server still has."""
    dead: set[str] = set()
    ids: dict[str, str] = {}

    async def mortal(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        made = b'"request_id"' in asked.body
        if made and b"background" not in asked.body:
            ids[node.url] = json.loads(asked.body)["request_id"]
        alive = asked.method == "GET" or "count_tokens" in asked.path or b"background" in asked.body
        writer.write(OUCH if node.url in dead and not alive else answer(b"{}"))

    async with scripted_node(mortal) as bad, scripted_node(mortal) as good:
        async with limited_gateway(bad.url, good.url, routing=IN_TURN, health={"slow_start": 60}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            async with httpx.AsyncClient() as client:
                while bad.url not in ids:
                    await client.post(f"{gateway.url}/v1/responses", json={"model": MODEL, "input": "hi"})
            dead.add(bad.url)
            assert lost(await crowd(gateway.url, 20)) == []
            node = gateway.app.fleet.nodes[0]
            await eventually(lambda: not node.ready)
            for _ in range(5):
                assert await without_a_model(gateway, ids[bad.url]) == [200, 200, 200]
                assert not node.ready
            dead.clear()
            await eventually(lambda: node.ready)
            await nothing_held(gateway)


async def test_counted_tokens_are_no_sign_of_life() -> None:
    """The engine of one hangs. Its server goes on counting tokens, and what waits there moves on all the same."""

    async def wedged(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if asked.path == CHAT:
            await reader.read()
        else:
            writer.write(answer(b"{}"))

    async def well(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def count(gateway: RunningGateway) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                await client.post(f"{gateway.url}/v1/messages/count_tokens", json=ask())

    async with scripted_node(wedged) as bad, scripted_node(well) as good:
        async with limited_gateway(bad.url, good.url, routing=IN_TURN, timeouts={"node_hang": 1.0}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            counting = asyncio.create_task(count(gateway))
            async with asyncio.timeout(20):
                assert lost(await crowd(gateway.url, 4, stream=True)) == []
            counting.cancel()
            assert gateway.app.fleet.nodes[0].breaker.opened == {"silent": 1}
            await nothing_held(gateway)
