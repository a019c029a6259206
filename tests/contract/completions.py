"""Promises of /v1/completions: raw text, and going on where a stream broke."""

from tests.contract.client import COMPLETIONS, USAGE, NodeClient


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
