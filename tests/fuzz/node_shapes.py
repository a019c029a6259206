"""Answers of a node as they should be, in every dialect."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MODEL = "nemotron-3-ultra"
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "completion_tokens_details": {"reasoning_tokens": 3},
    "prompt_tokens_details": {"cached_tokens": 2},
}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
CALL = {"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": '{"a": 1}'}}
RAW = {
    "@nan": "NaN",
    "@infinity": "-Infinity",
    "@huge": "9" * 400,
    "@digits": "9" * 5000,
    "@exponent": "1e400",
    "@surrogate": '"\\ud800"',
    "@deep": "[" * 300 + "]" * 300,
    "@deeper": "[" * 1500 + "]" * 1500,
    "@objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "@open": "[" * 100_000,
}
"""Values that Python's own JSON has no way to write, by the strings that stand for them."""

THINKING = 130
"""Events of it: more than any budget here and its slack."""


@dataclass(frozen=True)
class Shape:
    """One answer of a node: its events, or its one document."""

    stream: bool
    documents: list[Any]

    def body(self, end: bytes = b"\n") -> bytes:
        if not self.stream:
            return b"".join(map(_dump, self.documents))
        return b"".join(_event(document, end) for document in self.documents)

    def head(self, status: bytes = b"200 OK", headers: Sequence[bytes] = ()) -> bytes:
        """The head, less what says how long the body is, and without its end."""
        kind = b"text/event-stream; charset=utf-8" if self.stream else b"application/json"
        return b"\r\n".join([b"HTTP/1.1 " + status, b"content-type: " + kind, *headers])

    def whole(self) -> bytes:
        body = self.body()
        return self.head() + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _dump(document: Any) -> bytes:
    """JSON, with what stands in `RAW` in its place."""
    if isinstance(document, bytes):
        return document
    text = json.dumps(document)
    for raw, said in RAW.items():
        text = text.replace(f'"{raw}"', said)
    return text.encode()


def _event(document: Any, end: bytes) -> bytes:
    if isinstance(document, bytes):
        return document.replace(b"\n", end)
    name = document.get("type") if isinstance(document, dict) else None
    first = b"event: " + name.encode(errors="replace") + end if isinstance(name, str) and name.isprintable() else b""
    return first + b"data: " + _dump(document) + end + end


def answer_of(path: str, asked: dict[str, Any]) -> Shape:
    """As a good node answers."""
    stream = asked.get("stream") is True
    if "count_tokens" in path:
        return Shape(False, [{"input_tokens": 9}])
    if path.startswith("/tokenize"):
        text = asked.get("prompt")
        return Shape(False, [{"count": 1, "tokens": [13] if text == "</think>" else [12]}])
    if "embeddings" in path:
        return Shape(False, [{"object": "list", "data": [{"embedding": [0.1], "index": 0}], "usage": USAGE}])
    if "/messages" in path:
        return Shape(stream, _messages() if stream else [MESSAGE])
    if "/responses" in path:
        return Shape(stream, _responses() if stream else [RESPONSE])
    if stream:
        return Shape(True, _chunks("/chat/" in path, asked))
    message = {"role": "assistant", "content": "hello", "reasoning": "think", "tool_calls": [CALL]}
    said = {"message": message} if "/chat/" in path else {"text": "hello"}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop", "stop_reason": None, "token_ids": [1]}
    return Shape(False, [{**CHUNK, "object": "chat.completion", "choices": [choice], "usage": USAGE}])


MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "thinking", "thinking": "t", "signature": ""}, {"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 7},
}
RESPONSE: dict[str, Any] = {
    "id": "r",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "hello", "annotations": []}]},
    ],
    "usage": {"input_tokens": 9, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}},
}


def _messages() -> list[Any]:
    def block(index: int, kind: str) -> list[Any]:
        delta = {"type": f"{kind}_delta", kind: "x"}
        return [
            {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]

    start = {"type": "message_start", "message": {**MESSAGE, "content": []}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    return [start, *block(0, "thinking"), *block(1, "text"), delta, {"type": "message_stop"}]


def _responses() -> list[Any]:
    events: list[Any] = [{"type": "response.created", "response": {**RESPONSE, "output": []}}]
    for index, item in enumerate(RESPONSE["output"]):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        kind = "reasoning_text" if index == 0 else "output_text"
        events.append({"type": f"response.{kind}.delta", "output_index": index, "content_index": 0, "delta": "x"})
    events.append({"type": "response.completed", "response": RESPONSE})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _chunks(chat: bool, asked: dict[str, Any]) -> list[Any]:
    ids = bool(asked.get("return_token_ids"))

    def chunk(delta: dict[str, Any], token: int | None, finish: str | None = None) -> Any:
        said = {"delta": delta} if chat else {"text": "".join(map(str, delta.values()))}
        told = [token] if ids and token is not None else None
        return {
            **CHUNK,
            "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish, "token_ids": told}],
        }

    first = chunk({"role": "assistant", "content": ""}, None) if chat else chunk({}, None)
    opening = {**first, "prompt_token_ids": [1, 2, 12]} if ids else first
    thinking = [chunk({"reasoning": f"t{number}"}, 20 + number) for number in range(THINKING if chat else 6)]
    call = {"tool_calls": [CALL]} if chat and asked.get("tools") else {"content": "lo"}
    usage = {**CHUNK, "choices": [], "usage": USAGE}
    done = b"data: [DONE]\n\n"
    return [opening, *thinking, chunk({"content": "hel"}, 13), chunk(call, 5), chunk({}, None, "stop"), usage, done]
