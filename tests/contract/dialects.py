"""Promises of messages and responses."""

from tests.contract.client import QUESTION, NodeClient


async def messages_plain(node: NodeClient) -> None:
    """A plain message, and the count of its prompt."""
    body = {"model": node.model, "messages": QUESTION, "max_tokens": 60, "temperature": 0}
    answer = await node.ok("/v1/messages", body)
    assert list(answer)[:7] == ["id", "type", "role", "content", "model", "stop_reason", "usage"]
    assert list(answer["content"][0]) == ["type", "thinking", "signature"]
    count = await node.ok("/v1/messages/count_tokens", {"model": node.model, "messages": QUESTION})
    usage = answer["usage"]
    cache = usage.get("cache_read_input_tokens", 0) + usage.get("cache_creation_input_tokens", 0)
    assert count["input_tokens"] == usage["input_tokens"] + cache
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
