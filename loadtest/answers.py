"""The bytes a vLLM node answers with, rendered once where they can be.

Every content event carries the time it was written as its text, `@` and sixteen digits: microseconds of the
machine's monotonic clock, which all processes share. So a client on the same machine reads the relay's delay
off each event, and counts events by counting `@`, a single byte that no split of the stream can break.
"""

import json
from dataclasses import dataclass

MODEL = "nemotron-3-ultra"
CREATED = 1_764_000_000
MARK = b"@"
STAMP_DIGITS = 16
PROMPT_TOKENS = 120
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Template:
    """A content event of fixed length as an HTTP chunk, cut open where the time goes."""

    head: bytes
    tail: bytes

    def at(self, micros: int) -> bytes:
        """The event written at `micros` (microseconds of the monotonic clock)."""
        return b"%b%016d%b" % (self.head, micros, self.tail)


def chunk(body: bytes) -> bytes:
    """One HTTP chunk around `body`."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(completion: str, delta: dict[str, str], token_ids: list[int] | None, finish: str | None) -> bytes:
    """One server-sent event as vLLM writes it on /v1/chat/completions."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": token_ids}
    return _data(completion, {"choices": [choice]})


def template(completion: str, field: str, with_ids: bool) -> Template:
    """The event that carries one token in `field` (`reasoning` or `content`) of its delta."""
    text = MARK.decode() + "0" * STAMP_DIGITS
    body = chunk(event(completion, {field: text}, [48127] if with_ids else None, None))
    cut = body.index(MARK) + 1
    return Template(body[:cut], body[cut + STAMP_DIGITS :])


def opening(completion: str, with_ids: bool) -> bytes:
    """Response head and the first event: the role, and the prompt's ids where they were asked for."""
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    ids = list(range(1000, 1000 + PROMPT_TOKENS)) if with_ids else None
    return STREAM_HEAD + chunk(_data(completion, {"choices": [choice], "prompt_token_ids": ids}))


def closing(completion: str, tokens: int, with_usage: bool, with_ids: bool) -> bytes:
    """Everything after the last content event: finish, usage if asked for, [DONE], end of body."""
    last = event(completion, {"content": "."}, [13] if with_ids else None, "stop")
    figures = _data(completion, {"choices": [], "usage": usage(tokens)}) if with_usage else b""
    return b"".join(chunk(part) for part in (last, figures, DONE) if part) + LAST_CHUNK


def usage(tokens: int) -> dict[str, object]:
    """vLLM's usage object for an answer of `tokens` tokens."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + tokens,
        "completion_tokens": tokens,
        "prompt_tokens_details": None,
    }


def plain(with_ids: bool) -> bytes:
    """A whole chat completion of about 600 bytes, response head included: always the same, so rendered once."""
    message: dict[str, object] = {
        "role": "assistant",
        "content": "Paris is the capital of France, and has been so, with breaks, since the tenth century.",
        "refusal": None,
        "tool_calls": [],
        "reasoning": "The user asks for a capital. France's capital is Paris, seat of its government.",
    }
    choice: dict[str, object] = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    choice["token_ids"] = list(range(24)) if with_ids else None
    body = _body(f"chatcmpl-{0:032x}", "chat.completion", {"choices": [choice], "usage": usage(24)})
    return response(200, body)


def response(status: int, body: bytes, kind: str = "application/json") -> bytes:
    """A response with a length, kept alive."""
    head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\nserver: uvicorn\r\n"
    return f"{head}content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _body(completion: str, kind: str, fields: dict[str, object]) -> bytes:
    head = {"id": completion, "object": kind, "created": CREATED, "model": MODEL}
    return json.dumps(head | fields, separators=(",", ":")).encode()


def _data(completion: str, fields: dict[str, object]) -> bytes:
    return b"data: " + _body(completion, "chat.completion.chunk", fields) + b"\n\n"
