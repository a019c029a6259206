"""Chat answers as vLLM 0.32 sends them, in its own words and its own order, and what came out of their translation."""

import json
from collections.abc import Mapping
from typing import Any

from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.http.sse import event_data, split_events

ID = "chatcmpl-8c11c1cf51de2f7a"
HEAD: dict[str, Any] = {"id": ID, "object": "chat.completion.chunk", "created": 1795560849, "model": "nemotron-3-ultra"}
USAGE = {
    "prompt_tokens": 18,
    "total_tokens": 26,
    "completion_tokens": 8,
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def delta(finish: str | None = None, stop: object = None, logprobs: object = None, **fields: Any) -> bytes:
    """One chunk with one choice; `finish` and `stop` are its finish and stop reasons."""
    choice = {"index": 0, "delta": fields, "logprobs": logprobs, "finish_reason": finish, "token_ids": None}
    return event(HEAD | {"choices": [choice | ({"stop_reason": stop} if finish else {})]})


def opening(usage: bool = True) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    read = {"prompt_tokens": 18, "total_tokens": 18, "completion_tokens": 0}
    return event(HEAD | {"choices": [choice], "prompt_token_ids": None} | ({"usage": read} if usage else {}))


def ending(usage: Mapping[str, Any] | None = USAGE) -> bytes:
    """The usage chunk and `[DONE]`."""
    told = event(HEAD | {"choices": [], "usage": usage, "system_fingerprint": "vllm-0.32.0-55ac9c02"}) if usage else b""
    return told + b"data: [DONE]\n\n"


def call(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> dict[str, Any]:
    """A piece of a tool call; its first one has a name and an id."""
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"index": index, "function": function} | ({"id": call_id, "type": "function"} if call_id else {})


THOUGHT = (
    opening()
    + delta(reasoning="The")
    + delta(reasoning=" capital of")
    + delta(content="France is")
    + delta(content=" 🌍\nParis", finish="stop")
    + ending()
)
"""Thinking, then an answer."""

CALLED = (
    opening()
    + delta(content="Let me see.")
    + delta(tool_calls=[call(0, "", "get_weather", "chatcmpl-tool-b1")])
    + delta(tool_calls=[call(0, '{"city": "')])
    + delta(tool_calls=[call(0, 'Paris"}'), call(1, '{"zone"', "get_time", "chatcmpl-tool-b2")])
    + delta(tool_calls=[call(1, ": 1}")])
    + delta(finish="tool_calls")
    + ending()
)
"""Two tools called, the second beginning in the event that ends the first."""

CUT = THOUGHT[: -len(b"data: [DONE]\n\n")]
FAILED = opening() + delta(reasoning="The") + event({"error": {"message": "engine died", "code": 500}}) + ending(None)


def plain(finish: str = "stop", stop: object = None, **message: Any) -> bytes:
    """A plain chat answer."""
    told = {"role": "assistant", "content": None, "refusal": None, "reasoning": None, **message}
    choice = {"index": 0, "message": told, "logprobs": None, "finish_reason": finish, "stop_reason": stop}
    return json.dumps(HEAD | {"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def translated(stream_filter: StreamFilter, *pieces: bytes) -> list[dict[str, Any]]:
    """The data of the events that came out; each event's name is its type."""
    told = b"".join(stream_filter.feed(piece) for piece in pieces) + stream_filter.flush()
    events = []
    for raw in split_events(told):
        data = json.loads(event_data(raw))
        assert raw.startswith(b"event: " + data["type"].encode() + b"\n")
        events.append(data)
    return events
