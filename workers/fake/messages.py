"""/v1/messages and /v1/messages/count_tokens: Anthropic's dialect over the same chat, as vLLM serves it.

0.32 reads `thinking` and `output_config`; 0.22 ignores both in silence.
"""

import json
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Any

from workers.fake.chat_job import ChatJob, read_chat
from workers.fake.chat_parts import split_step
from workers.fake.generation import Answer, Step
from workers.fake.http1 import Exchange
from workers.fake.message_bodies import CountBody, MessagesBody, as_chat, check_thinking
from workers.fake.node import Node, Plain
from workers.fake.toolcalls import ToolReader
from workers.fake.wire import answer_json, compact, created_cache, request_id


async def serve_messages(node: Node, exchange: Exchange) -> None:
    """Answers one request. Raises Refusal where vLLM refuses."""
    data = await node.read_json(exchange)
    body = node.validate(MessagesBody, _seen(node, data))
    check_thinking(body, data)
    chat = {
        **as_chat(body),
        "max_tokens": body.max_tokens,
        "stop": body.stop_sequences,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "cache_salt": body.cache_salt,
    }
    job = read_chat(
        node, {k: v for k, v in chat.items() if v is not None}, request_id(exchange, None), "max_completion_tokens"
    ).under_faults(exchange.faults)
    if body.stream:
        await node.stream(exchange, job.prompt, job.plan.salt, lambda s: message_steps(node, job, s.cached, s.made))
    else:
        plain = await node.make(job.prompt, job.plan, raw=False)
        await node.answer(exchange, whole_message(node, job, plain))


async def serve_count(node: Node, exchange: Exchange) -> None:
    """Counts a prompt's tokens."""
    data = await node.read_json(exchange)
    body = node.validate(CountBody, _seen(node, data))
    count = len(read_chat(node, as_chat(body), "").prompt)
    answer_json(exchange, {"input_tokens": count, "context_management": {"original_input_tokens": count}})


def _seen(node: Node, data: dict[str, Any]) -> dict[str, Any]:
    if node.settings.is_032:
        return data
    return {k: v for k, v in data.items() if k not in ("thinking", "output_config")}


def message_steps(node: Node, job: ChatJob, cached: int, made: list[int]) -> Iterator[Sequence[bytes]]:
    """The stream's events, step by step; `made` collects the tokens for the prefix cache."""
    writer = MessageWriter(node, job, cached)
    events = [writer.start()]
    while writer.answer.finish is None:
        step = writer.answer.step(node.settings.tokens_per_event)
        made += step.ids
        events += writer.delta(step)
        if step.finish is not None:
            events += writer.stop(step)
        yield events
        events = []


class MessageWriter:
    """The state of one messages stream: which block is open, and at which index."""

    def __init__(self, node: Node, job: ChatJob, cached: int) -> None:
        self.answer = Answer(node.tokenizer, job.prompt, job.plan, 0, raw=False)
        self._tools = ToolReader(job.types) if job.reads_tools else None
        self._node, self._job, self._cached = node, job, cached
        self._open: str | None = None
        self._index = 0

    def start(self) -> bytes:
        """`message_start`: without cached tokens, as vLLM's first chunk does not know them."""
        message: dict[str, Any] = {
            "id": self._job.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._node.settings.models[0],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": len(self._job.prompt), "output_tokens": 0},
        }
        return _event("message_start", {"message": message})

    def delta(self, step: Step) -> list[bytes]:
        """A decoding step's events."""
        delta = split_step(self._node, self._job, step, self._tools)
        events: list[bytes] = []
        for kind, member, text in (
            ("thinking", "thinking", delta.get(self._node.settings.reasoning_field)),
            ("text", "text", delta.get("content")),
        ):
            if text:
                events += self._enter(kind, {"type": kind, member: ""})
                events.append(self._delta({"type": f"{kind}_delta", member: text}))
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                block = {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": {}}
                events += self._enter(f"tool_use {call['id']}", block)
            else:
                events.append(self._delta({"type": "input_json_delta", "partial_json": call["function"]["arguments"]}))
        return events

    def stop(self, step: Step) -> list[bytes]:
        """The last block's end, the reason, the usage, `message_stop`."""
        called = self._tools is not None and bool(self._tools.calls)
        reason, sequence = stop_reason(step, called)
        usage = message_usage(self._node, self._job, self.answer.made, self._cached)
        delta = {"delta": {"stop_reason": reason, "stop_sequence": sequence}, "usage": usage}
        return [*self._leave(), _event("message_delta", delta), _event("message_stop", {})]

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"delta": delta, "index": self._index})

    def _enter(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        if self._open == kind:
            return []
        events = self._leave()
        self._open = kind
        return [*events, _event("content_block_start", {"content_block": block, "index": self._index})]

    def _leave(self) -> list[bytes]:
        if self._open is None:
            return []
        events = (
            [self._delta({"type": "signature_delta", "signature": token_hex(16)})] if self._open == "thinking" else []
        )
        events.append(_event("content_block_stop", {"index": self._index}))
        self._open = None
        self._index += 1
        return events


def _event(kind: str, members: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {compact({'type': kind, **members})}\n\n".encode()


def stop_reason(step: Step, called: bool) -> tuple[str | None, str | None]:
    """Why a message ended, in Anthropic's words, and the stop sequence if it was one."""
    if step.finish == "length":
        return "max_tokens", None
    if step.finish == "abort":
        return None, None
    if called:
        return "tool_use", None
    if isinstance(step.stop_reason, str):
        return "stop_sequence", step.stop_reason
    return "end_turn", None


def message_usage(node: Node, job: ChatJob, made: int, cached: int) -> dict[str, int]:
    """Usage as Anthropic counts: tokens read from the cache or written to it stand beside the input, where told."""
    prompt = len(job.prompt)
    if not node.settings.prompt_tokens_details:
        return {"input_tokens": prompt, "output_tokens": made}
    if not node.settings.is_032:
        return {"input_tokens": prompt - cached, "output_tokens": made, "cache_read_input_tokens": cached}
    created = created_cache(node.settings, prompt, cached)
    written = {"cache_creation_input_tokens": created, "cache_read_input_tokens": cached}
    return {"input_tokens": prompt - cached - created, "output_tokens": made, **written}


def whole_message(node: Node, job: ChatJob, plain: Plain) -> dict[str, Any]:
    """The body of a plain answer; null members are left out, as vLLM does."""
    step = plain.steps[0]
    tools = ToolReader(job.types) if job.reads_tools else None
    delta = split_step(node, job, step, tools)
    thinking = delta.get(node.settings.reasoning_field)
    content: list[dict[str, Any]] = []
    if thinking:
        content.append({"type": "thinking", "thinking": thinking, "signature": token_hex(16)})
    if delta.get("content"):
        content.append({"type": "text", "text": delta["content"]})
    for call in tools.calls if tools else ():
        block = {"type": "tool_use", "id": call["id"], "name": call["name"], "input": json.loads(call["arguments"])}
        content.append(block)
    reason, sequence = stop_reason(step, tools is not None and bool(tools.calls))
    shown = {
        "id": job.id,
        "type": "message",
        "role": "assistant",
        "content": content or [{"type": "text", "text": ""}],
        "model": node.settings.models[0],
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": message_usage(node, job, plain.made, plain.cached),
    }
    return {k: v for k, v in shown.items() if v is not None}
