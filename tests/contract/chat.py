"""Promises of /v1/chat/completions."""

import json
from typing import Any

from tests.contract.client import CHAT, QUESTION, USAGE, NodeClient

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


async def chat_plain(node: NodeClient) -> None:
    """A plain chat answer has vLLM's members in vLLM's order."""
    answer = await node.chat(thinking_token_budget=10)
    assert list(answer) == [
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
    ]  # fmt: skip
    choice = answer["choices"][0]
    assert list(choice) == [
        "index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"
    ]  # fmt: skip
    assert list(choice["message"]) == [
        "role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"
    ]  # fmt: skip
    assert choice["message"]["reasoning"]
    assert choice["message"]["content"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] <= 10
    assert answer["id"].startswith("chatcmpl-")
    assert answer["system_fingerprint"].startswith("vllm-0.")


async def chat_stream(node: NodeClient) -> None:
    """A chat stream: role, reasoning, content, the finish with the fingerprint, [DONE]."""
    stream = await node.chat_stream(thinking_token_budget=10)
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["transfer-encoding"] == "chunked"
    assert stream.events[-1].data == "[DONE]"
    first, *rest = stream.chunks
    assert list(first) == ["id", "object", "created", "model", "choices", "prompt_token_ids", "prompt_text"]
    role = {"role": "assistant", "content": ""}
    assert first["choices"] == [{"index": 0, "delta": role, "logprobs": None, "finish_reason": None}]
    kinds = [next(iter(c["choices"][0]["delta"]), "") for c in rest]
    assert kinds == sorted(kinds, key=["reasoning", "content", ""].index)
    for chunk in rest[:-1]:
        assert list(chunk) == ["id", "object", "created", "model", "choices"]
        assert list(chunk["choices"][0]) == ["index", "delta", "logprobs", "finish_reason", "token_ids"]
        assert chunk["choices"][0]["token_ids"] is None
    last = rest[-1]
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert list(last["choices"][0])[-2:] == ["stop_reason", "token_ids"]
    assert list(last)[-1] == "system_fingerprint"
    assert len({c["id"] for c in stream.chunks}) == 1


async def chat_stream_usage(node: NodeClient) -> None:
    """The usage event: no choices, the fingerprint on it and not on the finish, directly before [DONE]."""
    stream = await node.chat_stream(thinking_token_budget=10, stream_options=USAGE)
    *_, finish, usage = stream.chunks
    assert usage["choices"] == []
    assert list(usage)[-2:] == ["usage", "system_fingerprint"]
    assert usage["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 10
    assert "system_fingerprint" not in finish
    assert all("usage" not in c for c in stream.chunks[:-1])


async def chat_running_usage(node: NodeClient) -> None:
    """Running usage needs include_usage; then every chunk has it."""
    without = await node.chat_stream(max_tokens=4, stream_options={"continuous_usage_stats": True})
    assert all("usage" not in c for c in without.chunks)
    both = await node.chat_stream(max_tokens=4, stream_options={**USAGE, "continuous_usage_stats": True})
    assert all("usage" in c for c in both.chunks)
    assert both.chunks[0]["usage"]["completion_tokens"] == 0
    assert [c["usage"]["completion_tokens"] for c in both.chunks[1:]] == [1, 2, 3, 4, 4]


async def chat_token_ids(node: NodeClient) -> None:
    """Token ids: the prompt's in the first chunk, as /tokenize counts them; every output token once."""
    stream = await node.chat_stream(thinking_token_budget=8, return_token_ids=True, stream_options=USAGE)
    tokens = await node.ok("/tokenize", {"model": node.model, "messages": QUESTION})
    assert stream.chunks[0]["prompt_token_ids"] == tokens["tokens"]
    assert tokens["count"] == len(tokens["tokens"]) == stream.chunks[-1]["usage"]["prompt_tokens"]
    assert len(stream.token_ids()) == stream.chunks[-1]["usage"]["completion_tokens"]
    assert all(c["choices"][0]["token_ids"] for c in stream.chunks[1:-1])


async def budgets(node: NodeClient) -> None:
    """A thinking budget is never passed, and an answer follows."""
    for budget in (0, 1, 5, 16):
        answer = await node.chat(thinking_token_budget=budget)
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= budget
        assert answer["choices"][0]["message"]["content"]


async def no_thinking(node: NodeClient) -> None:
    """Thinking can be switched off in two ways, and hidden in one."""
    off: tuple[dict[str, Any], ...] = (
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
    )
    for fields in off:
        answer = await node.chat(**fields, max_tokens=20)
        assert answer["choices"][0]["message"]["reasoning"] is None
        assert answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    hidden = await node.chat_stream(include_reasoning=False, thinking_token_budget=8)
    assert hidden.joined("reasoning") == ""
    assert hidden.joined("content")


async def lengths(node: NodeClient) -> None:
    """max_tokens and max_completion_tokens end an answer with finish_reason length."""
    for name in ("max_tokens", "max_completion_tokens"):
        answer = await node.chat(**{name: 5, "ignore_eos": True})
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 5


async def stop_strings(node: NodeClient) -> None:
    """A stop string ends the answer before it, and is told; streamed as well as plain."""
    fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 12}
    free = (await node.chat(**fields))["choices"][0]["message"]["content"]
    stop = free[len(free) // 2 :][:5]
    answer = await node.chat(**fields, stop=[stop])
    assert answer["choices"][0]["stop_reason"] == stop
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] == free[: free.index(stop)]
    stream = await node.chat_stream(**fields, stop=[stop])
    assert stream.joined("content") == free[: free.index(stop)]
    assert stream.chunks[-1]["choices"][0]["stop_reason"] == stop


async def several_choices(node: NodeClient) -> None:
    """n=2: two choices, streamed as two role chunks and two finishes; refused when greedy."""
    fields: dict[str, Any] = {"n": 2, "temperature": 1.0, "seed": 7, "max_tokens": 4}
    answer = await node.chat(**fields)
    assert [c["index"] for c in answer["choices"]] == [0, 1]
    stream = await node.chat_stream(**fields)
    assert sorted(c["choices"][0]["index"] for c in stream.chunks[:2]) == [0, 1]
    assert sum(c["choices"][0]["finish_reason"] is not None for c in stream.chunks) == 2
    refused = await node.post(CHAT, node.ask({"n": 2}))
    assert refused.json()["error"]["message"] == "n must be 1 when using greedy sampling, got 2."


async def logprobs(node: NodeClient) -> None:
    """Logprobs of a chat, one entry a token."""
    answer = await node.chat(max_tokens=3, logprobs=True, top_logprobs=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 3
    assert list(content[0]) == ["token", "logprob", "bytes", "top_logprobs"]
    assert len(content[0]["top_logprobs"]) == 2


async def tools(node: NodeClient) -> None:
    """A required tool call: whole, and in pieces that join to the same kind of thing."""
    fields: dict[str, Any] = {
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": "required",
        "thinking_token_budget": 8,
        "max_tokens": 200,
    }
    answer = (await node.chat(**fields))["choices"][0]
    call = answer["message"]["tool_calls"][0]
    assert list(call) == ["id", "type", "function"]
    assert call["id"].startswith("chatcmpl-tool-")
    assert call["function"]["name"] == "get_weather"
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert answer["finish_reason"] == "tool_calls"
    stream = await node.chat_stream(**fields)
    deltas = [d for c in stream.chunks for d in c["choices"][0]["delta"].get("tool_calls", ())]
    assert list(deltas[0]) == ["id", "type", "index", "function"]
    assert deltas[0]["function"] == {"name": "get_weather"}
    assert isinstance(json.loads("".join(d["function"]["arguments"] for d in deltas[1:])), dict)
    assert stream.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def json_schema(node: NodeClient) -> None:
    """A JSON schema is kept, after a thought that a budget ended."""
    schema = {"type": "object", "properties": {"ok": {"enum": ["yes", "no"]}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await node.chat(response_format=wanted, thinking_token_budget=8, max_tokens=100)
    assert json.loads(answer["choices"][0]["message"]["content"])["ok"] in ("yes", "no")
