"""Messages and responses served over chat by a whole gateway, from a fake node: what the node itself would say."""

import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from tests.support.gateways import running_gateway
from tests.support.meaning import events_of, meaning
from workers.fake import FakeSettings, Fault, serve_fake
from workers.fake.server import FakeNode
from workers.fake.stats import Seen

MODEL = "nemotron-3-ultra"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
OVER_CHAT: dict[str, Any] = {"models": [{"name": MODEL, "over_chat": True}]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "name": "get_weather", "description": "Weather", "parameters": SCHEMA, "strict": False}
USED = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
CALLED = {"type": "function_call", "call_id": "t1", "name": "get_weather", "arguments": '{"city": "Paris"}'}


def turn(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


CASES: list[tuple[str, dict[str, Any]]] = [
    (MESSAGES, {"messages": [turn("hello")]}),
    (MESSAGES, {"messages": [turn("hello")], "max_tokens": 6}),
    (MESSAGES, {"messages": [turn("hello")], "max_tokens": 30, "system": "Be brief.", "top_k": 3}),
    (MESSAGES, {"messages": [turn("hello")], "thinking": {"type": "disabled"}}),
    (MESSAGES, {"messages": [turn("weather? [[call]]")], "tools": [TOOL]}),
    (MESSAGES, {"messages": [turn("weather?")], "tools": [TOOL], "tool_choice": {"type": "any"}}),
    (
        MESSAGES,
        {
            "messages": [
                turn("weather?"),
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, USED]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Sunny"}]},
            ],
            "tools": [TOOL],
        },
    ),
    (RESPONSES, {"input": "hello"}),
    (RESPONSES, {"input": "hello", "max_output_tokens": 6}),
    (RESPONSES, {"input": [turn("hello")], "instructions": "Be brief.", "metadata": {"team": "a"}, "user": "me"}),
    (RESPONSES, {"input": "hello", "reasoning": {"effort": "none"}}),
    (RESPONSES, {"input": "weather? [[call]]", "tools": [FUNCTION]}),
    (RESPONSES, {"input": "weather?", "tools": [FUNCTION], "tool_choice": "required"}),
    (RESPONSES, {"input": "weather? [[call]]", "tools": [FUNCTION], "max_output_tokens": 30}),
    (RESPONSES, {"input": "hello", "store": True, "conversation": "c", "n": 2, "response_format": {"type": "poem"}}),
    (MESSAGES, {"messages": [turn("hello")], "n": 2, "logprobs": True, "max_tokens": "30"}),
    (
        RESPONSES,
        {
            "input": [turn("weather?"), CALLED, {"type": "function_call_output", "call_id": "t1", "output": "Sunny"}],
            "tools": [FUNCTION],
        },
    ),
    (
        RESPONSES,
        {"input": "json", "text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}},
    ),
]


@dataclass(frozen=True, slots=True)
class Both:
    """One fake node, behind a gateway that passes its dialects and behind one that asks it in chat."""

    node: FakeNode
    native: str
    over_chat: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def both() -> AsyncIterator[Both]:
    async with (
        serve_fake(FakeSettings(responses_store=False)) as node,
        running_gateway(node.url) as native,
        running_gateway(node.url, **OVER_CHAT) as over_chat,
    ):
        yield Both(node, native.url, over_chat.url)


def asked_last(node: FakeNode) -> Seen:
    """The node's last request that was no probe."""
    return next(seen for seen in reversed(node.stats.recent) if seen.path.startswith("/v1/") and seen.method == "POST")


pytestmark = pytest.mark.asyncio(loop_scope="module")


AUTHORITIES = ssl.create_default_context()  # made once: reading the authorities takes longer than a request


async def ask(url: str, path: str, body: dict[str, Any]) -> httpx.Response:
    sent = {"model": MODEL, **({"max_tokens": 400} if path == MESSAGES else {}), **body}
    async with httpx.AsyncClient(timeout=20, verify=AUTHORITIES) as client:
        return await client.post(url + path, json=sent, headers={"anthropic-version": "2023-06-01"})


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("path", "body"), CASES)
async def test_the_same_meaning(both: Both, path: str, body: dict[str, Any], stream: bool) -> None:
    await ask(both.native, path, body)  # so that both find the prompt in the cache
    native = await ask(both.native, path, {**body, "stream": stream})
    over_chat = await ask(both.over_chat, path, {**body, "stream": stream})
    assert asked_last(both.node).path == CHAT
    assert (over_chat.status_code, native.status_code) == (200, 200)
    assert over_chat.headers["content-type"] == native.headers["content-type"]
    if stream:
        assert meaning(events_of(over_chat.content)) == meaning(events_of(native.content))
    else:
        assert meaning(over_chat.json()) == meaning(native.json())


CODEX: dict[str, Any] = {
    "input": [{"type": "additional_tools", "role": "developer", "tools": [FUNCTION]}, turn("weather? [[call]]")],
    "tools": [FUNCTION, {"type": "web_search"}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]},
    "parallel_tool_calls": False,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"x": "y"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("held", [{}, {"native": False}], ids=["held by the node", "held by the gateway"])
async def test_what_an_agent_sends_is_served_also_under_an_operators_budget(held: dict[str, Any], stream: bool) -> None:
    async with (
        serve_fake(FakeSettings(responses_store=False)) as node,
        running_gateway(node.url, thinking={"max_budget": 100}, budgets=held) as gateway,
    ):
        got = await ask(gateway.url, RESPONSES, {**CODEX, "stream": stream})
        assert got.status_code == 200, got.text
        sent = [seen.path for seen in node.stats.recent if b"prompt_cache_key" in seen.body]
        assert RESPONSES not in sent, "but for the canary's, which asks whether the node stores"
        whole = events_of(got.content)[-1]["response"] if stream else got.json()
        assert [item["type"] for item in whole["output"]] == ["reasoning", "function_call"]


@pytest.mark.parametrize("cut", [3, 30], ids=["in the thought", "in the answer"])
async def test_a_cut_response_ends_as_on_a_node_of_today(cut: int) -> None:
    """To the event, and nothing made equal by `meaning`."""
    async with (
        serve_fake(FakeSettings(version="vllm-0.33", responses_store=False)) as node,
        running_gateway(node.url) as native,
        running_gateway(node.url, **OVER_CHAT) as over_chat,
    ):
        asked = {"input": "hello", "max_output_tokens": cut, "stream": True}
        streams = [events_of((await ask(url, RESPONSES, asked)).content) for url in (native.url, over_chat.url)]
        assert [event["type"] for event in streams[0]] == [event["type"] for event in streams[1]]
        for events in streams:
            assert events[-1]["type"] == "response.incomplete"
            assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
            assert events[-1]["response"]["output"][-1]["status"] == "incomplete"
        plain = [(await ask(url, RESPONSES, asked | {"stream": False})).json() for url in (native.url, over_chat.url)]
        assert [[item["status"] for item in whole["output"]] for whole in plain] in (
            [[None], [None]],
            [[None, "incomplete"], [None, "incomplete"]],
        )


@pytest.mark.parametrize("hidden", [{}, {"thinking": {"hide_reasoning": True}}], ids=["shown", "hidden"])
async def test_a_response_that_an_older_node_cuts_ends_as_openais(hidden: dict[str, Any]) -> None:
    """In its own dialect: vLLM 0.32 says that it is completed, and in the plain answer that it is not."""
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **hidden) as gateway:
        for cut in (3, 30):
            got = await ask(gateway.url, RESPONSES, {"input": "hello", "max_output_tokens": cut, "stream": True})
            assert asked_last(node).path == RESPONSES
            last = events_of(got.content)[-1]
            assert last["type"] == "response.incomplete" and b"response.completed" not in got.content
            assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
            assert last["response"]["usage"]["output_tokens"] == cut
        whole = await ask(gateway.url, RESPONSES, {"input": "hello", "stream": True})
        assert events_of(whole.content)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (RESPONSES, {"input": "hi", "background": True}, "background"),
        (RESPONSES, {"input": "hi", "enable_response_messages": True}, "enable_response_messages"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0.type"),
    ],
)
async def test_what_chat_cannot_carry_is_refused_by_name(
    both: Both, path: str, body: dict[str, Any], param: str
) -> None:
    refused = await ask(both.over_chat, path, body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert param in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error.get("param", param) == param


async def test_a_nodes_refusal_in_the_clients_dialect(both: Both) -> None:
    long = [turn("word " * 60_000)]
    messages = await ask(both.over_chat, MESSAGES, {"messages": long})
    assert (messages.status_code, messages.json()["type"]) == (400, "error")
    assert messages.json()["error"]["type"] == "invalid_request_error"
    responses = await ask(both.over_chat, RESPONSES, {"input": long})
    assert responses.status_code == 400
    assert responses.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        (MESSAGES, {"messages": [turn("hi")]}, "message_stop"),
        (RESPONSES, {"input": "hi"}, "response.completed"),
    ],
)
@pytest.mark.parametrize("fault", [Fault("die", after=5), Fault("reset", after=5), Fault("error_event", after=5)])
async def test_a_broken_stream_has_no_end(both: Both, path: str, body: dict[str, Any], end: str, fault: Fault) -> None:
    both.node.set_faults(fault)
    try:
        broken = await ask(both.over_chat, path, {**body, "stream": True})
    finally:
        both.node.set_faults()
    if fault.kind == "error_event":  # it comes in one piece with what was before it, so nothing was shown
        assert broken.status_code == 502 and "EngineCore" in broken.text and broken.text.startswith("{")
        return
    kinds = [event["type"] for event in events_of(broken.content)]
    assert end not in kinds
    assert kinds[-1] == "error"
    assert any("delta" in kind for kind in kinds)


@pytest.mark.parametrize(("path", "body"), [(MESSAGES, {"messages": [turn("hi")]}), (RESPONSES, {"input": "hi"})])
async def test_bytes_in_any_pieces(both: Both, path: str, body: dict[str, Any]) -> None:
    whole = await ask(both.over_chat, path, {**body, "stream": True})
    both.node.set_faults(Fault("split", size=7))
    try:
        split = await ask(both.over_chat, path, {**body, "stream": True})
    finally:
        both.node.set_faults()
    assert meaning(events_of(split.content)) == meaning(events_of(whole.content))


async def test_hidden_thinking_stays_hidden() -> None:
    hiding: dict[str, Any] = {"thinking": {"hide_reasoning": True}, **OVER_CHAT}
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **hiding) as gateway:
        for path, body in ((MESSAGES, {"messages": [turn("hi")]}), (RESPONSES, {"input": "hi"})):
            for stream in (False, True):
                got = (await ask(gateway.url, path, {**body, "stream": stream})).text
                assert "reasoning_text" not in got
                assert "thinking" not in got.replace("thinking_tokens", "")
                assert "text" in got


async def test_a_budget_reaches_the_node_in_chats_own_field() -> None:
    capped: dict[str, Any] = {"thinking": {"max_budget": 7}, **OVER_CHAT}
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, **capped) as gateway:
        for path, body in ((MESSAGES, {"messages": [turn("hi")]}), (RESPONSES, {"input": "hi"})):
            told = await ask(gateway.url, path, body)
            assert asked_last(node).json["thinking_token_budget"] == 7
            assert told.headers["x-fleetgate-thinking-budget"].startswith("7;")


async def test_anthropics_sdk(both: Both) -> None:
    asked: Any = {"messages": [turn("weather? [[call]]")], "tools": [TOOL]}
    async with (
        anthropic.AsyncAnthropic(base_url=both.over_chat, api_key="x", max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=400, **asked) as stream,
    ):
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content][-1] == "tool_use"
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


async def test_openais_sdk(both: Both) -> None:
    asked: Any = {"input": "weather? [[call]]", "tools": [FUNCTION]}
    async with openai.AsyncOpenAI(base_url=f"{both.over_chat}/v1", api_key="x", max_retries=0) as client:
        async with client.responses.stream(model=MODEL, **asked) as stream:
            response = await stream.get_final_response()
        plain = await client.responses.create(model=MODEL, input="hello")
    assert response.status == "completed"
    call = response.output[-1]
    assert call.type == "function_call"
    assert json.loads(call.arguments).keys() == {"city"}
    assert plain.output_text
    assert plain.usage is not None
    assert plain.usage.output_tokens > 0
