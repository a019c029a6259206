"""A plain answer assembled from a stream: the client asked for no stream, the gateway needed one."""

from typing import Any

from gateway.core.budgets.chunks import read_chunk
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.http.sse import DONE, event_data, split_events
from gateway.core.json_text import dump


class AnswerAssembly(StreamFilter):
    """Gathers the chunks that `inner` passes on; `flush` returns the whole answer.

    The chunks are of chat or completions, with one choice and usage. The answer has the fields of vLLM's own; those
    that a stream does not have are null.
    """

    __slots__ = ("_chat", "_choice", "_error", "_frame", "_ids", "_parts", "_prompt_ids", "_tools", "inner")

    def __init__(self, inner: StreamFilter, chat: bool) -> None:
        super().__init__()
        self.inner = inner
        self._chat = chat
        self._frame: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._parts: dict[str, list[str]] = {}
        self._tools: dict[int, dict[str, Any]] = {}
        self._ids: list[int] | None = None
        self._prompt_ids: list[int] | None = None
        self._error = b""

    def feed(self, data: bytes) -> bytes:
        for event in split_events(self.inner.feed(data)):
            self._take_data(event_data(event))
        self._take_over()
        return b""

    def flush(self) -> bytes:
        for event in split_events(self.inner.flush()):
            self._take_data(event_data(event))
        self._take_over()
        return self._error or self._answer()

    def forget_tokens(self, ids: list[int]) -> bool:
        return self.inner.forget_tokens(ids)

    @property
    def thought(self) -> int | None:
        return self.inner.thought

    @property
    def thinks(self) -> bool | None:
        return self.inner.thinks

    def end_thinking(self) -> bool:
        return self.inner.end_thinking()

    def forget_answer(self) -> bool:
        if self._chat:
            self._parts.pop("content", None)
            self._tools.clear()
            self._choice = {}
            self._ids = None
        return self._chat

    def _take_over(self) -> None:
        """Take over the state of `inner`."""
        inner = self.inner
        self.follow_up, inner.follow_up = inner.follow_up, None
        self.ended, self.failed, self.usage, self.wasted = inner.ended, inner.failed, inner.usage, inner.wasted

    def _take_data(self, data: bytes) -> None:
        if not data or data == DONE:
            return
        chunk = read_chunk(data)
        if chunk.get("error"):
            self._error = data
        else:
            self._take_chunk(chunk)

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        for key, value in chunk.items():
            if key == "prompt_token_ids":
                self._prompt_ids = value
            elif key != "choices" and (value is not None or key not in self._frame):
                self._frame[key] = value
        for choice in chunk.get("choices") or ():
            self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        for field in ("reasoning", "reasoning_content", "content"):
            if delta.get(field):
                self._parts.setdefault(field, []).append(delta[field])
        if choice.get("text"):
            self._parts.setdefault("text", []).append(choice["text"])
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
        if choice.get("token_ids") is not None:
            self._ids = self._ids or []
            self._ids += choice["token_ids"]
        if choice.get("prompt_token_ids") is not None:
            self._prompt_ids = choice["prompt_token_ids"]
        if choice.get("finish_reason") is not None:
            self._choice = {key: choice.get(key) for key in ("finish_reason", "stop_reason")}

    def _take_call(self, call: dict[str, Any]) -> None:
        function = call.get("function") or {}
        known = self._tools.setdefault(call.get("index") or 0, {"id": None, "type": "function", "function": {}})
        known["id"] = call.get("id") or known["id"]
        parts = known["function"]
        parts["name"] = function.get("name") or parts.get("name")
        parts["arguments"] = parts.get("arguments", "") + (function.get("arguments") or "")

    def _text(self, field: str) -> str | None:
        return "".join(self._parts[field]) if field in self._parts else None

    def _answer(self) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["message"] = self._message()
        else:
            choice["text"] = self._text("text") or ""
        choice |= {"logprobs": None, "finish_reason": None, "stop_reason": None, **self._choice}
        choice["token_ids"] = self._ids
        if not self._chat:
            choice |= {"prompt_logprobs": None, "prompt_token_ids": self._prompt_ids}
        frame = {**self._frame, "object": "chat.completion" if self._chat else "text_completion"}
        usage = frame.pop("usage", None)
        answer = {**frame, "choices": [choice], "usage": usage}
        if self._chat:
            answer |= {"prompt_logprobs": None, "prompt_token_ids": self._prompt_ids}
        return dump(answer)

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text("content"), "refusal": None}
        message["tool_calls"] = [self._tools[index] for index in sorted(self._tools)]
        older = self._text("reasoning_content")
        if older is not None:
            message["reasoning_content"] = older
        else:
            message["reasoning"] = self._text("reasoning")
        return message
