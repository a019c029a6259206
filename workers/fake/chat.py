"""/v1/chat/completions: reasoning, content and tool calls, streamed or whole."""

from typing import Any

from workers.fake.chat_job import ChatJob, read_chat
from workers.fake.chat_parts import chat_logprobs, split_step
from workers.fake.chat_stream import chat_steps
from workers.fake.generation import Step
from workers.fake.http1 import Exchange
from workers.fake.node import Node, Plain
from workers.fake.toolcalls import ToolReader
from workers.fake.wire import created_cache, request_id, usage


async def serve_chat(node: Node, exchange: Exchange) -> None:
    """Answers one request. Raises Refusal where vLLM refuses."""
    data = await node.read_json(exchange)
    job = read_chat(node, data, request_id(exchange, data.get("request_id"))).under_faults(exchange.faults)
    if job.body.stream:
        await node.stream(
            exchange, job.prompt, job.plan.salt, lambda seat: chat_steps(node, job, seat.cached, seat.made)
        )
    else:
        plain = await node.make(job.prompt, job.plan, raw=False)
        await node.answer(exchange, whole_chat(node, job, plain))


def whole_chat(node: Node, job: ChatJob, plain: Plain) -> dict[str, Any]:
    """The body of a plain answer, with vLLM's null members in vLLM's order."""
    settings, prompt, cached = node.settings, len(job.prompt), plain.cached
    thought, created = node.thought(plain.reasoning_tokens), created_cache(settings, prompt, cached)
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "chat.completion",
        "created": job.created,
        "model": settings.models[0],
        "choices": [whole_choice(node, job, i, step) for i, step in enumerate(plain.steps)],
        "service_tier": None,
        "system_fingerprint": settings.fingerprint,
        "usage": usage(settings, prompt, plain.made, thought, cached, created),
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
        "role": job.role,
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
