"""What coding agents send, through a whole gateway to a fake node: in the node's own dialects and over chat."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from gateway.core.access.api_keys import key_digest
from gateway.core.dialects.opaque_text import COMPACTION, encode_text
from tests.flow.test_over_chat import (
    AUTHORITIES,
    CALLED,
    CHAT,
    FUNCTION,
    MESSAGES,
    MODEL,
    OVER_CHAT,
    RESPONSES,
    SCHEMA,
    Both,
    ask,
    asked_last,
    turn,
)
from tests.support.gateways import running_gateway
from tests.support.meaning import events_of
from workers.fake import FakeSettings, Fault, serve_fake

pytestmark = pytest.mark.asyncio(loop_scope="module")
FORMAT = {"type": "json_schema", "schema": SCHEMA}
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def both() -> AsyncIterator[Both]:
    async with (
        serve_fake(FakeSettings(responses_store=False)) as node,
        running_gateway(node.url, resume={"enabled": False}) as native,
        running_gateway(node.url, **OVER_CHAT) as over_chat,
    ):
        yield Both(node, native.url, over_chat.url)


def as_codex_sends_it_back(item: dict[str, Any]) -> dict[str, Any]:
    """Without ids, and without the content of thoughts."""
    left_out = ("id", "status", "content") if item["type"] == "reasoning" else ("id", "status")
    return {name: value for name, value in item.items() if name not in left_out}


@STREAM
async def test_codexs_thoughts_reach_the_model_again(both: Both, stream: bool) -> None:
    codex: dict[str, Any] = {"tools": [FUNCTION], "store": False, "include": ["reasoning.encrypted_content"]}
    asked = [turn("weather? [[call]]")]
    got = await ask(both.over_chat, RESPONSES, {**codex, "input": asked, "stream": stream})
    made = (events_of(got.content)[-1]["response"] if stream else got.json())["output"]
    assert [item["type"] for item in made] == ["reasoning", "function_call"]
    history = [*asked, *map(as_codex_sends_it_back, made)]
    assert "reasoning_text" not in json.dumps(history)
    output = {"type": "function_call_output", "call_id": made[1]["call_id"], "output": "Sunny"}
    for url in (both.over_chat, both.native):
        again = await ask(url, RESPONSES, {**codex, "input": [*history, output], "stream": stream})
        assert again.status_code == 200, again.text
        sent = asked_last(both.node).json
        thought = made[0]["content"][0]["text"]
        if url == both.over_chat:
            assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
            assert sent["messages"][1]["reasoning"] == thought
        else:
            assert sent["input"][1]["content"] == [{"type": "reasoning_text", "text": thought}]
            assert "encrypted_content" not in sent["input"][1]


@STREAM
async def test_a_tool_with_a_grammar_there_and_back(both: Both, stream: bool) -> None:
    """Codex's apply_patch. A node refuses grammars: it gets a tool for free text, and the model is told the grammar."""
    form = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    tool = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": form}
    asked = [turn("patch [[call]]")]
    for url in (both.over_chat, both.native):
        got = await ask(url, RESPONSES, {"input": asked, "tools": [tool], "stream": stream})
        assert got.status_code == 200, got.text
        sent = asked_last(both.node).json["tools"][0]
        told = "Edits files.\n\nThe input follows this grammar (lark):\nstart: /.+/"
        if url == both.native:  # where the fake node offers no custom tools to its model
            assert (sent["format"], sent["description"]) == ({"type": "text"}, told)
            continue
        assert sent["function"]["description"] == told
        events = events_of(got.content) if stream else []
        call = (events[-1]["response"] if stream else got.json())["output"][-1]
        assert (call["type"], call["name"]) == ("custom_tool_call", "apply_patch")
        if stream:
            done = next(event for event in events if event["type"] == "response.custom_tool_call_input.done")
            assert done["input"] == call["input"]
        output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "Done"}
        items = [*asked, as_codex_sends_it_back(call), output]
        again = await ask(url, RESPONSES, {"input": items, "tools": [tool], "stream": stream})
        assert again.status_code == 200, again.text
        messages = asked_last(both.node).json["messages"]
        assert json.loads(messages[1]["tool_calls"][0]["function"]["arguments"]) == {"input": call["input"]}
        assert messages[2] == {"role": "tool", "tool_call_id": call["call_id"], "content": "Done"}
        assert asked_last(both.node).json["model"] == MODEL


def message_of(got: httpx.Response, stream: bool) -> dict[str, Any]:
    """What a message says at its end: its usage and stop reason, and its text."""
    if not stream:
        whole: dict[str, Any] = got.json()
        text = "".join(block.get("text", "") for block in whole["content"])
        return {"usage": whole["usage"], "stop_reason": whole["stop_reason"], "text": text}
    events = events_of(got.content)
    end = next(event for event in events if event["type"] == "message_delta")
    text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    return {"usage": end["usage"], "stop_reason": end["delta"]["stop_reason"], "text": text}


@STREAM
@pytest.mark.parametrize("version", ["vllm-0.22", "vllm-0.32"])
async def test_a_schema_holds_whatever_the_version(version: Any, stream: bool) -> None:
    """vLLM 0.22 ignores `output_config` in messages, so it is asked in chat."""
    async with (
        serve_fake(FakeSettings(version=version)) as node,
        running_gateway(node.url, resume={"enabled": False}, budgets={"canary": True}) as gateway,
    ):
        for fields in ({"output_format": FORMAT}, {"output_config": {"format": FORMAT}}):
            body = {"messages": [turn("hello")], **fields, "stream": stream}
            got = await ask(gateway.url, MESSAGES, body)
            assert got.status_code == 200, got.text
            assert json.loads(message_of(got, stream)["text"]).keys() == {"city"}
            paths = {seen.path for seen in node.stats.recent if b'"city"' in seen.body}
            assert paths == {CHAT if version == "vllm-0.22" else MESSAGES}


@STREAM
async def test_the_tokens_of_a_messages_thinking(both: Both, stream: bool) -> None:
    got = await ask(both.over_chat, MESSAGES, {"messages": [turn("hello [[think=9]]")], "stream": stream})
    usage = message_of(got, stream)["usage"]
    assert usage["output_tokens_details"] == {"thinking_tokens": 9}
    assert usage["output_tokens"] > 9


@STREAM
async def test_the_tokens_of_a_thinking_that_the_gateway_held(stream: bool) -> None:
    capped: dict[str, Any] = {"thinking": {"max_budget": 12}, "budgets": {"native": False, "canary": True}}
    async with serve_fake(FakeSettings(budget="disobey")) as node, running_gateway(node.url, **capped) as gateway:
        body = {"messages": [turn("hello [[think=90]]")], "stream": stream}
        usage = message_of(await ask(gateway.url, MESSAGES, body), stream)["usage"]
        assert 0 < usage["output_tokens_details"]["thinking_tokens"] <= 12


@STREAM
async def test_thinking_between_tools_is_off(both: Both, stream: bool) -> None:
    for url in (both.native, both.over_chat):
        body = {"messages": [turn("hello")], "thinking": {"type": "between_tools"}, "stream": stream}
        got = await ask(url, MESSAGES, body)
        assert got.status_code == 200, got.text
        assert "thinking_delta" not in got.text and '"type":"thinking"' not in got.text
        assert message_of(got, stream)["stop_reason"] == "end_turn"


@STREAM
async def test_what_is_left_of_a_task_bounds_its_thinking(both: Both, stream: bool) -> None:
    task = {"task_budget": {"type": "tokens", "total": 20_000, "remaining": 7}}
    for url in (both.native, both.over_chat):
        body = {"messages": [turn("hello [[think=90]]")], "output_config": task, "stream": stream}
        got = await ask(url, MESSAGES, body)
        assert got.status_code == 200, got.text
        assert asked_last(both.node).json["thinking_token_budget"] == 7


@STREAM
@pytest.mark.parametrize("beta", ["what-nobody-knows-2031-01-01", "a-1,b-2", ",,", "é"])
async def test_any_beta_is_taken(both: Both, beta: str, stream: bool) -> None:
    """And the query that Anthropic's SDK asks for betas with."""
    body = {"model": MODEL, "max_tokens": 60, "messages": [turn("hello")], "stream": stream}
    for url in (both.native, both.over_chat):
        async with httpx.AsyncClient(timeout=20, verify=AUTHORITIES) as client:
            headers = {b"anthropic-version": b"2023-06-01", b"anthropic-beta": beta.encode()}
            for path in (f"{MESSAGES}?beta=true", f"{MESSAGES}/count_tokens?beta=true"):
                got = await client.post(url + path, json=body, headers=headers)
                assert got.status_code == 200, got.text


@STREAM
async def test_anthropics_thoughts_reach_the_model_again(both: Both, stream: bool) -> None:
    """Whoever signed them: with a signature, with an empty one, and with none; what is redacted has no text."""
    thoughts = [
        {"type": "thinking", "thinking": "A", "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "EmwKAhgB"},
        {"type": "thinking", "thinking": "B", "signature": ""},
        {"type": "thinking", "thinking": "C"},
    ]
    tool = {"name": "look", "input_schema": {"type": "object"}}
    history = [
        turn("hello"),
        {"role": "assistant", "content": [*thoughts, {"type": "tool_use", "id": "t1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Sunny"}]},
    ]
    for url in (both.native, both.over_chat):
        got = await ask(url, MESSAGES, {"messages": history, "tools": [tool], "stream": stream})
        assert got.status_code == 200, got.text
        sent = asked_last(both.node).json["messages"]
        if url == both.native:
            assert sent == history
        else:
            assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
            assert sent[1]["reasoning"] == "ABC"


PROMPTS: list[dict[str, Any]] = [
    {"input": "hello"},
    {"input": [turn("hello"), turn("there")], "instructions": "Be brief."},
    {"input": "hello", "reasoning": {"effort": "none"}},
    {"input": "weather?", "tools": [FUNCTION]},
    {
        "input": [turn("weather?"), CALLED, {"type": "function_call_output", "call_id": "t1", "output": "Sunny"}],
        "tools": [FUNCTION],
    },
    {"input": [{"type": "compaction", "encrypted_content": encode_text(COMPACTION, "We spoke.")}, turn("hello")]},
]


@pytest.mark.parametrize("body", PROMPTS)
async def test_a_prompt_is_counted_as_its_response_will_be(both: Both, body: dict[str, Any]) -> None:
    for url in (both.native, both.over_chat):
        counted = await ask(url, f"{RESPONSES}/input_tokens", body)
        assert counted.status_code == 200, counted.text
        answer = await ask(url, RESPONSES, {**body, "max_output_tokens": 1})
        tokens = answer.json()["usage"]["input_tokens"]
        assert counted.json() == {"object": "response.input_tokens", "input_tokens": tokens}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": 3}, "input"),
        ({"input": "hi", "chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"input": "hi", "chat_template_kwargs": ["x"]}, "chat_template_kwargs"),
        ({"input": [{"type": "compaction", "encrypted_content": "gAAAA"}]}, "input.0.encrypted_content"),
    ],
)
async def test_what_cannot_be_counted_is_refused_by_name(both: Both, body: dict[str, Any], param: str) -> None:
    refused = await ask(both.native, f"{RESPONSES}/input_tokens", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_a_count_costs_a_request_and_no_output() -> None:
    tenants = [{"name": "a", "keys": [{"sha256": key_digest("fg-a").hex()}], "limits": {"requests_per_minute": 1}}]
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url, tenants=tenants) as gateway:
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="fg-a", max_retries=0)
        counted = await client.responses.input_tokens.count(model=MODEL, input="hello")
        assert counted.input_tokens > 0
        with pytest.raises(openai.RateLimitError):
            await client.responses.input_tokens.count(model=MODEL, input="hello")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="fg-b").responses.input_tokens.count(model=MODEL, input="hello")
        await client.close()


async def test_a_node_that_cannot_count_says_so(both: Both) -> None:
    both.node.set_faults(Fault("status", status=500, scope="all"))
    try:
        failed = await ask(both.native, f"{RESPONSES}/input_tokens", {"input": "hello"})
    finally:
        both.node.set_faults()
    assert failed.status_code >= 500 and failed.json()["error"]["message"]
