"""Reports from the trackers of other gateways, replayed here: docs/replays.md lists them, each with its test.

What was reported is told in each docstring; the names are those of the projects, and the numbers theirs.
"""

import asyncio
import contextlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import yaml

from gateway.config.watch import ConfigWatch
from gateway.core.access.api_keys import key_digest
from tests.support.faults import held, limited_gateway, nothing_held
from tests.support.gateway_process import gateway_process
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.meaning import events_of
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    Reply,
    ScriptedNode,
    answer,
    chunk,
    scripted_node,
)
from tests.support.redis import redis_server
from workers.fake import FakeSettings, Fault, serve_fake

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
STREAMED = {**ASK, "stream": True}
STREAMED_RESPONSE = {"model": MODEL, "input": "hi", "stream": True}
USED = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
OVER_CHAT: dict[str, Any] = {"models": [{"name": MODEL, "over_chat": True}]}
UNICODE = "Grüße 北京今天多云 👩🏽‍🚀"


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def delta(fields: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One chat chunk as vLLM writes it."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return event({"id": "c", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice], **more})


USAGE = event({"id": "c", "object": "chat.completion.chunk", "model": MODEL, "choices": [], "usage": USED})
ROLE = delta({"role": "assistant", "content": ""})


def streams(*events: bytes) -> Reply:
    """A node that answers everything with `events`, each in a chunk of its own."""

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + b"".join([chunk(each) for each in events]) + LAST_CHUNK)

    return reply


def says(raw: bytes) -> Reply:
    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(raw)

    return reply


async def silent(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    await node.until_hung_up(reader)


async def post(gateway: RunningGateway, path: str, body: object, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        return await client.post(path, json=body, headers=headers)


async def leave(gateway: RunningGateway, path: str, body: object) -> None:
    """Ask, take a piece of the stream, and hang up."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        async with client.stream("POST", path, json=body) as got:
            assert got.status_code == 200
            async for _ in got.aiter_raw():
                return


async def metrics(gateway: RunningGateway, name: str) -> list[str]:
    async with httpx.AsyncClient(timeout=60) as client:
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
    return [line for line in page.splitlines() if line.startswith(name)]


async def tokens(gateway: RunningGateway, kind: str) -> int:
    lines = await metrics(gateway, f'fleetgate_tokens_total{{kind="{kind}"')
    return round(sum(float(line.rpartition(" ")[2]) for line in lines))


# What is counted


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_written_to_the_cache_are_charged(stream: bool) -> None:
    """genkit#5412, future-agi#1122: Anthropic's `input_tokens` leave out what was written to the cache as well as what
    was read from it, and only the rest was counted. CLIProxyAPI#679: tokens were counted without system text and tools.
    litellm#13252, envoy ai-gateway#1360: the path with `?beta=true`, as Claude Code asks, was not there.
    """
    tool = {"name": "f", "description": "a tool " * 20, "input_schema": {"type": "object"}}
    cold = {"messages": [{"role": "user", "content": "a cold prompt " * 200}], "system": "be brief " * 20}
    ask = {**ASK, **cold, "tools": [tool], "stream": stream}
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        got = (await post(gateway, MESSAGES, ask)).content
        usage = (events_of(got)[-2] if stream else json.loads(got))["usage"]
        assert usage["cache_creation_input_tokens"] > 400 > usage["input_tokens"]
        charged = await tokens(gateway, "input")
        assert charged == usage["input_tokens"] + usage["cache_creation_input_tokens"]
        count = (await post(gateway, f"{MESSAGES}/count_tokens?beta=true", ask)).json()["input_tokens"]
        assert charged == count


@pytest.mark.parametrize("last", [{"content": "b"}, {}])
async def test_usage_beside_the_finish_reason_is_charged(last: dict[str, Any]) -> None:
    """litellm#17136: the usage came in the chunk with the finish reason, and was looked for behind it."""
    node_sends = (ROLE, delta({"content": "a"}), delta(last, "stop", usage=USED), DONE)
    async with scripted_node(streams(*node_sends)) as node, running_gateway(node.url) as gateway:
        assert (await post(gateway, CHAT, STREAMED)).content == b"".join(node_sends)
        assert (await tokens(gateway, "input"), await tokens(gateway, "output")) == (3, 4)


async def test_usage_at_the_end_of_a_large_answer_is_found() -> None:
    """higress#2918: the usage of a plain answer was looked for in each piece of it, and large ones came in many."""
    vector = {"index": 0, "object": "embedding", "embedding": [0.25] * 60_000}
    body = json.dumps({"object": "list", "data": [vector], "model": MODEL, "usage": {"prompt_tokens": 777}}).encode()

    async def in_pieces(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        whole = answer(body)
        for at in range(0, len(whole), 9973):
            writer.write(whole[at : at + 9973])
            await writer.drain()
            await asyncio.sleep(0)

    async with scripted_node(in_pieces) as node, running_gateway(node.url) as gateway:
        assert (await post(gateway, "/v1/embeddings", {"model": MODEL, "input": "hi"})).content == body
        assert await tokens(gateway, "input") == 777


async def test_a_client_that_leaves_before_the_first_token_pays_its_prompt() -> None:
    """sub2api#4408: whoever hung up before the first token was charged a whole answer, which was made for nobody."""
    async with scripted_node(silent) as node, limited_gateway(node.url) as gateway:
        asking = asyncio.create_task(post(gateway, CHAT, {**STREAMED, "max_tokens": 4000}))
        await eventually(lambda: node.asked)
        asking.cancel()
        await eventually(lambda: node.hung_up == 1)
        await nothing_held(gateway)
        assert 0 < await tokens(gateway, "input") < 20
        assert await tokens(gateway, "output") == 0


async def test_requests_with_one_id_are_each_charged() -> None:
    """bifrost#7303: a client that repeated its `x-request-id` was charged once for all of its requests."""
    limits = {"default": {"requests_per_minute": 3}}
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        async with running_gateway(node.url, redis=redis.settings, limits=limits) as gateway:
            got = [await post(gateway, CHAT, ASK, **{"x-request-id": "mine"}) for _ in range(4)]
            assert [each.status_code for each in got] == [200, 200, 200, 429]
            assert gateway.app.ledger is not None and await gateway.app.ledger.flush()
            assert len(redis.do("XRANGE", "fg1:{usage}:records", "-", "+")) == 4


async def test_names_that_clients_make_up_are_no_labels() -> None:
    """litellm#39136: every model name that a client made up, or mistyped, became a metric for ever."""
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        await post(gateway, CHAT, {**ASK, "model": "no-such-model"})
        before = len(await metrics(gateway, "fleetgate"))
        for number in range(20):
            assert (await post(gateway, CHAT, {**ASK, "model": f"no-such-model-{number}"})).status_code == 404
            assert (await post(gateway, f"/v1/{number}", ASK)).status_code == 404
        assert len(await metrics(gateway, "fleetgate")) == before
        assert not [line for line in await metrics(gateway, "fleetgate") if "no-such-model" in line]


# What is limited


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
async def test_exactly_as_many_requests_pass_as_the_limit_says(shared: bool) -> None:
    """litellm#13176: of five requests a minute four passed. agentgateway#3329: a refusal without `Retry-After` and
    without a body, so that SDKs could not heed it.
    """
    async with contextlib.AsyncExitStack() as stack:
        more: dict[str, Any] = {"limits": {"default": {"requests_per_minute": 5}}}
        if shared:
            more["redis"] = (await stack.enter_async_context(redis_server())).settings
        node = await stack.enter_async_context(serve_fake(FakeSettings()))
        gateway = await stack.enter_async_context(running_gateway(node.url, **more))
        got = await asyncio.gather(*[post(gateway, MESSAGES, {**ASK, "max_tokens": 2}) for _ in range(12)])
        assert sorted(each.status_code for each in got) == [200] * 5 + [429] * 7
        for refused in (each for each in got if each.status_code == 429):
            assert 1 <= int(refused.headers["retry-after"]) <= 12
            assert refused.json()["error"]["type"] == "rate_limit_error"


async def test_requests_at_once_do_not_pass_a_budget_together() -> None:
    """litellm#34732, envoy ai-gateway#680: a budget was checked before and taken after the answer, so that requests at
    once all passed it.
    """
    limits = {"default": {"output_tokens_per_minute": 300}}
    async with redis_server() as redis, serve_fake(FakeSettings(rate=200)) as node:
        async with running_gateway(node.url, redis=redis.settings, limits=limits) as gateway:
            body = {**ASK, "max_tokens": 100, "ignore_eos": True}
            got = await asyncio.gather(*[post(gateway, CHAT, body) for _ in range(10)])
            assert sorted(each.status_code for each in got) == [200] * 3 + [429] * 7


async def test_places_come_back_however_requests_end() -> None:
    """litellm#20256, #27955, #17323, #1477: places among `max_parallel_requests` were lost when a node failed or was
    late, when a client left its stream, and when a request was refused, until somebody restarted Redis.
    """
    limits = {"default": {"concurrent_requests": 1}}
    async with redis_server() as redis, serve_fake(FakeSettings(rate=50)) as node:
        async with running_gateway(node.url, redis=redis.settings, limits=limits) as gateway:
            limiter = gateway.app.limiter
            assert limiter is not None
            for _ in range(3):
                await leave(gateway, MESSAGES, {**STREAMED, "max_tokens": 500})
                await eventually(lambda: not limiter.live)
            node.set_faults(Fault("status", status=502, next=1))
            assert (await post(gateway, MESSAGES, ASK)).status_code == 502
            node.set_faults()
            late = await post(gateway, CHAT, {**ASK, "max_tokens": 500}, **{"x-request-timeout": "0.1"})
            assert late.status_code == 504
            assert (await post(gateway, CHAT, {**ASK, "max_tokens": "many"})).status_code == 400
            assert (await post(gateway, CHAT, {**ASK, "model": "nobodys"})).status_code == 404
            await eventually(lambda: not limiter.live)
            assert (await post(gateway, MESSAGES, {**ASK, "max_tokens": 2})).status_code == 200


async def test_a_reload_keeps_what_was_taken(tmp_path: Path) -> None:
    """3scale/APIcast#667, supabase/auth#2358: a reload's new limits were not heeded; making everything anew would have
    given everybody a full bucket instead. Without Redis, where the process alone knows.
    """
    file = tmp_path / "fleetgate.yaml"
    async with serve_fake(FakeSettings()) as node:
        config: dict[str, Any] = {"nodes": [{"url": node.url}], "limits": {"default": {"requests_per_minute": 3}}}
        file.write_text(yaml.safe_dump(config))
        limits = config["limits"]
        async with running_gateway(node.url, watch=ConfigWatch(file, {}), limits=limits) as gateway:

            async def reload() -> None:
                file.write_text(yaml.safe_dump(config))
                async with httpx.AsyncClient(timeout=60) as client:
                    assert (await client.post(f"{gateway.admin_url}/admin/reload")).status_code == 200

            body = {**ASK, "max_tokens": 2}
            assert [(await post(gateway, CHAT, body)).status_code for _ in range(4)] == [200, 200, 200, 429]
            config["timeouts"] = {"idle": 60}
            await reload()
            assert (await post(gateway, CHAT, body)).status_code == 429
            config["limits"] = {"default": {"requests_per_minute": 6000}}
            await reload()
            assert (await post(gateway, CHAT, body)).headers["x-ratelimit-limit-requests"] == "6000"


# What is translated

STATEFUL = (
    delta({"content": ""}),
    delta({"reasoning": "Hm", "reasoning_content": "Hm", "content": "First"}),
    delta(
        {
            "content": " words",
            "tool_calls": [{"index": 0, "id": "t0", "type": "function", "function": {"name": "f", "arguments": ""}}],
        }
    ),
    delta({"content": None, "tool_calls": [{"index": 0, "id": "", "function": {"name": None, "arguments": '{"a"'}}]}),
    delta({"tool_calls": [{"index": 0, "id": None, "type": None, "function": {"name": "", "arguments": ":1}"}}]}),
    delta({"tool_calls": [{"index": 1, "id": "t1", "function": {"name": "g", "arguments": "{}"}}]}),
    delta({}, "tool_calls"),
    delta({"content": None, "tool_calls": None}, "stop"),
)
"""Thinking under both names, kinds side by side in one delta, ids that are empty or null, a second end."""


async def test_a_chat_stream_becomes_a_message_without_losing_a_piece() -> None:
    """litellm#18238, #29518, #30765, #32357, bifrost#3441 and #3638, dynamo#4153, opencode#40969: what stood beside
    something else in a delta was lost, thinking came in a block of text or twice, a call's id was overwritten by an
    empty one, two calls became one, a message that called a tool ended with `end_turn`.
    """
    async with scripted_node(streams(ROLE, *STATEFUL, USAGE, DONE)) as node:
        async with running_gateway(node.url, **OVER_CHAT) as gateway:
            client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="k", max_retries=0)
            async with client, client.messages.stream(**ASK) as stream:
                kinds = [each.type async for each in stream]
                message = await stream.get_final_message()
    assert kinds.count("message_start") == kinds.count("message_stop") == 1
    thought, text, *calls = [block.model_dump() for block in message.content]
    assert (thought["type"], thought["thinking"]) == ("thinking", "Hm")
    assert (text["type"], text["text"]) == ("text", "First words")
    assert [(call["id"], call["name"], call["input"]) for call in calls] == [("t0", "f", {"a": 1}), ("t1", "g", {})]
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 4)


async def test_a_chat_stream_becomes_a_response_without_losing_a_piece() -> None:
    """vllm#56285, and the same reports where the client speaks responses: items had one id when they were done, and
    another one in the last event.
    """
    async with scripted_node(streams(ROLE, *STATEFUL, USAGE, DONE)) as node:
        async with running_gateway(node.url, **OVER_CHAT) as gateway:
            client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k", max_retries=0)
            async with client, client.responses.stream(model=MODEL, input="hi") as stream:
                done = [each.item async for each in stream if each.type == "response.output_item.done"]
                final = await stream.get_final_response()
    assert [item.type for item in done] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.model_dump()["id"] for item in done] == [item.model_dump()["id"] for item in final.output]
    calls = [item for item in final.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [("t0", "f", '{"a":1}'), ("t1", "g", "{}")]
    assert final.output_text == "First words"


@pytest.mark.parametrize(("path", "body"), [(MESSAGES, STREAMED), (RESPONSES, STREAMED_RESPONSE)])
async def test_a_call_without_a_name_is_not_left_out(path: str, body: dict[str, Any]) -> None:
    """vllm#31443: a call's arguments came without its name. What would be told without it is another answer."""
    nameless = delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]})
    node_sends = (ROLE, delta({"content": "a"}), nameless, delta({}, "tool_calls"), USAGE, DONE)
    async with scripted_node(streams(*node_sends)) as node, running_gateway(node.url, **OVER_CHAT) as gateway:
        assert events_of((await post(gateway, path, body)).content)[-1]["type"] == "error"


@pytest.mark.parametrize(("path", "body"), [(MESSAGES, STREAMED), (RESPONSES, STREAMED_RESPONSE)])
async def test_a_stream_without_a_finish_reason_is_no_whole_answer(path: str, body: dict[str, Any]) -> None:
    """dynamo#10513, vllm#27572: a stream ended without a finish reason, and clients waited for one for ever."""
    async with scripted_node(streams(ROLE, delta({"content": "a"}), USAGE, DONE)) as node:
        async with running_gateway(node.url, **OVER_CHAT) as gateway:
            assert events_of((await post(gateway, path, body)).content)[-1]["type"] == "error"


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({}, [(CHAT, STREAMED)]),
        (OVER_CHAT, [(MESSAGES, STREAMED), (RESPONSES, STREAMED_RESPONSE)]),
        ({"thinking": {"hide_reasoning": True}}, [(CHAT, STREAMED)]),
    ],
    ids=["passed", "over chat", "hidden"],
)
async def test_a_character_cut_in_two_stays_one(
    settings: dict[str, Any], asks: list[tuple[str, dict[str, Any]]]
) -> None:
    """claude-code-router#1672, aisix#111, opencode#39694: each piece of a stream was decoded by itself, so that a
    character cut by its end became two question marks.
    """
    stream = ROLE + delta({"reasoning": "Hm"}) + delta({"content": UNICODE}) + delta({}, "stop") + USAGE + DONE
    start = stream.index(UNICODE.encode())
    cuts: Iterator[int] = iter(range(0))

    async def in_two(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        at = next(cuts)
        writer.write(STREAM_HEAD + chunk(stream[:at]))
        await writer.drain()
        await asyncio.sleep(0.001)  # so that it comes in a read of its own
        writer.write(chunk(stream[at:]) + LAST_CHUNK)

    async with scripted_node(in_two) as node, running_gateway(node.url, **settings) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            for path, body in asks:
                cuts = iter(range(start, start + len(UNICODE.encode())))
                for _ in range(len(UNICODE.encode())):
                    assert UNICODE in (await client.post(path, json=body)).content.decode()


@pytest.mark.parametrize(
    ("settings", "path", "body"),
    [({}, CHAT, STREAMED), (OVER_CHAT, MESSAGES, STREAMED), (OVER_CHAT, RESPONSES, STREAMED_RESPONSE)],
)
async def test_a_nodes_comments_stay_comments(settings: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    """mnfst/llm-gateway#2053, docker-agent#2349: comments between events went on as data, which is no JSON."""
    comment = b": OPENROUTER PROCESSING\n\n"
    node_sends = (comment, ROLE, comment, delta({"content": "a"}), comment, delta({}, "stop"), USAGE, DONE)
    async with scripted_node(streams(*node_sends)) as node, running_gateway(node.url, **settings) as gateway:
        got = (await post(gateway, path, body)).content
        assert got.count(comment) == 3 and b"data: :" not in got
        for line in got.splitlines():
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                json.loads(line.removeprefix(b"data: "))


# Which node, and for how long


async def test_bad_requests_take_no_node_out() -> None:
    """sglang#25811, vllm-router#60: a node's 400s, for prompts that were too long, opened its circuit breaker, and good
    requests found no node.
    """
    refusal = b'{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}'
    async with scripted_node(says(answer(refusal, "400 Bad Request"))) as node, running_gateway(node.url) as gateway:
        got = await asyncio.gather(*[post(gateway, CHAT, ASK) for _ in range(50)])
        assert {each.status_code for each in got} == {400}
        assert len(node.asked) == 50 and gateway.app.fleet.nodes[0].ready


async def test_a_full_queue_is_no_illness_and_its_hint_reaches_the_client() -> None:
    """sglang#39464: full queues (503, 429) opened the breaker of a healthy node. aisix#144: a node's `Retry-After` did
    not reach the client.
    """
    busy = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 7\r\n"
    full = busy.replace(b"429 Too Many Requests", b"503 Service Unavailable")
    replies = iter([busy, full] * 10)

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(next(replies) + b"content-length: 2\r\n\r\n{}")

    async with scripted_node(reply) as node, running_gateway(node.url) as gateway:
        for _ in range(20):
            got = await post(gateway, CHAT, ASK)
            assert got.status_code in (429, 503) and 1 <= int(got.headers["retry-after"]) <= 7
        assert gateway.app.fleet.nodes[0].ready


TAKEN = {
    CHAT: b": keep-alive\n\n" * 3,
    MESSAGES: b'event: ping\ndata: {"type":"ping"}\n\n',
    RESPONSES: b'event: response.created\ndata: {"type":"response.created","response":{"id":"a","error":null}}\n\n'
    b'event: response.in_progress\ndata: {"type":"response.in_progress","response":{"id":"a"}}\n\n',
}
"""What servers say of a request before their engine has looked at it."""

ENDS = {
    CHAT: ROLE + delta({"content": "whole"}) + delta({}, "stop") + USAGE + DONE,
    MESSAGES: b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop","whole":1}\n\n',
    RESPONSES: b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"b","whole":1}}\n\n',
}
ERROR = b'data: {"type":"error","error":{"message":"engine dead","type":"internal_server_error","code":500}}\n\n'
IN_TURN: dict[str, Any] = {"routing": {"policy": "round_robin"}, "health": {"interval": 60}}


@pytest.mark.parametrize("resume", [True, False], ids=["resume", "no resume"])
@pytest.mark.parametrize("path", TAKEN)
@pytest.mark.parametrize("how", ["cut", "error", "still"])
async def test_what_a_server_says_before_its_engine_answers_is_no_answer(path: str, how: str, resume: bool) -> None:
    """bifrost#5395, claude-code-router#1759, litellm#38610: comments, pings or `response.created` came first, then the
    request failed; as the stream had begun, no other node was asked. vllm#47647 has comments sent by nodes.

    With resume the node is asked for messages as chat; a response that it may store stays one.
    """
    asked_as = CHAT if resume and path == MESSAGES else path

    async def fails(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(TAKEN[asked_as]))
        await writer.drain()
        if how == "error":
            writer.write(chunk(ERROR) + LAST_CHUNK)
        elif how == "cut":
            writer.close()
        else:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(30):
                    while True:
                        writer.write(chunk(b": keep-alive\n\n"))
                        await writer.drain()
                        await asyncio.sleep(0.05)

    body = STREAMED_RESPONSE if path == RESPONSES else STREAMED
    quick: dict[str, Any] = {**IN_TURN, "timeouts": {"node_hang": 1.0, "prefill": 0.0}, "resume": {"enabled": resume}}
    sent = TAKEN[asked_as] + ENDS[asked_as]
    async with scripted_node(fails) as ill, scripted_node(streams(TAKEN[asked_as], ENDS[asked_as])) as good:
        async with running_gateway(ill.url, good.url, **quick) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            got = [(await post(gateway, path, body)).content for _ in range(2)]
            assert [asked.path for asked in ill.asked if b'"stream":true' in asked.body] == [asked_as]
            for content in got:
                if asked_as == path:
                    assert content.endswith(sent.replace(USAGE, b""))
                else:
                    texts = [each["delta"].get("text") for each in events_of(content) if "delta" in each]
                    assert texts == ["whole", None] and content.count(b"message_stop") == 2
                assert b"engine dead" not in content and content.count(b"response.created") <= 2


def message_events(*blocks: bytes, stop: bytes) -> bytes:
    start = b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n'
    end = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":%b},"usage":{}}\n\n' % stop
    return start + b"".join(blocks) + end + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


TEXT_BLOCK = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"half"}}\n\n'
GIVEN_UP = {
    "chat": (CHAT, ROLE + delta({"content": "half"}) + delta({}, "abort") + USAGE + DONE),
    "completions": ("/v1/completions", delta({"content": "half"}, "abort") + USAGE + DONE),
    "messages": (MESSAGES, message_events(TEXT_BLOCK, stop=b"null")),
}


@pytest.mark.parametrize("resume", [True, False], ids=["resume", "no resume"])
@pytest.mark.parametrize("wanted", [False, True], ids=["", "usage asked for"])
@pytest.mark.parametrize("name", GIVEN_UP)
async def test_an_answer_that_the_node_gave_up_is_no_whole_one(name: str, wanted: bool, resume: bool) -> None:
    """vllm#57082: a node that is stopped gives its requests up, with `finish_reason: abort` and `[DONE]` behind it, as
    if half an answer was the whole one. Without token ids there is nothing to resume.
    """
    path, node_sends = GIVEN_UP[name]
    if resume and path == MESSAGES:  # the node is asked for it as chat
        _, node_sends = GIVEN_UP["chat"]
    body = {**STREAMED, "prompt": "hi", **({"stream_options": {"include_usage": True}} if wanted else {})}
    settings: dict[str, Any] = {"resume": {"enabled": resume}}
    async with scripted_node(streams(node_sends)) as node, running_gateway(node.url, **settings) as gateway:
        got = await post(gateway, path, body)
        assert b"[DONE]" not in got.content and b"message_stop" not in got.content
        assert b"aborted the answer" in got.content


PLAIN = {
    CHAT: '{"id":"c","choices":[{"index":0,"message":{"content":"%s"},"finish_reason":"%s"}],"usage":{}}',
    "/v1/completions": '{"id":"c","choices":[{"index":0,"text":"%s","finish_reason":"%s"}],"usage":{}}',
}


@pytest.mark.parametrize("path", [*PLAIN, MESSAGES, f"over chat {MESSAGES}"])
async def test_a_plain_answer_that_the_node_gave_up_is_asked_of_another_one(path: str) -> None:
    """The same without a stream: nothing of it has gone to the client."""
    settings = {**IN_TURN, **(OVER_CHAT if path.startswith("over chat") else {})}
    path = path.removeprefix("over chat ")
    if path == MESSAGES and "models" not in settings:
        message = '{"id":"c","type":"message","role":"assistant","content":[{"type":"text","text":"%s"}]%s,"usage":{}}'
        half, whole = message % ("half", ""), message % ("whole", ',"stop_reason":"end_turn"')
    else:
        form = PLAIN[CHAT if path == MESSAGES else path]
        half, whole = form % ("half", "abort"), form % ("whole", "stop")
    async with scripted_node(says(answer(half.encode()))) as ill, scripted_node(says(answer(whole.encode()))) as good:
        async with running_gateway(ill.url, good.url, **settings) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            got = [await post(gateway, path, {**ASK, "prompt": "hi"}) for _ in range(2)]
            assert [("whole" in each.text, "half" in each.text) for each in got] == [(True, False)] * 2
            assert ill.asked


PING = b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize(
    ("path", "sign", "last", "resume"),
    [
        (CHAT, b": keep-alive\n\n", "upstream_timeout", False),
        (CHAT, b": keep-alive\n\n", "upstream_timeout", True),
        (CHAT, b": keep-alive\n", "upstream_timeout", True),
        (MESSAGES, PING, "timeout_error", False),
        (f"over chat {MESSAGES}", b": keep-alive\n\n", "timeout_error", True),
    ],
)
async def test_comments_in_mid_stream_are_no_sign_of_life(path: str, sign: bytes, last: str, resume: bool) -> None:
    """vllm#47647: a server's comments go on while its engine stands still. The stream ends when the engine has said
    nothing for `timeouts.idle`. There are no token ids that another node could go on from."""
    asked_as = CHAT if path.startswith("over chat") else path
    path = path.removeprefix("over chat ")
    begun = {CHAT: ROLE + delta({"content": "a"}), MESSAGES: ENDS[MESSAGES].split(b"event: message_stop")[0]}

    async def stands_still(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(begun[asked_as]))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(30):
                while True:
                    writer.write(chunk(sign))
                    await writer.drain()
                    await asyncio.sleep(0.05)

    settings: dict[str, Any] = {"timeouts": {"idle": 1.0}, "resume": {"enabled": resume}}
    async with scripted_node(stands_still) as node, running_gateway(node.url, **settings) as gateway:
        async with asyncio.timeout(20):
            got = (await post(gateway, path, STREAMED)).content
        assert last.encode() in got.strip().split(b"\n\n")[-1]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("first", [True, False], ids=["before a token", "in mid-stream"])
async def test_comments_keep_no_stream_on_a_node_that_stands_still(path: str, first: bool) -> None:
    """The same where there are ids: another node goes on with the answer."""
    kept = FakeSettings(thinking_tokens=4, answer_tokens=4)
    async with serve_fake(kept) as ill, serve_fake(kept) as good:
        quick = {"idle": 1.0, "node_hang": 1.0, "prefill": 0.0}
        settings: dict[str, Any] = {**IN_TURN, "budgets": {"canary": True}, "timeouts": quick}
        async with running_gateway(ill.url, good.url, **settings) as gateway:
            await eventually(
                lambda: all(node.capabilities.marker_shown is not None for node in gateway.app.fleet.nodes)
            )
            whole = [_texts((await post(gateway, path, STREAMED)).content) for _ in range(2)]
            for node in (ill, good):
                node.set_faults(Fault("comments", size=1), Fault("stall", after=1 if first else 5, path=CHAT, next=1))
            got = [_texts((await post(gateway, path, STREAMED)).content) for _ in range(2)]
            assert got == whole


def _texts(stream: bytes) -> tuple[str, ...]:
    """The texts of a whole stream's deltas."""
    assert b"[DONE]" in stream or b"message_stop" in stream
    events = events_of(stream.replace(DONE, b""))
    deltas = [each["delta"] for each in events if "delta" in each]
    deltas += [choice["delta"] for each in events for choice in each.get("choices", ())]
    names = ("reasoning", "thinking", "content", "text")
    return tuple("".join(delta.get(name) or "" for delta in deltas) for name in names)


async def test_comments_are_no_tokens() -> None:
    """litellm#34374, vllm#51034: streams need comments during a long prefill. Whoever leaves then is not charged for
    them as if they were tokens.
    """

    async def prefills(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(40):
            writer.write(chunk(b": keep-alive\n\n"))
            await writer.drain()
            await asyncio.sleep(0.002)
        await node.until_hung_up(reader)

    async with scripted_node(prefills) as node, running_gateway(node.url) as gateway:
        asking = asyncio.create_task(post(gateway, CHAT, STREAMED))
        await eventually(lambda: node.asked)
        await asyncio.sleep(0.5)
        asking.cancel()
        await eventually(lambda: node.hung_up == 1)
        await eventually(lambda: not held(gateway))
        assert await tokens(gateway, "output") == 0


async def test_no_work_is_counted_that_has_ended() -> None:
    """vllm-router#215, production-stack#1072, smg#2146: requests that were left or failed counted as load for ever, and
    everything went to the node that had restarted last.
    """
    async with serve_fake(FakeSettings(rate=50)) as node, limited_gateway(node.url) as gateway:
        for _ in range(5):
            await leave(gateway, CHAT, {**STREAMED, "max_tokens": 500})
            asking = asyncio.create_task(post(gateway, CHAT, {**ASK, "max_tokens": 500}))
            await eventually(lambda: held(gateway))
            asking.cancel()
            node.set_faults(Fault("die", after=3, next=1))
            await post(gateway, CHAT, STREAMED)
        await nothing_held(gateway, node)


# The connection


async def test_idle_connections_outlive_those_of_load_balancers() -> None:
    """litellm#19091, kserve#5446: the server closed idle connections sooner than the load balancer before it did, which
    then sent requests on closed ones: 502 now and then.
    """
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway:
        assert gateway.server.config.timeout_keep_alive > 60  # of most load balancers; docs/deploy.md


async def test_a_models_name_may_have_a_slash() -> None:
    """ogx#1038, ollama#13715: models that are called `org/name` could be listed and not asked for."""
    async with serve_fake(FakeSettings(models=("org/Model-1",))) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            for path in ("org/Model-1", "org%2FModel-1"):
                assert (await client.get(f"/v1/models/{path}")).json()["id"] == "org/Model-1"
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as sdk:
            assert (await sdk.models.retrieve("org/Model-1")).id == "org/Model-1"


async def test_no_key_is_told_to_anybody(tmp_path: Path) -> None:
    """litellm#25203, #27188, #15799: keys in error messages and in logs: those of other services, mistyped ones, those
    in a query.
    """
    secrets = ("sk-proj-anotherservices", "fg-mistyped-by-a-hair", "AIza-in-the-query", "sk-ant-in-the-path")
    key = "fg-the-right-one-of-them"
    file = tmp_path / "fleetgate.yaml"
    async with serve_fake(FakeSettings()) as node:
        tenants = [{"name": "acme", "keys": [{"sha256": key_digest(key).hex()}]}]
        file.write_text(yaml.safe_dump({"nodes": [{"url": node.url}], "tenants": tenants}))
        async with gateway_process("--config", file) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            told = [
                await client.post(CHAT, json=ASK, headers={"authorization": f"Bearer {secrets[0]}"}),
                await client.post(CHAT, json=ASK, headers={"x-api-key": secrets[1]}),
                await client.post(f"{CHAT}?key={secrets[2]}", json=ASK, headers={"x-api-key": key}),
                await client.post(f"/v1/{secrets[3]}", json=ASK, headers={"x-api-key": key}),
            ]
            assert [each.status_code for each in told] == [401, 401, 200, 404]
            assert not [each for each in told[:3] if any(secret in each.text for secret in (*secrets, key))]
            await eventually(lambda: len(gateway.events("request")) == 2)  # one for both strangers
            log = "\n".join(gateway.lines)
            assert not [secret for secret in (*secrets, key) if secret in log]
