"""Where resumes end: several breaks, limits, deadlines, clients that leave, and nodes that cannot go on."""

import asyncio
import contextlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.flow.resume_cuts import error_of, failed, unbroken, whole
from tests.flow.test_limits_failures import LIMITS, recorded, used
from tests.flow.test_resume import ASK, MODEL, PATH, Fleet, fleet
from tests.support.faults import nothing_held
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, event, scripted_node
from tests.support.redis import redis_server
from workers.fake import FakeSettings, Fault, serve_fake

LIMITED: dict[str, Any] = {"limits": {"default": {"concurrent_requests": 10_000}}}
LONG: dict[str, Any] = {"thinking_tokens": 40, "answer_tokens": 40}
EVERY = pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])


def body_of(dialect: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "stream": True, **ASK[dialect], **more}


# Several breaks


@EVERY
async def test_an_answer_goes_on_over_several_breaks_on_three_nodes(dialect: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(serve_fake(FakeSettings(**LONG))) for _ in range(3)]
        gateway = await stack.enter_async_context(
            running_gateway(*(node.url for node in nodes), budgets={"canary": True})
        )
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False))
        known = gateway.app.fleet.nodes
        await eventually(lambda: all(node.capabilities.marker_shown is not None for node in known))
        made = Fleet(nodes, gateway, client)
        _, _, expected = await unbroken(made, dialect, body_of(dialect))
        for first, then in ((17, 17), (30, 20), (25, 18)):
            for node in nodes:
                node.set_faults(
                    Fault("die", after=first, next=1, path="/v1/chat"),
                    Fault("die", after=then, next=2, path="/v1/completions"),  # the prober may take one
                )
            got = await client.post(PATH[dialect], json=body_of(dialect))
            assert got.text.count(": resumed on another node") >= 2
            assert whole(got.text) == whole(expected.text), (first, then)


# The pause


@contextlib.asynccontextmanager
async def paused(made: Fleet, **headers: str) -> AsyncIterator[httpx.Response]:
    """A stream whose only node is gone in its middle."""
    [node] = made.nodes
    node.set_faults(Fault("exit", after=5, path="/v1/chat"))
    async with made.client.stream("POST", PATH["chat"], json=body_of("chat"), headers=headers) as answer:
        yield answer


async def test_a_client_that_leaves_in_the_pause_leaves_nothing_behind() -> None:
    async with fleet(1, LIMITED) as made:
        async with paused(made) as stream:
            await anext(stream.aiter_bytes())
            await eventually(lambda: not made.gateway.app.fleet.nodes[0].leases)
        await nothing_held(made.gateway)


async def test_a_deadline_ends_the_pause() -> None:
    async with fleet(1, LIMITED) as made:
        async with paused(made, **{"x-request-timeout": "1"}) as stream:
            told = (await stream.aread()).decode()
        assert '"code":"deadline_exceeded"' in told and "[DONE]" not in told
        await nothing_held(made.gateway)


async def test_the_wait_for_a_node_ends() -> None:
    async with fleet(1, {**LIMITED, "resume": {"wait": 0.3}}) as made:
        async with paused(made) as stream:
            await stream.aread()
        error = error_of(stream)
        assert (error["code"], error["retry_safe"]) == ("stream_not_resumable", True)
        assert error["tokens"] == 4, "the role has none"
        await nothing_held(made.gateway)


@pytest.mark.parametrize("dialect", PATH)
async def test_where_no_node_can_be_reached_the_error_says_so(dialect: str) -> None:
    """In mid-stream, and to what is asked then, streamed and plain."""
    async with fleet(1, {**LIMITED, "resume": {"wait": 0.8}}) as made:
        [node] = made.nodes
        node.set_faults(Fault("exit", after=5))
        got = await made.client.post(PATH[dialect], json=body_of(dialect))
        assert "no node could be reached within 0.8 s. Repeating the request is safe; it is answered" in got.text
        assert "stream_not_resumable" in got.text
        for stream in (True, False):
            later = await made.client.post(PATH[dialect], json=body_of(dialect, stream=stream))
            assert later.status_code == 502 and later.headers["retry-after"] == "2"
            assert later.json()["error"]["message"] == "No node could be reached (1 tried); retry in 2 s."
        await nothing_held(made.gateway)


async def test_a_plain_answer_that_is_streamed_from_its_node_says_the_same() -> None:
    settings = {**LIMITED, "resume": {"wait": 0.8}, "thinking": {"max_budget": 20}}
    async with fleet(1, settings, budget="disobey", **LONG) as made:
        [node] = made.nodes
        node.set_faults(Fault("exit", after=5))
        got = await made.client.post(PATH["chat"], json=body_of("chat", stream=False))
        assert got.status_code == 502 and got.json()["error"]["code"] == "stream_not_resumable"
        assert "no node could be reached within 0.8 s. Repeating the request is safe; it is" in got.text
        await nothing_held(made.gateway)


async def test_a_shutdown_ends_the_pause_with_an_error() -> None:
    reading: asyncio.Task[bytes] | None = None
    async with contextlib.AsyncExitStack() as stack:
        async with fleet(1) as made:
            stream = await stack.enter_async_context(paused(made))
            reading = asyncio.create_task(stream.aread())
            await eventually(lambda: not made.gateway.app.fleet.nodes[0].leases)
            made.gateway.server.should_exit = True
            told = (await reading).decode()
    assert '"code":"shutting_down"' in told and "[DONE]" not in told


# Limits


async def test_an_answer_in_two_parts_is_charged_once() -> None:
    fake = FakeSettings(**LONG)
    async with redis_server() as redis, serve_fake(fake) as one, serve_fake(fake) as other:
        more: dict[str, Any] = {"redis": redis.settings, "limits": {"default": LIMITS}}
        async with (
            running_gateway(one.url, other.url, **more) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
        ):
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for node in (one, other):
                node.set_faults(Fault("die", after=20, next=1, path="/v1/chat"))
            body = body_of("chat", max_tokens=200, stream_options={"include_usage": True})
            got = await client.post(PATH["chat"], json=body)
            assert ": resumed on another node" in got.text
            usage = json.loads(got.text.split("data: ")[-2])["usage"]
            assert await used(gateway.app, redis) == (usage["total_tokens"], 0)
            record = await recorded(gateway.app, redis)
            assert (record["input"], record["output"]) == (usage["prompt_tokens"], usage["completion_tokens"])


# Nodes that cannot go on


async def test_a_node_without_tokenizer_cannot_go_on() -> None:
    async with fleet(config=LIMITED) as made:
        for node in made.nodes:
            node.set_faults(
                Fault("die", after=5, next=1, path="/v1/chat"),
                Fault("status", status=404, path="/tokenize", scope="all"),
            )
        got = await made.client.post(PATH["chat"], json=body_of("chat"))
        assert failed(got), got.text
        assert "[DONE]" not in got.text
        made.heal()
        await nothing_held(made.gateway, *made.nodes)


async def test_a_node_with_another_template_cannot_go_on() -> None:
    async def other_template(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if asked.path == "/tokenize":
            writer.write(answer(b'{"count":2,"max_model_len":4096,"tokens":[1,2]}'))
        else:
            writer.write(answer(b'{"error":{"message":"busy","code":503}}', "503 Service Unavailable"))

    async with (
        serve_fake(FakeSettings(**LONG)) as node,
        scripted_node(other_template) as scripted,
        running_gateway(node.url, scripted.url, **LIMITED, resume={"wait": 1.0}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        await eventually(lambda: all(each.ready for each in gateway.app.fleet.nodes))
        node.set_faults(Fault("exit", after=5, path="/v1/chat"))
        got = await client.post(PATH["chat"], json=body_of("chat"))
        error = error_of(got)
        assert (error["code"], error["tokens"], error["retry_safe"]) == ("stream_not_resumable", 4, True)
        await nothing_held(gateway, node)


async def test_a_node_that_sends_no_ids_is_passed_on_as_it_is() -> None:
    sent = [event("a"), event("b"), b": comment\n\n", event("c")]
    breaks = True

    async def old(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        pieces = sent if breaks else [*sent, DONE]
        writer.write(STREAM_HEAD + b"".join(map(chunk, pieces)) + (b"" if breaks else LAST_CHUNK))
        await writer.drain()
        if breaks:
            writer.close()

    async with (
        scripted_node(old) as node,
        running_gateway(node.url, **LIMITED) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        got = await client.post(PATH["chat"], json=body_of("chat"))
        assert got.content.startswith(b"".join(sent))
        assert error_of(got)["code"] == "upstream_cut"
        breaks = False
        got = await client.post(PATH["chat"], json=body_of("chat"))
        assert got.content == b"".join([*sent, DONE])
        await nothing_held(gateway)


# Requests that are never resumed

PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, {"type": "text", "text": "Hi"}]
NEVER: dict[str, tuple[str, dict[str, Any]]] = {
    "several": ("chat", {"n": 2}),
    "several completions": ("completions", {"n": 2}),
    "logprobs": ("chat", {"logprobs": True, "top_logprobs": 1}),
    "completions' logprobs": ("completions", {"logprobs": 1}),
    "echo": ("completions", {"echo": True}),
    "a picture": ("chat", {"messages": [{"role": "user", "content": PICTURE}]}),
}


@pytest.mark.parametrize(("dialect", "more"), NEVER.values(), ids=NEVER.keys())
async def test_what_is_never_resumed_says_so_and_ends_clearly(dialect: str, more: dict[str, Any]) -> None:
    async with fleet(config=LIMITED) as made:
        before = sum(node.stats.requests.get("/tokenize", 0) for node in made.nodes)
        made.break_off(Fault("die", after=5, next=1, path=PATH[dialect]))
        got = await made.client.post(PATH[dialect], json=body_of(dialect, **more))
        assert got.headers["x-fleetgate-resumable"] == "no"
        assert error_of(got)["code"] == "upstream_cut" and "[DONE]" not in got.text
        assert sum(node.stats.requests.get("/tokenize", 0) for node in made.nodes) == before
        made.heal()
        await nothing_held(made.gateway, *made.nodes)


# Behind the cut of a budget that the gateway holds

HELD: dict[str, Any] = {"thinking_tokens": 60, "answer_tokens": 30, "budget": "disobey"}


async def test_what_was_thought_before_the_cut_counts_in_the_error() -> None:
    async with fleet(1, **HELD) as made:
        made.nodes[0].set_faults(Fault("die", after=4, path="/v1/completions"))
        answer = await made.client.post(PATH["chat"], json=body_of("chat", thinking_token_budget=40))
        error = error_of(answer)
        assert (error["code"], error["tokens"] > 40) == ("stream_not_resumable", True)


async def test_an_answer_that_broke_off_in_its_thinking_gets_on_behind_the_cut() -> None:
    """Its tokens are counted over all requests that made it: the last one may have made fewer than those before."""
    async with fleet(config={"resume": {"max_resumes": 1}}, **HELD) as made:
        body = body_of("chat", thinking_token_budget=40)
        expected = whole((await made.client.post(PATH["chat"], json=body)).text)
        for node in made.nodes:
            node.set_faults(
                Fault("die", after=32, next=1, path="/v1/chat"), Fault("die", after=21, next=2, path="/v1/completions")
            )
        before = sum(node.stats.requests["/v1/completions"] for node in made.nodes)
        assert whole((await made.client.post(PATH["chat"], json=body)).text) == expected
        assert sum(node.stats.requests["/v1/completions"] for node in made.nodes) >= before + 3, "not cut twice"
