"""A node that answers every dialect in a likely shape at once, and judges what it is sent as vLLM's reader would."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from tests.fuzz.node_shapes import USAGE
from tests.support.nodes import MODEL, STREAM_HEAD, answer

Body = dict[str, Any]

_CALL = {"id": "c1", "type": "function", "index": 0, "function": {"name": "look", "arguments": '{"city": "x"}'}}
_CARD = {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 4096}]}
_RESPONSE: Body = {
    "id": "resp_x",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": MODEL,
    "output": [
        {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
    ],
    "usage": {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16},
}
_MESSAGE: Body = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "thinking", "thinking": "t", "signature": ""}, {"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 7},
}
_SMALL: dict[str, Body] = {
    "/v1/messages/count_tokens": {"input_tokens": 9},
    "/tokenize": {"count": 3, "max_model_len": 4096, "tokens": [1, 2, 3]},
    "/detokenize": {"prompt": "abc"},
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"prompt_tokens": 2, "total_tokens": 2}},
    "/v1/score": {"object": "list", "data": [{"index": 0, "score": 0.5}], "usage": {"prompt_tokens": 2}},
    "/pooling": {"object": "list", "data": [{"index": 0, "data": [[0.1]]}], "usage": {"prompt_tokens": 2}},
    "/v1/embeddings": {"object": "list", "data": [{"embedding": [0.1], "index": 0}], "usage": {"prompt_tokens": 2}},
    "/v1/messages": _MESSAGE,
    "/v1/responses": _RESPONSE,
}


class FuzzNode:
    """`got` is what it was sent, by the `traceparent` of the request; `complaints` what no node should be sent."""

    def __init__(self) -> None:
        self.url = ""
        self.got: dict[str, tuple[str, Body]] = {}
        self.complaints: list[str] = []
        self._answers: dict[tuple[str, bool], bytes] = {}

    def answer(self, head: str, raw: bytes) -> bytes:
        """The bytes of the answer to one request."""
        method, path, *_ = head.split(" ", 2)
        path = path.partition("?")[0]
        if method == "GET":
            return _probed(path)
        try:
            body = json.loads(raw, object_pairs_hook=_once, parse_constant=_refuse)
            raw.decode()
            json.dumps(body, ensure_ascii=False).encode()
            _read_arguments(body)
        except (ValueError, RecursionError) as error:
            self.complaints.append(f"{path}: {type(error).__name__}: {error}: {raw[:300]!r}")
            return answer(
                b'{"error": {"message": "no JSON", "type": "BadRequestError", "code": 400}}', "400 Bad Request"
            )
        for line in head.split("\r\n"):
            if line.startswith("traceparent: "):
                self.got.setdefault(line.removeprefix("traceparent: "), (path, body))
        return self._made(path, body.get("stream") is True, bool(body.get("tools")))

    def _made(self, path: str, stream: bool, tools: bool) -> bytes:
        key = (f"{path} {tools}", stream)
        if key not in self._answers:
            events = "".join(_event(each) for each in _events(path, tools)).encode()
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)
            self._answers[key] = STREAM_HEAD + chunked if stream else answer(json.dumps(_plain(path, tools)).encode())
        return self._answers[key]


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, node: FuzzNode) -> None:
        self._node = node
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            declared = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
            length = int(declared[0]) if declared else 0
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self.transport.write(self._node.answer(head.decode("latin-1"), rest[:length]))


@contextlib.asynccontextmanager
async def fuzz_node() -> AsyncIterator[FuzzNode]:
    """A listening node."""
    node = FuzzNode()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(node), "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()


def _probed(path: str) -> bytes:
    if path == "/v1/models":
        return answer(json.dumps(_CARD).encode())
    if path == "/health":
        return answer(b"")
    return answer(b'{"error": {"message": "none", "type": "NotFoundError", "code": 404}}', "404 Not Found")


def _read_arguments(body: Body) -> None:
    """As vLLM does for its template; what is no JSON is nothing to it, what is nested too deeply a 500."""
    turns = body.get("messages")
    for turn in turns if isinstance(turns, list) else ():
        calls = turn.get("tool_calls") if isinstance(turn, dict) else None
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if isinstance(arguments, str):
                with contextlib.suppress(ValueError):
                    json.loads(arguments)


def _once(pairs: list[tuple[str, Any]]) -> Body:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(name: str) -> float:
    raise ValueError(name)


def _plain(path: str, tools: bool) -> Body:
    if path in _SMALL:
        return _SMALL[path]
    choice: Body = {"index": 0, "logprobs": None, "finish_reason": "tool_calls" if tools else "stop", "token_ids": [1]}
    if path == "/v1/chat/completions":
        calls = [_CALL] if tools else []
        choice["message"] = {"role": "assistant", "content": "hello", "reasoning": "think", "tool_calls": calls}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [choice],
            "usage": USAGE,
        }
    choice["text"] = "hello"
    return {"id": "c", "object": "text_completion", "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE}


def _events(path: str, tools: bool) -> Iterator[Body | str]:
    if path == "/v1/messages":
        yield {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None}}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
        yield {"type": "message_stop"}
    elif path == "/v1/responses":
        yield {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress", "output": []}}
        yield {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "delta": "hello"}
        yield {"type": "response.completed", "response": _RESPONSE}
    else:
        yield from _chunks(path == "/v1/chat/completions", tools)


def _chunks(chat: bool, tools: bool) -> Iterator[Body | str]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    common = {"id": "c", "object": kind, "created": 1, "model": MODEL}

    def chunk(delta: Body, ids: list[int], finish: str | None = None) -> Body:
        text = {"delta": delta} if chat else {"text": delta.get("content") or delta.get("reasoning") or ""}
        return {
            **common,
            "choices": [{"index": 0, **text, "logprobs": None, "finish_reason": finish, "token_ids": ids}],
        }

    yield {**chunk({"role": "assistant", "content": ""}, []), "prompt_token_ids": [1, 2, 3]}
    for number in range(6):
        yield chunk({"reasoning": f"t{number} "}, [10 + number])
    yield chunk({"content": "hello"}, [5])
    if tools:
        yield chunk({"tool_calls": [_CALL]}, [7])
    yield chunk({}, [], "tool_calls" if tools else "stop")
    yield {**common, "choices": [], "usage": USAGE}
    yield "[DONE]"


def _event(told: Body | str) -> str:
    if isinstance(told, str):
        return f"data: {told}\n\n"
    name = f"event: {told['type']}\n" if "type" in told else ""
    return f"{name}data: {json.dumps(told, separators=(',', ':'))}\n\n"
