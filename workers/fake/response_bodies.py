"""The body of the responses dialect, what it is as a chat request, and the response object."""

from typing import Any, Literal

from pydantic import BaseModel

from workers.fake.chat_job import ChatJob
from workers.fake.errors import Refusal
from workers.fake.node import Node
from workers.fake.protocol import Body, Effort


class Reasoning(BaseModel):
    """`reasoning`, with the members that an answer shows; only the effort counts."""

    context: Any = None
    effort: Effort | None = None
    generate_summary: Any = None
    mode: Any = None
    summary: Any = None


class ResponsesBody(Body):
    """`/v1/responses`."""

    input: str | list[dict[str, Any]]
    background: bool | None = False
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool = True
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] = "auto"
    store: bool | None = True
    stream: bool | None = False
    temperature: float | None = None
    text: dict[str, Any] | None = None
    tool_choice: Any = "auto"
    tools: list[dict[str, Any]] | None = None
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] | None = "disabled"
    user: str | None = None
    stop: str | list[str] | None = None
    cache_salt: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    request_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None


def refuse_response(status: int, message: str, param: str) -> Refusal:
    """An error with OpenAI's type, as this dialect's own code gives it."""
    return Refusal(status, message, param=param, kind="invalid_request_error")


def not_found(response_id: str) -> Refusal:
    """404 for a response that this node does not hold."""
    return refuse_response(404, f"Response with id '{response_id}' not found.", "response_id")


def as_chat(body: ResponsesBody, before: list[dict[str, Any]]) -> dict[str, Any]:
    """The body as chat would have it; `before` are the turns of earlier responses."""
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    chat: dict[str, Any] = {"messages": [*system, *before, *input_turns(body.input)]}
    for name in ("model", "stream", "temperature", "top_p", "stop", "cache_salt", "chat_template_kwargs"):
        if getattr(body, name) is not None:
            chat[name] = getattr(body, name)
    if body.max_output_tokens is not None:
        chat["max_tokens"] = body.max_output_tokens
    if body.reasoning is not None and body.reasoning.effort is not None:
        chat["reasoning_effort"] = body.reasoning.effort
    if not body.include_reasoning:
        chat["include_reasoning"] = False
    if _is_begun(body.input):
        chat |= {"add_generation_prompt": False, "continue_final_message": True}
    wanted = (body.text or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        schema = {"name": wanted.get("name", "schema"), "schema": wanted.get("schema")}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted.get("type") == "json_object":
        chat["response_format"] = {"type": "json_object"}
    if functions := [_tool(t) for t in body.tools or () if t.get("type") == "function"]:
        chat["tools"] = functions
        choice = body.tool_choice
        named = isinstance(choice, dict) and {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = named or choice
    return chat


def _is_begun(given: str | list[dict[str, Any]]) -> bool:
    """Whether the last item is an answer to go on with."""
    last = given[-1] if isinstance(given, list) and given else {}
    return last.get("type", "message") == "message" and last.get("status") in ("in_progress", "incomplete")


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {k: tool.get(k) for k in ("name", "description", "parameters")}
    return {"type": "function", "function": function}


def input_turns(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Input items as chat turns; reasoning items are left out, as the template would."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    turns: list[dict[str, Any]] = []
    for item in given:
        match item.get("type", "message"):
            case "message":
                turns.append({"role": item.get("role", "user"), "content": item.get("content", "")})
            case "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                call = {"id": item.get("call_id"), "type": "function", "function": function}
                turns.append({"role": "assistant", "content": "", "tool_calls": [call]})
            case "additional_tools":  # vLLM has no place for them: a turn without a word
                turns.append({"role": item.get("role", "developer"), "content": ""})
            case "function_call_output":
                turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output", "")})
    return turns


def response_object(
    node: Node,
    job: ChatJob,
    body: ResponsesBody,
    status: str,
    output: list[dict[str, Any]],
    usage: dict[str, Any] | None,
) -> dict[str, Any]:
    """The response with vLLM's members in vLLM's order."""
    cache: dict[str, Any] = {}
    safety: dict[str, Any] = {}
    if node.settings.is_033:
        cache = {
            "prompt_cache_options": None,
            "prompt_cache_key": body.prompt_cache_key,
            "prompt_cache_retention": body.prompt_cache_retention,
        }
        safety = {"safety_identifier": body.safety_identifier}
    return {
        "id": job.id,
        "created_at": job.created,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.instructions,
        "metadata": body.metadata,
        "model": node.settings.models[0],
        "object": "response",
        "output": output,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "tool_choice": body.tool_choice,
        "tools": [_shown_tool(t) for t in body.tools or ()],
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "background": bool(body.background),
        "max_output_tokens": job.plan.max_tokens,
        "max_tool_calls": None,
        "previous_response_id": body.previous_response_id,
        "prompt": None,
        **cache,
        "reasoning": body.reasoning.model_dump() if body.reasoning is not None else None,
        **safety,
        "service_tier": body.service_tier,
        "status": status,
        "text": _shown_text(body.text),
        "top_logprobs": None,
        "truncation": body.truncation,
        "usage": usage,
        "user": body.user,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _shown_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    members = ("name", "parameters", "strict", "type", "allowed_callers", "async", "defer_loading", "description")
    return {**{m: tool.get(m) for m in members}, "output_schema": tool.get("output_schema")}


def _shown_text(text: dict[str, Any] | None) -> dict[str, Any] | None:
    if text is None:
        return None
    wanted = text.get("format")
    if wanted and wanted.get("type") == "json_schema":
        wanted = {m: wanted.get(m) for m in ("name", "schema", "type", "description", "strict")}
    return {"format": wanted, "verbosity": text.get("verbosity")}


def response_usage(prompt: int, made: int, reasoning: int, cached: int, created: int) -> dict[str, Any]:
    """`usage` of a finished response. Counts in tokens."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": created,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": made,
        "output_tokens_details": {
            "reasoning_tokens": reasoning,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt + made,
    }
