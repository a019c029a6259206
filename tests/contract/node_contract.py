"""What a vLLM 0.32 node answers, as assertions that hold on a real one and on the fake one.

Each function is one promise; `PROMISES` lists them all. They know nothing of the model but that it thinks and answers.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.contract.client import QUESTION, NodeClient

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
USAGE = {"include_usage": True}


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


async def completions_plain(node: NodeClient) -> None:
    """A plain completion."""
    body = {"model": node.model, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0}
    answer = await node.ok(COMPLETIONS, body)
    assert list(answer["choices"][0]) == [
        "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs",
        "prompt_token_ids", "routed_experts",
    ]  # fmt: skip
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["usage"]["completion_tokens_details"] is None


async def completions_stream(node: NodeClient) -> None:
    """A completion stream: no role chunk; the last text carries the finish; ids in the choice."""
    body = {"model": node.model, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0}
    stream = await node.stream(COMPLETIONS, {**body, "return_token_ids": True, "ignore_eos": True})
    assert stream.events[-1].data == "[DONE]"
    assert len(stream.chunks) == 5
    first, last = stream.chunks[0], stream.chunks[-1]
    assert list(first["choices"][0]) == [
        "index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids"
    ]  # fmt: skip
    assert first["choices"][0]["prompt_token_ids"]
    assert all(c["choices"][0]["prompt_token_ids"] is None for c in stream.chunks[1:])
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["text"]
    assert "system_fingerprint" in last
    with_usage = await node.stream(COMPLETIONS, {**body, "stream_options": USAGE})
    assert list(with_usage.chunks[-1]["usage"])[:3] == ["prompt_tokens", "total_tokens", "completion_tokens"]
    assert "completion_tokens_details" not in with_usage.chunks[-1]["usage"]


async def resume(node: NodeClient) -> None:
    """Prompt ids with output ids behind them go on where the stream broke, also in the midst of thinking."""
    whole = await node.chat_stream(thinking_token_budget=12, max_tokens=40, return_token_ids=True)
    prompt, ids = whole.chunks[0]["prompt_token_ids"], whole.token_ids()
    for made in (3, len(ids) - 5):
        body = {
            "model": node.model,
            "prompt": [*prompt, *ids[:made]],
            "temperature": 0,
            "thinking_token_budget": 12,
            "max_tokens": 40 - made,
            "skip_special_tokens": False,
            "return_token_ids": True,
        }
        rest = await node.stream(COMPLETIONS, body)
        assert rest.token_ids() == ids[made:]
        if made == 3:
            assert "</think>" in "".join(c["choices"][0]["text"] for c in rest.chunks)


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


async def messages_plain(node: NodeClient) -> None:
    """A plain message, and the count of its prompt."""
    body = {"model": node.model, "messages": QUESTION, "max_tokens": 60, "temperature": 0}
    answer = await node.ok("/v1/messages", body)
    assert list(answer)[:7] == ["id", "type", "role", "content", "model", "stop_reason", "usage"]
    assert list(answer["content"][0]) == ["type", "thinking", "signature"]
    count = await node.ok("/v1/messages/count_tokens", {"model": node.model, "messages": QUESTION})
    usage = answer["usage"]
    assert count["input_tokens"] == usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
    assert list(count) == ["input_tokens", "context_management"]


async def messages_stream(node: NodeClient) -> None:
    """A message stream: blocks are opened, filled and closed; no [DONE]."""
    body = {"model": node.model, "messages": QUESTION, "max_tokens": 60, "temperature": 0}
    stream = await node.stream("/v1/messages", body)
    names = [e.name for e in stream.events]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert all(e.json["type"] == e.name for e in stream.events)
    assert stream.chunks[0]["message"]["usage"]["output_tokens"] == 0
    deltas = [c["delta"]["type"] for c in stream.chunks if c["type"] == "content_block_delta"]
    assert deltas[0] == "thinking_delta"
    assert deltas.count("signature_delta") == 1
    off = await node.stream("/v1/messages", {**body, "thinking": {"type": "disabled"}})
    assert off.chunks[1]["content_block"] == {"type": "text", "text": ""}


async def responses_plain(node: NodeClient) -> None:
    """A plain response; the body's request_id is its id."""
    body = {"model": node.model, "input": "Hi", "max_output_tokens": 30, "temperature": 0, "request_id": "resp_own1"}
    answer = await node.ok("/v1/responses", body)
    assert answer["id"] == "resp_own1"
    assert list(answer)[:8] == [
        "id", "created_at", "incomplete_details", "instructions", "metadata", "model", "object", "output"
    ]  # fmt: skip
    assert list(answer)[-4:] == ["kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages"]
    assert answer["output"][0]["type"] == "reasoning"
    assert answer["status"] in ("completed", "incomplete")
    cut = await node.ok("/v1/responses", {**body, "max_output_tokens": 2, "request_id": "resp_own2"})
    assert cut["status"] == "incomplete"
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}


async def responses_stream(node: NodeClient) -> None:
    """A response stream: numbered events from created to completed; no [DONE]."""
    body = {"model": node.model, "input": "Hi", "max_output_tokens": 30, "temperature": 0}
    stream = await node.stream("/v1/responses", body)
    assert [c["sequence_number"] for c in stream.chunks] == list(range(len(stream.chunks)))
    names = [e.name.removeprefix("response.") for e in stream.events]
    assert names[:5] == ["created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta"]
    assert names[-2:] == ["output_item.done", "completed"]
    assert all(e.json["type"] == e.name for e in stream.events)
    assert stream.chunks[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


async def unknown_response(node: NodeClient) -> None:
    """A response that the node does not hold is a 404 in OpenAI's words."""
    for answer in (
        await node.http.get("/v1/responses/resp_nope"),
        await node.post("/v1/responses/resp_nope/cancel", {}),
        await node.post("/v1/responses", {"input": "Hi", "previous_response_id": "resp_nope"}),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "message": "Response with id 'resp_nope' not found.",
            "type": "invalid_request_error",
            "param": "response_id",
            "code": 404,
        }


async def small_endpoints(node: NodeClient) -> None:
    """Health, version, models, detokenize, and what is not there."""
    health = await node.http.get("/health")
    assert (health.status_code, health.content) == (200, b"")
    assert list((await node.http.get("/version")).json()) == ["version"]
    card = (await node.http.get("/v1/models")).json()["data"][0]
    assert list(card) == [
        "id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"
    ]  # fmt: skip
    tokens = await node.ok("/tokenize", {"model": node.model, "prompt": "hello world, 3 times: é"})
    back = await node.ok("/detokenize", {"model": node.model, "tokens": tokens["tokens"]})
    assert back == {"prompt": "hello world, 3 times: é"}
    assert list(tokens) == ["count", "max_model_len", "tokens", "token_strs"]
    for response in (await node.http.get("/v1/nope"), await node.post("/v1/embeddings", {"input": "x"})):
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    wrong = await node.http.get(CHAT)
    assert (wrong.status_code, wrong.json(), wrong.headers["allow"]) == (405, {"detail": "Method Not Allowed"}, "POST")


async def metrics(node: NodeClient) -> None:
    """The metrics that a router reads."""
    text = (await node.http.get("/metrics")).text
    for name in (
        "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries_total",
        "prefix_cache_hits_total", "num_preemptions_total",
    ):  # fmt: skip
        assert f"\nvllm:{name}{{" in text


async def prefix_cache(node: NodeClient) -> None:
    """A prompt that was there before is found in the cache, in whole blocks."""
    words = "and the river runs north along the old stone road to the sea "
    body = {"model": node.model, "prompt": f"{time.time_ns()} {words * 60}", "max_tokens": 1}
    await node.ok(COMPLETIONS, body)
    before = await _metric(node, "prefix_cache_hits_total")
    await node.ok(COMPLETIONS, body)
    assert await _metric(node, "prefix_cache_hits_total") > before


async def client_leaves(node: NodeClient) -> None:
    """Whoever hangs up frees the node within two seconds, on a stream and on a plain call."""
    body = node.ask({"max_tokens": 2000, "ignore_eos": True})
    for stream in (True, False):
        task = asyncio.create_task(node.post(CHAT, {**body, "stream": stream}))
        await _until(node, running=1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await _until(node, running=0.0)


async def _until(node: NodeClient, running: float) -> None:
    deadline = time.monotonic() + 2.0
    while await _metric(node, "num_requests_running") != running:
        assert time.monotonic() < deadline, f"running is not {running}"
        await asyncio.sleep(0.02)


async def _metric(node: NodeClient, name: str) -> float:
    text = (await node.http.get("/metrics")).text
    return sum(float(li.rsplit(" ", 1)[1]) for li in text.split("\n") if li.startswith(f"vllm:{name}{{"))


def _schema_error(kind: str, loc: str, message: str, shown: str, more: str = "") -> str:
    return f"1 validation error:\n  {{'type': '{kind}', 'loc': '{loc}', 'msg': '{message}', 'input': '{shown}'{more}}}"


_DICTIONARY = "Input should be a valid dictionary or object to extract fields from"
_NUMBER = "Input should be a valid number, unable to parse string as a number"


async def errors(node: NodeClient) -> None:
    """Refusals, word for word."""
    hot = _schema_error("float_parsing", "body.temperature", _NUMBER, "hot")
    no_list = _schema_error("model_attributes_type", "body", _DICTIONARY, "<list of 1 items>")
    missing = _schema_error("missing", "body.messages", "Field required", "<dict of 0 items>")
    options = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
    prompt = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
    choice = "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)"
    budget = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
    wrong_budget = f"{budget} (parameter=thinking_token_budget, value=-5)"
    wizard = [{"role": "wizard", "content": "x"}]
    cold = "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"
    table: tuple[tuple[str, Any, str, str, str | None], ...] = (
        (CHAT, [1], no_list, "Bad Request", "body"),
        (CHAT, {}, missing, "Bad Request", "body.messages"),
        (CHAT, node.ask({"temperature": "hot"}), hot, "Bad Request", "body.temperature"),
        (CHAT, node.ask({"temperature": -1}), cold, "BadRequestError", "temperature"),
        (CHAT, node.ask({"n": 0}), "n must be at least 1, got 0.", "BadRequestError", None),
        (CHAT, node.ask({"stream_options": USAGE}), options, "BadRequestError", "stream_options"),
        (CHAT, node.ask({"tool_choice": "auto"}), choice, "BadRequestError", "tool_choice"),
        (CHAT, node.ask({"thinking_token_budget": -5}), wrong_budget, "BadRequestError", "thinking_token_budget"),
        (CHAT, {"messages": wizard}, "Unexpected message role: wizard", "BadRequestError", None),
        (COMPLETIONS, {}, prompt, "BadRequestError", "prompt"),
    )  # fmt: skip
    for path, body, message, kind, param in table:
        response = await node.post(path, body)
        assert response.status_code == 400
        assert response.json()["error"] == {"message": message, "type": kind, "param": param, "code": 400}


async def more_errors(node: NodeClient) -> None:
    """Unknown model, no JSON, wrong content type, too long, on all four dialects."""
    text = "The model `nope` does not exist. Valid aliases: "
    for path, body in (
        (CHAT, {"messages": QUESTION}),
        (COMPLETIONS, {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 5}),
    ):
        unknown = await node.post(path, {**body, "model": "nope"})
        assert unknown.status_code == 404
        assert unknown.json()["error"]["message"].startswith(text)
        assert unknown.json()["error"]["type"] == "NotFoundError"
        assert ("type" in unknown.json()) == (path == "/v1/messages")
        broken = await node.http.post(path, content=b"{nope", headers={"content-type": "application/json"})
        assert broken.status_code == 400
        assert broken.json()["error"]["param"] == "body.1"
        plain = await node.http.post(path, content=b"{}", headers={"content-type": "text/plain"})
        assert "Only 'application/json' is allowed" in plain.json()["error"]["message"]
    window = (await node.http.get("/v1/models")).json()["data"][0]["max_model_len"]
    long = [{"role": "user", "content": "word " * (window + 200)}]
    for stream in (False, True):
        refused = await node.post(CHAT, {"messages": long, "stream": stream})
        assert refused.json()["error"]["param"] == "input_tokens"
        assert refused.json()["error"]["message"].startswith(f"This model's maximum context length is {window} tokens.")
    over = (await node.post(CHAT, node.ask({"max_tokens": window + 1}))).json()["error"]
    assert over["param"] == "max_tokens"
    missing = (await node.post("/v1/messages", {})).json()["error"]
    assert missing["param"] == "body.model"
    assert missing["message"].startswith("3 validation errors:")
    small = {"messages": QUESTION, "max_tokens": 50, "model": node.model}
    budget = await node.post("/v1/messages", {**small, "thinking": {"type": "enabled", "budget_tokens": 16}})
    assert budget.json()["error"]["param"] == "body.thinking.enabled.budget_tokens"


Promise = Callable[[NodeClient], Awaitable[None]]
PROMISES: tuple[Promise, ...] = (
    chat_plain, chat_stream, chat_stream_usage, chat_running_usage, chat_token_ids, completions_plain,
    completions_stream, resume, budgets, no_thinking, lengths, stop_strings, several_choices, logprobs, tools,
    json_schema, messages_plain, messages_stream, responses_plain, responses_stream, unknown_response,
    small_endpoints, metrics, prefix_cache, client_leaves, errors, more_errors,
)  # fmt: skip
