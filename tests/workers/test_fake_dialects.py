"""Messages, responses, tools and versions on the fake node; the SDKs read its answers."""

import asyncio
import itertools
import json
from typing import Any, cast

import httpx
import pytest
from anthropic import AsyncAnthropic
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from tests.contract.client import CHAT, QUESTION, node_client
from workers.fake import FakeSettings, Fault, serve_fake
from workers.fake.settings import Version
from workers.fake.toolcalls import ToolReader

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}, "near": {"type": "boolean"}},
    "required": ["city", "days", "near"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
RESPONSES_TOOLS = [{"type": "function", "name": "get_weather", "parameters": PARAMETERS}]
CALL = [{"role": "user", "content": "[[call=get_weather,now]] please"}]
ARGUMENTS = {"city": "word", "days": 2, "near": False}


async def test_tools_are_called_on_the_trigger_streamed_as_plain() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        answer = await node.ok(CHAT, {"messages": CALL, "tools": TOOLS})
        calls = answer["choices"][0]["message"]["tool_calls"]
        assert [c["function"]["name"] for c in calls] == ["get_weather", "now"]
        assert json.loads(calls[0]["function"]["arguments"]) == ARGUMENTS
        assert answer["choices"][0]["message"]["content"] == ""
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        stream = await node.stream(CHAT, {"messages": CALL, "tools": TOOLS})
        deltas = [d for c in stream.chunks for d in c["choices"][0]["delta"].get("tool_calls", ())]
        joined = {0: "", 1: ""}
        for delta in deltas:
            joined[delta["index"]] += delta["function"].get("arguments", "")
        assert [json.loads(joined[0]), json.loads(joined[1])] == [ARGUMENTS, {}]
        assert stream.joined("content") == ""


async def test_stop_strings_leave_streamed_calls_whole() -> None:
    """Text that could begin a stop string is held back, so the marks of calls come in pieces (as smolagents asks)."""
    stops = ["Observation:", "Calling tools:"]
    async with serve_fake() as fake, node_client(fake.url) as node:
        plain = await node.ok(CHAT, {"messages": CALL, "tools": TOOLS})
        stream = await node.stream(CHAT, {"messages": CALL, "tools": TOOLS, "stop": stops})
        deltas = [chunk["choices"][0]["delta"] for chunk in stream.chunks if chunk["choices"]]
        told: dict[int, dict[str, str]] = {}
        for call in [call for delta in deltas for call in delta.get("tool_calls", ())]:
            kept = told.setdefault(call["index"], {"name": "", "arguments": ""})
            for key, piece in call["function"].items():
                kept[key] += piece
        assert list(told.values()) == [c["function"] for c in plain["choices"][0]["message"]["tool_calls"]]
        assert "<" not in "".join(delta.get("content") or "" for delta in deltas)
        assert stream.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@given(st.text(alphabet="<tol_ca>x\n", max_size=40), st.lists(st.integers(0, 60), max_size=6))
@settings(deadline=None)
def test_text_between_calls_is_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    call = "<tool_call>\n<function=now>\n</function>\n</tool_call>"
    assume("<tool_call>" not in text)
    whole = text + call
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    reader = ToolReader({})
    content = ""
    for start, end in itertools.pairwise(places):
        content += reader.feed(whole[start:end], last=end == len(whole))[0]
    assert content == text
    assert [(found["name"], found["arguments"]) for found in reader.calls] == [("now", "{}")]


async def test_a_tool_result_is_answered_in_words() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        first = await node.ok(CHAT, {"messages": CALL, "tools": TOOLS})
        message = first["choices"][0]["message"]
        turns = [*CALL, message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "rain"}]
        answer = await node.ok(CHAT, {"messages": turns, "tools": TOOLS})
        assert answer["choices"][0]["message"]["content"]
        assert answer["choices"][0]["finish_reason"] == "stop"


async def test_a_named_tool_finishes_with_stop_and_auto_needs_a_parser() -> None:
    choice = {"type": "function", "function": {"name": "now"}}
    async with serve_fake(FakeSettings(tool_parser=False)) as fake, node_client(fake.url) as node:
        refused = await node.post(CHAT, {"messages": CALL, "tools": TOOLS})
        assert refused.json()["error"]["message"].startswith('"auto" tool choice requires')
    async with serve_fake() as fake, node_client(fake.url) as node:
        answer = await node.ok(CHAT, {"messages": QUESTION, "tools": TOOLS, "tool_choice": choice})
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "now"
        assert answer["choices"][0]["finish_reason"] == "stop"


async def test_tokenize_renders_tools_and_template_arguments_as_chat_does() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        body: dict[str, Any] = {
            "messages": [{"role": "system", "content": "Be brief."}, *CALL],
            "tools": TOOLS,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        chat = await node.ok(CHAT, {**body, "return_token_ids": True})
        assert (await node.ok("/tokenize", body))["tokens"] == chat["prompt_token_ids"]


async def test_the_old_version_differs_as_the_real_one_does() -> None:
    async with serve_fake(FakeSettings(version="vllm-0.22")) as fake, node_client(fake.url) as node:
        assert (await node.http.get("/version")).json() == {"version": "0.22.0"}
        answer = await node.chat(thinking_token_budget=5)
        assert "completion_tokens_details" not in answer["usage"]
        assert answer["choices"][0]["message"]["tool_calls"] == []
        assert "metrics" not in answer
        stream = await node.chat_stream(stream_options={"include_usage": True})
        assert "completion_tokens_details" not in stream.chunks[-1]["usage"]
        body = {"model": node.model, "messages": QUESTION, "max_tokens": 2000}
        thinking = {"type": "enabled", "budget_tokens": 16}
        ignored = await node.ok("/v1/messages", {**body, "thinking": thinking})
        assert len(ignored["content"][0]["thinking"].split()) > 16


@pytest.mark.parametrize(
    ("asked", "items"),
    [
        ({"max_output_tokens": 4}, [("reasoning", "incomplete")]),
        ({"max_output_tokens": 30}, [("reasoning", "completed"), ("message", "incomplete")]),
        ({"tools": RESPONSES_TOOLS, "tool_choice": "required", "max_output_tokens": 40}, [("reasoning", "completed")]),
    ],
)
async def test_a_cut_response_is_incomplete_since_033(asked: dict[str, Any], items: list[tuple[str, str]]) -> None:
    body = {"input": "Hi", "prompt_cache_key": "k", "safety_identifier": "s", **asked}
    if "tools" in asked:
        items = [*items, ("function_call", "incomplete")]
    for version, ending in (("vllm-0.32", "response.completed"), ("vllm-0.33", "response.incomplete")):
        settings = FakeSettings(version=cast(Version, version), responses_store=False)
        async with serve_fake(settings) as fake, node_client(fake.url) as node:
            stream = await node.stream("/v1/responses", body)
            last, whole = stream.chunks[-1], await node.ok("/v1/responses", body)
            assert (last["type"], last["response"]["status"], whole["status"]) == (ending, "incomplete", "incomplete")
            told = [(item["type"], item["status"]) for item in last["response"]["output"]]
            if version == "vllm-0.32":
                assert {status for _, status in told} == {"completed"}
                assert "prompt_cache_key" not in whole
                continue
            assert told == items
            assert [(i["type"], i["status"]) for i in whole["output"]] == [
                (kind, None if kind == "reasoning" else status) for kind, status in items
            ]
            assert (whole["prompt_cache_key"], whole["safety_identifier"]) == ("k", "s")


async def test_errors_of_messages_have_anthropics_names_since_033() -> None:
    body = {"messages": QUESTION, "max_tokens": 5}
    async with serve_fake(FakeSettings(version="vllm-0.33")) as fake, node_client(fake.url) as node:
        assert (await node.http.get("/version")).json() == {"version": "0.33.0"}
        unknown = await node.post("/v1/messages", {**body, "model": "nope"})
        assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
        fake.set_faults(Fault("paused", next=2))
        paused = await node.post("/v1/messages", {**body, "model": node.model})
        assert (paused.status_code, paused.json()["error"]["type"]) == (503, "overloaded_error")
        chat = await node.post(CHAT, body)
        assert (chat.status_code, chat.json()["error"]["type"]) == (503, "ServiceUnavailableError")
        assert chat.json()["error"]["message"] == "Generation is paused. Please retry after it resumes."
        fake.set_faults(Fault("error_event", after=3, next=1))
        broken = await node.stream("/v1/messages", {**body, "max_tokens": 60, "model": node.model})
        assert broken.chunks[-1]["error"] == {
            "type": "api_error",
            "message": "The server had an error while processing your request.",
        }


async def test_a_disobedient_node_takes_the_budget_and_thinks_on() -> None:
    async with serve_fake(FakeSettings(budget="disobey")) as fake, node_client(fake.url) as node:
        answer = await node.chat(thinking_token_budget=5)
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 24


async def test_without_a_reasoning_parser_the_marks_stay_in_the_text() -> None:
    async with serve_fake(FakeSettings(reasoning_parser=False)) as fake, node_client(fake.url) as node:
        answer = await node.chat()
        message = answer["choices"][0]["message"]
        assert message["reasoning"] is None
        assert "</think>" in message["content"]
        assert (await node.chat_stream()).joined("content") == message["content"]
        refused = await node.post(CHAT, node.ask({"thinking_token_budget": 5}))
        assert refused.status_code == 400


async def test_the_older_name_of_the_reasoning_field() -> None:
    async with serve_fake(FakeSettings(reasoning_field="reasoning_content")) as fake, node_client(fake.url) as node:
        assert (await node.chat_stream()).joined("reasoning_content")
        assert (await node.chat())["choices"][0]["message"]["reasoning_content"]


async def test_responses_are_kept_continued_and_cancelled() -> None:
    async with serve_fake(FakeSettings(rate=50)) as fake, node_client(fake.url) as node:
        fast = {"input": "Hi", "max_output_tokens": 1, "request_id": "resp_a"}
        made = await node.ok("/v1/responses", fast)
        assert (await node.http.get("/v1/responses/resp_a")).json() == made
        await node.ok("/v1/responses", {**fast, "request_id": "resp_b", "previous_response_id": "resp_a"})
        sync = await node.post("/v1/responses/resp_a/cancel", {})
        assert sync.json()["error"]["message"] == "Cannot cancel a synchronous response."
        work = await node.ok("/v1/responses", {"input": "Hi", "background": True, "request_id": "resp_c"})
        assert work["status"] == "queued"
        await asyncio.sleep(0)
        cancelled = await node.post("/v1/responses/resp_c/cancel", {})
        assert cancelled.json()["status"] == "cancelled"
        await asyncio.sleep(0.01)
        assert fake.running == 0
        assert (await node.http.delete("/v1/responses/resp_a")).status_code == 405


async def test_background_work_is_done_and_a_node_without_a_store_refuses_it() -> None:
    body = {"input": "Hi", "background": True, "request_id": "resp_c"}
    async with serve_fake() as fake, node_client(fake.url) as node:
        await node.ok("/v1/responses", body)
        await asyncio.sleep(0.01)
        assert (await node.http.get("/v1/responses/resp_c")).json()["status"] == "completed"
    async with serve_fake(FakeSettings(responses_store=False)) as fake, node_client(fake.url) as node:
        assert (await node.post("/v1/responses", body)).json()["error"]["param"] == "background"
        await node.ok("/v1/responses", {"input": "Hi", "request_id": "resp_d"})
        assert (await node.http.get("/v1/responses/resp_d")).status_code == 404


async def test_api_keys_guard_v1_and_leave_the_rest_open() -> None:
    async with serve_fake(FakeSettings(api_key="secret")) as fake, httpx.AsyncClient(base_url=fake.url) as http:
        refused = await http.get("/v1/models")
        assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
        assert (await http.get("/v1/models", headers={"authorization": "Bearer secret"})).status_code == 200
        assert (await http.get("/health")).status_code == 200
        assert (await http.post("/tokenize", json={"prompt": "x"})).status_code == 200


async def test_several_names_are_served_and_the_first_is_told() -> None:
    settings = FakeSettings(models=("big", "big-alias"))
    async with serve_fake(settings) as fake, node_client(fake.url) as node:
        answer = await node.ok(CHAT, {"model": "big-alias", "messages": QUESTION})
        assert answer["model"] == "big"


async def test_the_openai_sdk_reads_plain_answers() -> None:
    async with serve_fake() as fake, AsyncOpenAI(base_url=f"{fake.url}/v1", api_key="x") as client:
        messages: Any = CALL
        tools: Any = TOOLS
        chat = await client.chat.completions.create(model="nemotron-3-ultra", messages=messages, tools=tools)
        shown = chat.to_dict()["choices"]
        assert json.loads(shown[0]["message"]["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS  # type: ignore[index]
        assert (await client.responses.create(model="nemotron-3-ultra", input="Hi")).output_text


async def test_the_openai_sdk_reads_streams() -> None:
    async with serve_fake() as fake, AsyncOpenAI(base_url=f"{fake.url}/v1", api_key="x") as client:
        messages: Any = CALL
        tools: Any = TOOLS
        async with client.chat.completions.stream(model="nemotron-3-ultra", messages=messages, tools=tools) as chat:
            calls = (await chat.get_final_completion()).choices[0].message.tool_calls
        assert calls is not None
        assert json.loads(calls[0].function.arguments) == ARGUMENTS
        async with client.responses.stream(model="nemotron-3-ultra", input="Hi") as responses:
            assert (await responses.get_final_response()).output_text


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_anthropic_sdk_reads_messages(streamed: bool) -> None:
    async with serve_fake() as fake, AsyncAnthropic(base_url=fake.url, api_key="x") as client:
        tools: Any = [{"name": "get_weather", "input_schema": PARAMETERS}]
        fields: Any = {"model": "nemotron-3-ultra", "max_tokens": 500, "messages": CALL, "tools": tools}
        if streamed:
            async with client.messages.stream(**fields) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**fields)
        assert [b.type for b in message.content] == ["thinking", "tool_use"]
        assert message.content[1].to_dict()["input"] == ARGUMENTS
        assert message.stop_reason == "tool_use"
