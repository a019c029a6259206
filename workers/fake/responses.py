"""/v1/responses: streamed, whole or in the background; answers are kept in memory where the node is set to.

`request_id` in the body becomes the response's id, as on a real node. Without the store, `store` is ignored in
silence, and background work and earlier responses are refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from workers.fake.chat_job import ChatJob, read_chat
from workers.fake.chat_parts import split_step
from workers.fake.generation import Answer, Step
from workers.fake.http1 import Exchange
from workers.fake.node import Kept, Node, Plain
from workers.fake.response_bodies import (
    ResponsesBody,
    as_chat,
    input_turns,
    not_found,
    refuse_response,
    response_object,
    response_usage,
)
from workers.fake.response_events import ResponseEvents, call_item, message_item, reasoning_item
from workers.fake.toolcalls import ToolReader
from workers.fake.wire import answer_json, created_cache, random_id

_NO_BACKGROUND = (
    "This vLLM engine does not support `store=True` and therefore does not support the background mode. To enable "
    "these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
)


async def serve_responses(node: Node, exchange: Exchange) -> None:
    """Answers one request. Raises Refusal where vLLM refuses."""
    data = await node.read_json(exchange)
    if not data.get("tools") and data.get("tool_choice", "auto") in ("auto", "none"):
        data["tool_choice"] = "none"
    body = node.validate(ResponsesBody, data)
    if body.background and not node.settings.responses_store:
        raise refuse_response(400, _NO_BACKGROUND, "background")
    job = _job(node, body).under_faults(exchange.faults)
    if body.background:
        _start_background(node, job, body)
        answer_json(exchange, node.responses[job.id].shown)
    elif body.stream:
        await node.stream(
            exchange, job.prompt, job.plan.salt, lambda s: response_steps(node, job, body, s.cached, s.made)
        )
    else:
        plain = await node.make(job.prompt, job.plan, raw=False)
        await node.answer(exchange, keep(node, body, whole_response(node, job, body, plain)))


async def serve_response(node: Node, exchange: Exchange) -> None:
    """GET /v1/responses/{id} and POST /v1/responses/{id}/cancel. Raises Refusal (400, 404)."""
    response_id, _, action = exchange.path.removeprefix("/v1/responses/").partition("/")
    held = node.responses.get(response_id)
    if action not in ("", "cancel"):
        return answer_json(exchange, {"detail": "Not Found"}, 404)
    if exchange.method != ("POST" if action else "GET"):
        allowed = b"POST" if action else b"GET"
        body = b'{"detail":"Method Not Allowed"}'
        return exchange.answer(405, body, ((b"allow", allowed), (b"content-type", b"application/json")))
    if held is None:
        raise not_found(response_id)
    if action:
        if held.task is None or held.task.done():
            raise refuse_response(400, "Cannot cancel a synchronous response.", "response_id")
        held.task.cancel()
        held.shown = {**held.shown, "status": "cancelled"}
    return answer_json(exchange, held.shown)


def _job(node: Node, body: ResponsesBody) -> ChatJob:
    before: list[dict[str, Any]] = []
    if body.previous_response_id:
        held = node.responses.get(body.previous_response_id)
        if held is None:
            raise not_found(body.previous_response_id)
        before = held.turns
    job = read_chat(node, as_chat(body, before), "", "max_output_tokens")
    return replace(job, id=body.request_id or f"resp_{random_id()}")


def keep(node: Node, body: ResponsesBody, shown: dict[str, Any]) -> dict[str, Any]:
    """Keeps a finished response where it is asked for and the node has a store; hands it back."""
    if body.store and node.settings.responses_store:
        held = node.responses.setdefault(shown["id"], Kept(shown, []))
        earlier = node.responses.get(body.previous_response_id or "")
        texts = [part["text"] for item in shown["output"] if item["type"] == "message" for part in item["content"]]
        held.shown = shown
        held.turns = [*(earlier.turns if earlier else ()), *input_turns(body.input)]
        held.turns.append({"role": "assistant", "content": "".join(texts)})
    return shown


def _start_background(node: Node, job: ChatJob, body: ResponsesBody) -> None:
    held = Kept(response_object(node, job, body, "queued", [], None), [])
    node.responses[job.id] = held

    async def work() -> None:
        held.shown = {**held.shown, "status": "in_progress"}
        plain = await node.make(job.prompt, job.plan, raw=False)
        keep(node, body, whole_response(node, job, body, plain))

    held.task = node.spawn(work())


def whole_response(node: Node, job: ChatJob, body: ResponsesBody, plain: Plain) -> dict[str, Any]:
    """The finished response of a plain call."""
    step = plain.steps[0]
    tools = ToolReader(job.types) if job.reads_tools else None
    delta = split_step(node, job, step, tools)
    output: list[dict[str, Any]] = []
    if thinking := delta.get(node.settings.reasoning_field):
        output.append(reasoning_item(f"rs_{random_id()}", thinking, None))
    if delta.get("content"):
        output.append(message_item(f"msg_{random_id()}", delta["content"], "completed"))
    output += [call_item(f"fc_{random_id()}", call, "completed") for call in (tools.calls if tools else ())]
    if node.settings.is_033 and output and output[-1]["status"] is not None:
        output[-1]["status"] = _status(step)
    usage = _used(node, job, plain.made, plain.reasoning_tokens, plain.cached)
    return response_object(node, job, body, _status(step), output, usage)


def _used(node: Node, job: ChatJob, made: int, reasoning: int, cached: int) -> dict[str, Any]:
    prompt = len(job.prompt)
    return response_usage(prompt, made, reasoning, cached, created_cache(node.settings, prompt, cached))


def _status(step: Step) -> str:
    return "incomplete" if step.finish == "length" else "completed"


def response_steps(
    node: Node, job: ChatJob, body: ResponsesBody, cached: int, made: list[int]
) -> Iterator[Sequence[bytes]]:
    """The stream's events, step by step; `made` collects the tokens for the prefix cache."""
    writer = ResponseEvents()
    answer = Answer(node.tokenizer, job.prompt, job.plan, 0, raw=False)
    tools = ToolReader(job.types) if job.reads_tools else None
    begun = response_object(node, job, body, "in_progress", [], None)
    events = [writer.event(f"response.{kind}", {"response": begun}) for kind in ("created", "in_progress")]
    while answer.finish is None:
        step = answer.step(node.settings.tokens_per_event)
        made += step.ids
        delta = split_step(node, job, step, tools)
        for kind, member in (("reasoning", node.settings.reasoning_field), ("message", "content")):
            if delta.get(member):
                events += writer.text(kind, delta[member])
        for call in delta.get("tool_calls", ()):
            events += writer.call(call)
        if step.finish is not None:
            status = _status(step)
            ended = status if node.settings.is_033 else "completed"
            events += writer.close(ended)
            usage = _used(node, job, answer.made, answer.reasoning_tokens, cached)
            done = response_object(node, job, body, status, writer.output, usage)
            events.append(writer.event(f"response.{ended}", {"response": keep(node, body, done)}))
        yield events
        events = []
