"""/v1/chat/completions: reasoning, content and tool calls, streamed or whole."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.fake.errors import Refusal, invalid
from workers.fake.generation import Answer, Step
from workers.fake.http1 import Exchange
from workers.fake.node import Node, Plain
from workers.fake.protocol import ChatBody, NamedChoice, Tool
from workers.fake.sampling import Sampling, chat_script, check_model, check_raw, sampling
from workers.fake.template import render_chat
from workers.fake.toolcalls import ToolReader, parameter_types
from workers.fake.wire import DONE, compact, ids_json, quoted, request_id, usage, without_nulls

_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ChatJob:
    """A chat request, ready to be answered."""

    body: ChatBody
    prompt: list[int]
    plan: Sampling
    id: str
    created: int
    named: bool
    reads_tools: bool
    types: dict[str, dict[str, str]]


async def serve_chat(node: Node, exchange: Exchange) -> None:
    """Answers one request. Raises Refusal where vLLM refuses."""
    data = await node.read_json(exchange)
    job = read_chat(node, data, request_id(exchange, data.get("request_id")))
    if job.body.stream:
        await node.stream(
            exchange, job.prompt, job.plan.salt, lambda seat: chat_steps(node, job, seat.cached, seat.made)
        )
    else:
        plain = await node.plain(exchange, job.prompt, job.plan, raw=False)
        await node.answer(exchange, whole_chat(node, job, plain))


def read_chat(node: Node, data: dict[str, Any], request: str) -> ChatJob:
    """A body as a job. Raises Refusal (400, 404)."""
    check_raw(data)
    _check_tools(data, node)
    body = node.validate(ChatBody, data)
    check_model(body.model, node.settings)
    prompt = node.tokenizer.encode(render_body(body))
    asked, name = body.max_completion_tokens, "max_completion_tokens"
    if asked is None:
        asked, name = body.max_tokens, "max_tokens"
    script = chat_script(body, node.tokenizer)
    plan = sampling(body, asked, prompt, node.settings, script, name)
    if body.logprobs:
        plan = replace(plan, logprobs=body.top_logprobs or 0)
    functions = [t.function.model_dump() for t in body.tools or ()]
    reads = bool(functions) and body.tool_choice != "none" and node.settings.tool_parser
    named = isinstance(body.tool_choice, NamedChoice)
    return ChatJob(
        body, prompt, plan, f"chatcmpl-{request}", int(time.time()), named, reads, parameter_types(functions)
    )


def render_body(body: ChatBody) -> str:
    """The prompt's text. Raises Refusal (400) on a role that the template does not know."""
    kwargs = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        kwargs.setdefault("enable_thinking", body.reasoning_effort != "none")
        kwargs.setdefault("reasoning_effort", body.reasoning_effort)
    return render_messages(body.messages, body.tools, kwargs, body.add_generation_prompt, body.continue_final_message)


def render_messages(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[Tool] | None,
    kwargs: dict[str, Any] | None,
    add_generation_prompt: bool,
    continue_final: bool,
) -> str:
    """A conversation through the template, the same for chat and for /tokenize. Raises Refusal (400)."""
    for message in messages:
        if message.get("role") not in _ROLES:
            raise Refusal(400, f"Unexpected message role: {message.get('role')}")
    shown = [t.model_dump() for t in tools] if tools else None
    return render_chat(
        messages, shown, kwargs, add_generation_prompt=add_generation_prompt, continue_final=continue_final
    )


def _check_tools(data: dict[str, Any], node: Node) -> None:
    if data.get("tools") == []:
        text = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise invalid(text, "tools")
    if "tool_choice" not in data and data.get("tools"):
        data["tool_choice"] = "auto"
    choice = data.get("tool_choice")
    if choice in (None, "none"):
        return
    if not data.get("tools"):
        raise invalid("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice == "auto" and not node.settings.tool_parser:
        text = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        raise Refusal(400, text)
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if name not in [(t.get("function") or {}).get("name") for t in data["tools"] if isinstance(t, dict)]:
            text = "The tool specified in `tool_choice` does not match any of the specified `tools`"
            raise invalid(text, "tool_choice")


class ChatLines:
    """Writes the chunks of one chat stream: everything that does not change is made once."""

    def __init__(self, node: Node, job: ChatJob) -> None:
        model = quoted(node.settings.models[0])
        self._head = (
            f'data: {{"id":{quoted(job.id)},"object":"chat.completion.chunk","created":{job.created},"model":{model},'
        )
        self._ids = job.plan.token_ids and job.body.include_reasoning
        self._hide = not job.body.include_reasoning
        self._field = node.settings.reasoning_field
        self._fingerprint = f',"system_fingerprint":{quoted(node.settings.fingerprint)}'
        self._node, self._job = node, job

    def role(self, index: int, usage_json: str) -> bytes:
        """The first chunk of a choice."""
        ids = ids_json(self._job.prompt if self._job.plan.token_ids else None)
        return (
            f'{self._head}"choices":[{{"index":{index},"delta":{{"role":"assistant","content":""}},"logprobs":null,'
            f'"finish_reason":null}}]{usage_json},"prompt_token_ids":{ids},"prompt_text":null}}\n\n'
        ).encode()

    def delta(self, index: int, step: Step, parts: str, finish: str | None, usage_json: str, logprobs: str) -> bytes:
        """One chunk with a delta's members as JSON."""
        ids = ids_json(step.ids if self._ids else None)
        end = (
            f'"finish_reason":{quoted(finish)},"stop_reason":{compact(step.stop_reason)}'
            if finish
            else '"finish_reason":null'
        )
        mark = self._fingerprint if finish and not self._job.plan.usage else ""
        return (
            f'{self._head}"choices":[{{"index":{index},"delta":{{{parts}}},"logprobs":{logprobs},{end},'
            f'"token_ids":{ids}}}]{usage_json}{mark}}}\n\n'
        ).encode()

    def usage(self, shown: dict[str, Any]) -> bytes:
        """The usage chunk."""
        return f'{self._head}"choices":[],"usage":{compact(without_nulls(shown))}{self._fingerprint}}}\n\n'.encode()


def chat_steps(node: Node, job: ChatJob, cached: int, made: list[int]) -> Iterator[Sequence[bytes]]:
    """The stream's events, step by step; `made` collects the tokens for the prefix cache."""
    lines = ChatLines(node, job)
    voices = [ChatVoice(node, job, lines, i) for i in range(job.plan.n)]
    first = [voice.opening() for voice in voices]
    open_voices = voices
    while open_voices:
        step = [event for voice in open_voices if (event := voice.step(made)) is not None]
        open_voices = [v for v in open_voices if v.answer.finish is None]
        if not open_voices:
            step += _closing(node, job, lines, voices, cached)
        yield first + step
        first = []


def _closing(node: Node, job: ChatJob, lines: ChatLines, voices: Sequence["ChatVoice"], cached: int) -> list[bytes]:
    if not job.plan.usage:
        return [DONE]
    made = sum(v.answer.made for v in voices)
    thought = sum(v.answer.reasoning_tokens for v in voices)
    return [lines.usage(usage(node.settings, len(job.prompt), made, node.thought(thought), cached)), DONE]


class ChatVoice:
    """One choice of a chat stream: its answer, its tool parser, its chunks."""

    def __init__(self, node: Node, job: ChatJob, lines: ChatLines, index: int) -> None:
        self.answer = Answer(node.tokenizer, job.prompt, job.plan, index, raw=False)
        self._tools = ToolReader(job.types) if job.reads_tools else None
        self._node, self._job, self._lines, self._index = node, job, lines, index

    def opening(self) -> bytes:
        """The role chunk."""
        return self._lines.role(self._index, self._usage())

    def step(self, made: list[int]) -> bytes | None:
        """The chunk of the next decoding step; None where the step is silent."""
        step = self.answer.step(self._node.settings.tokens_per_event)
        made += step.ids
        parts = self._parts(step)
        plan, hidden = self._job.plan, not self._job.body.include_reasoning
        silent = not parts and step.finish is None
        if silent and (hidden or not (plan.token_ids or plan.logprobs is not None)):
            return None
        logprobs = "null"
        if plan.logprobs is not None and not hidden:
            logprobs = compact(chat_logprobs(self._node, step.ids, plan.logprobs))
        return self._lines.delta(self._index, step, parts, self._finish(step), self._usage(), logprobs)

    def _parts(self, step: Step) -> str:
        segments = step.segments
        if len(segments) == 1 and self._tools is None:  # nearly every event
            part, text = segments[0]
            if part == "content" or not self._node.settings.reasoning_parser:
                return f'"content":{quoted(text)}'
            return f'"{self._node.settings.reasoning_field}":{quoted(text)}' if self._job.body.include_reasoning else ""
        message = split_step(self._node, self._job, step, self._tools)
        return compact(message)[1:-1]

    def _finish(self, step: Step) -> str | None:
        called = self._tools is not None and bool(self._tools.calls) and not self._job.named
        return "tool_calls" if step.finish == "stop" and called else step.finish

    def _usage(self) -> str:
        if not self._job.plan.running_usage:
            return ""
        thought = self._node.thought(self.answer.reasoning_tokens)
        shown = usage(self._node.settings, len(self._job.prompt), self.answer.made, thought)
        return f',"usage":{compact(without_nulls(shown))}'


def split_step(node: Node, job: ChatJob, step: Step, tools: ToolReader | None) -> dict[str, Any]:
    """A step's text as a delta: content, reasoning, tool calls; empty members left out."""
    reasoning, content = step.text("reasoning"), step.text("content")
    if not node.settings.reasoning_parser:
        reasoning, content = "", reasoning + content
    calls: list[dict[str, Any]] = []
    if tools is not None:
        content, calls = tools.feed(content)
    shown: dict[str, Any] = {"content": content, node.settings.reasoning_field: reasoning, "tool_calls": calls}
    if not job.body.include_reasoning:
        shown[node.settings.reasoning_field] = ""
    return {k: v for k, v in shown.items() if v}


def chat_logprobs(node: Node, ids: Sequence[int], top: int) -> dict[str, Any]:
    """`logprobs` of a chat choice: the token itself is always certain, the others are its neighbours."""
    return {"content": [_logprob(node, token, top) for token in ids]}


def _logprob(node: Node, token: int, top: int) -> dict[str, Any]:
    def entry(t: int, logprob: float) -> dict[str, Any]:
        data = node.tokenizer.token_bytes(t)
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}

    return {**entry(token, -0.125), "top_logprobs": [entry(token + i, -0.125 - 2.0 * i) for i in range(top)]}


def whole_chat(node: Node, job: ChatJob, plain: Plain) -> dict[str, Any]:
    """The body of a plain answer, with vLLM's null members in vLLM's order."""
    settings = node.settings
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "chat.completion",
        "created": job.created,
        "model": settings.models[0],
        "choices": [whole_choice(node, job, i, step) for i, step in enumerate(plain.steps)],
        "service_tier": None,
        "system_fingerprint": settings.fingerprint,
        "usage": usage(settings, len(job.prompt), plain.made, node.thought(plain.reasoning_tokens), plain.cached),
        "prompt_logprobs": None,
        "prompt_token_ids": job.prompt if job.plan.token_ids else None,
        "prompt_text": None,
        "kv_transfer_params": None,
    }
    return {**shown, "ec_transfer_params": None, "metrics": None} if settings.is_032 else shown


def whole_choice(node: Node, job: ChatJob, index: int, step: Step) -> dict[str, Any]:
    """One choice of a plain answer."""
    tools = ToolReader(job.types) if job.reads_tools else None
    delta = split_step(node, job, step, tools)
    called = tools is not None and bool(tools.calls)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": delta.get("content") or ("" if called else None),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    calls = [_whole_call(c) for c in tools.calls] if tools else []
    if calls or not node.settings.is_032:
        message["tool_calls"] = calls
    message[node.settings.reasoning_field] = delta.get(node.settings.reasoning_field)
    hidden = not job.body.include_reasoning
    logprobs = job.plan.logprobs
    return {
        "index": index,
        "message": message,
        "logprobs": None if logprobs is None or hidden else chat_logprobs(node, step.ids, logprobs),
        "finish_reason": "tool_calls" if called and not job.named and step.finish == "stop" else step.finish,
        "stop_reason": step.stop_reason,
        "token_ids": step.ids if job.plan.token_ids and not hidden else None,
        "routed_experts": None,
    }


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}
