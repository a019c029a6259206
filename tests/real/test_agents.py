"""What coding agents ask for beside answers, of a gateway before a real vLLM: counts, compactions, kept thoughts."""

import json
from typing import Any

import anthropic
import openai
import pytest

from gateway.core.dialects.opaque_text import COMPACTION, REASONING, decode_text
from tests.real.conftest import Server
from tests.real.transparency_cases import MESSAGES_TOOLS, MODEL, RESPONSES_TOOLS
from tests.support.meaning import events_of

pytestmark = pytest.mark.real

RESPONSES, COMPACT, COUNT = "/v1/responses", "/v1/responses/compact", "/v1/responses/input_tokens"
FRANCE: dict[str, Any] = {"role": "user", "content": "What is the capital of France?"}
CALL = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris", "days": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "Sunny"}
OFF = {"effort": "none"}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "France."}]}
PROMPTS: list[dict[str, Any]] = [
    {"input": "What is the capital of France?"},
    {"input": [FRANCE], "instructions": "Be brief.", "reasoning": OFF},
    {"input": [FRANCE, THOUGHT, CALL, OUTPUT], "tools": RESPONSES_TOOLS},
    {"input": [FRANCE], "tools": RESPONSES_TOOLS, "reasoning": {"effort": "low"}},
]


def post(server: Server, path: str, **body: Any) -> Any:
    """The answer, or the events of a stream."""
    with server.client() as client:
        got = client.post(path, json={"model": MODEL, "temperature": 0, **body})
    assert got.is_success, got.text
    return events_of(got.content) if body.get("stream") else got.json()


@pytest.mark.parametrize("body", PROMPTS)
def test_a_prompt_is_counted_as_its_response_will_be(body: dict[str, Any], vllm: Server, gateway: Server) -> None:
    counted = post(gateway, COUNT, **body)
    answered = post(vllm, RESPONSES, **body, max_output_tokens=1, store=False)
    assert counted == {"object": "response.input_tokens", "input_tokens": answered["usage"]["input_tokens"]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_session_goes_on_from_its_summary(stream: bool, gateway: Server) -> None:
    asked: dict[str, Any] = {"tools": RESPONSES_TOOLS, "reasoning": OFF, "max_output_tokens": 40}
    made = post(gateway, COMPACT, input=[FRANCE, CALL, OUTPUT], **asked)
    assert [item["type"] for item in made["output"]] == ["message", "compaction"]
    by_trigger = [FRANCE, CALL, OUTPUT, {"type": "compaction_trigger"}]
    told = post(gateway, RESPONSES, input=by_trigger, stream=stream, store=False, **asked)
    whole = told[-1]["response"] if stream else told
    assert [item["type"] for item in whole["output"]] == ["compaction"]
    for output in (made["output"], whole["output"]):
        assert decode_text(COMPACTION, output[-1]["encrypted_content"])
        gone_on = post(gateway, RESPONSES, input=[*output, FRANCE], **asked)
        assert gone_on["usage"]["input_tokens"] > 40


def test_a_kept_thought_is_part_of_the_prompt(vllm: Server, gateway: Server) -> None:
    keeping: dict[str, Any] = {"include": ["reasoning.encrypted_content"], "store": False}
    made = post(gateway, RESPONSES, input=[FRANCE], **keeping, max_output_tokens=12, stream=True)[-1]["response"]
    thought = made["output"][0]
    text = decode_text(REASONING, thought["encrypted_content"])
    assert text == thought["content"][0]["text"] != ""
    codexs = {"type": "reasoning", "summary": [], "encrypted_content": thought["encrypted_content"]}
    shown = {"type": "reasoning", "summary": [], "content": thought["content"]}
    items = [[FRANCE, each, CALL, OUTPUT] for each in (codexs, shown)]
    counts = [post(gateway, COUNT, input=each, tools=RESPONSES_TOOLS)["input_tokens"] for each in items]
    native = post(vllm, RESPONSES, input=items[1], tools=RESPONSES_TOOLS, max_output_tokens=1, store=False)
    assert counts == [native["usage"]["input_tokens"]] * 2


def test_a_truncated_response_ends_as_openais(passing: Server, gateway: Server) -> None:
    for server in (passing, gateway):
        events = post(server, RESPONSES, input=[FRANCE], max_output_tokens=4, stream=True)
        assert events[-1]["type"] == "response.incomplete"
        assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_messages_of_anthropics_sdk(passing: Server, gateway: Server) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}}
    for server in (passing, gateway):
        with anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0) as client:
            asked: Any = {"model": MODEL, "max_tokens": 60, "messages": [FRANCE], "extra_body": {"temperature": 0}}
            off: Any = {"type": "between_tools"}
            plain = client.messages.create(**asked, thinking=off, output_config=form)  # type: ignore[call-overload]
            assert isinstance(json.loads(plain.content[0].text)["n"], int)
            with client.messages.stream(**asked, thinking=off, tools=MESSAGES_TOOLS) as stream:
                assert "thinking" not in {event.type for event in stream}
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="x", max_retries=0) as client,
        client.beta.messages.stream(**asked, betas=["of-2031-01-01"]) as stream,
    ):
        usage = stream.get_final_message().usage
    assert usage.output_tokens_details is not None
    assert 0 < usage.output_tokens_details.thinking_tokens <= usage.output_tokens


def test_openais_sdk(gateway: Server) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
        counted = client.responses.input_tokens.count(model=MODEL, input="hello")
        asked: Any = {"extra_body": {"reasoning": OFF, "max_output_tokens": 40}}
        compacted = client.responses.compact(model=MODEL, input="hello", **asked)
    assert counted.input_tokens > 0
    assert compacted.output[-1].type == "compaction" and compacted.usage.output_tokens > 0
