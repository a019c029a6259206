"""The response object: the request's fields that it repeats, its output items, its usage."""

from collections.abc import Mapping
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import count, switch
from gateway.core.dialects.opaque_text import REASONING, encode_text
from gateway.core.dialects.over_chat.base import reasoning_of
from gateway.core.dialects.over_chat.responses_history import CUSTOM_INPUT
from gateway.core.dialects.over_chat.responses_tools import ToolNames
from gateway.core.dialects.over_chat.stream import derived_id
from gateway.core.json_text import load_object
from gateway.core.responses.kept_turn import KeptTurn

_REPEATED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "presence_penalty",
    "frequency_penalty",
    "reasoning",
    "temperature",
    "text",
    "top_p",
    "user",
)
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseForm:
    """Makes the response objects of one request."""

    __slots__ = ("_common", "_keeps_thoughts", "_previous", "kept")

    def __init__(self, request: Body, choice: Any) -> None:
        """`choice` is the effective `tool_choice`."""
        self.kept: KeptTurn | None = None
        self._previous: str | None = None
        tools, include = request.get("tools") or [], request.get("include") or ()
        logprobs = "message.output_text.logprobs" in include
        self._keeps_thoughts = "reasoning.encrypted_content" in include
        self._common: Body = {
            **{name: request.get(name) for name in _REPEATED},
            "background": False,
            "parallel_tool_calls": switch(request, "parallel_tool_calls") is not False,
            "prompt": None,
            "service_tier": request.get("service_tier") or "auto",
            "tool_choice": choice,
            "tools": tools,
            "top_logprobs": (count(request, "top_logprobs") or 0) if logprobs else None,
            "truncation": request.get("truncation") or "disabled",
        }

    def keep(self, kept: KeptTurn | None, previous: str | None) -> None:
        """Make the response of `kept`, None: one that is not kept, which goes on from the response `previous`."""
        self.kept = kept
        self._previous = previous

    def item_id(self, prefix: str, chat_id: str, number: int) -> str:
        """The id of output item `number`."""
        return derived_id(prefix, chat_id, number) if self.kept is None else self.kept.item_id(prefix, number)

    def in_progress(self, chunk: Mapping[str, Any]) -> Body:
        """The response at the beginning of a stream."""
        return self._response(chunk, "in_progress", None, [], None)

    def ended(self, chunk: Mapping[str, Any], finish: str | None, output: list[Body], usage: Mapping[str, Any]) -> Body:
        """The response at its end; `chunk` is a chat answer or the first chunk of one."""
        reason = _INCOMPLETE.get(finish or "")
        details = {"reason": reason} if reason else None
        return self._response(chunk, status_of(finish), details, output, response_usage(usage))

    def reasoning(self, item_id: str, text: str, status: str | None) -> Body:
        """A reasoning item. Its text is in `encrypted_content` too where the request includes that: Codex sends nothing
        else of it back."""
        content = [{"type": "reasoning_text", "text": text}]
        item = {"type": "reasoning", "id": item_id, "summary": [], "content": content, "status": status}
        return {**item, "encrypted_content": encode_text(REASONING, text)} if self._keeps_thoughts else item

    def _response(
        self, chunk: Mapping[str, Any], status: str, details: Body | None, output: list[Body], usage: Body | None
    ) -> Body:
        kept = self.kept
        return {
            "id": derived_id("resp_", str(chunk.get("id", "")), 0) if kept is None else kept.response_id,
            "object": "response",
            "created_at": chunk.get("created"),
            "model": chunk.get("model"),
            "status": status,
            "error": None,
            "incomplete_details": details,
            "output": output,
            "usage": usage,
            "previous_response_id": self._previous,
            "store": kept is not None,
            **self._common,
        }


def status_of(finish: str | None) -> str:
    """The status of a response, and of its last item, by chat's finish reason."""
    return "incomplete" if finish in _INCOMPLETE else "completed"


def error_words(status: int) -> tuple[str, str]:
    """Code and type of a node's error."""
    return ("upstream_error", "server_error") if status >= 500 else ("invalid_request", "invalid_request_error")


def error_event(code: str, kind: str, message: str) -> Body:
    """The fields of an error event: both flat and with `error`, as the dialect's own (see `Responses.error_event`)."""
    error = {"code": code, "message": message, "param": None}
    return {**error, "error": {**error, "type": kind}}


def items_of(choice: Mapping[str, Any], chat_id: str, form: ResponseForm, names: ToolNames) -> list[Body]:
    """The output items of a plain answer."""
    message = choice["message"]
    calls = message.get("tool_calls") or ()
    status = status_of(choice.get("finish_reason"))  # only the last item can have been cut
    output: list[Body] = []
    reasoning = reasoning_of(message)
    if reasoning:
        output.append(form.reasoning(form.item_id("rs_", chat_id, len(output)), reasoning, None))
    if message.get("content"):
        item_id, logprobs = form.item_id("msg_", chat_id, len(output)), response_logprobs(choice)
        output.append(message_item(item_id, message["content"], logprobs, "completed" if calls else status))
    for index, call in enumerate(calls):
        function = call["function"]
        call_id = call.get("id") or derived_id("call_", chat_id, index)
        item = call_item(form, chat_id, len(output), call_id, function["name"], names)
        last = index == len(calls) - 1
        output.append(finish_call(item, function.get("arguments") or "", status if last else "completed"))
    return output


def message_item(item_id: str, text: str, logprobs: list[Body], status: str) -> Body:
    content = [text_part(text, logprobs)]
    return {"type": "message", "id": item_id, "role": "assistant", "content": content, "status": status}


def text_part(text: str, logprobs: list[Body]) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def call_item(form: ResponseForm, chat_id: str, number: int, call_id: str, function: str, names: ToolNames) -> Body:
    """A call without its arguments, as output item `number`."""
    if function in names.custom:
        item_id = form.item_id("ctc_", chat_id, number)
        return {"type": "custom_tool_call", "id": item_id, "call_id": call_id, "name": function, "input": ""}
    name, namespace = names.of(function)
    item = {"type": "function_call", "id": form.item_id("fc_", chat_id, number), "call_id": call_id, "name": name}
    return item | ({"namespace": namespace} if namespace else {}) | {"arguments": "", "status": "in_progress"}


def finish_call(item: Body, arguments: str, status: str) -> Body:
    """The call with its arguments, or with the input of a custom tool."""
    if item["type"] == "function_call":
        return {**item, "arguments": arguments, "status": status}
    given = (load_object(arguments) or {}).get(CUSTOM_INPUT)
    return {**item, "input": given if isinstance(given, str) else arguments}


def response_logprobs(choice: Mapping[str, Any]) -> list[Body]:
    """Chat's log probabilities in responses' format."""
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    return [
        _logprob(token) | {"top_logprobs": [_logprob(top) for top in token.get("top_logprobs") or ()]}
        for token in tokens
    ]


def without_bytes(logprobs: list[Body]) -> list[Body]:
    """The log probabilities of a delta, which have no `bytes`."""
    return [
        _without_bytes(token) | {"top_logprobs": [_without_bytes(top) for top in token["top_logprobs"]]}
        for token in logprobs
    ]


def response_usage(usage: Mapping[str, Any]) -> Body | None:
    """Chat's usage in responses' format."""
    if not usage:
        return None
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    details, thought = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": details.get("cached_tokens") or 0,
            "cache_write_tokens": details.get("created_cache_tokens") or 0,
        },
        "output_tokens": written,
        "output_tokens_details": {
            "reasoning_tokens": thought.get("reasoning_tokens") or 0,
            "tool_output_tokens": 0,
        },
        "total_tokens": read + written,
    }


def _logprob(token: Mapping[str, Any]) -> Body:
    return {"token": token.get("token"), "bytes": token.get("bytes") or [], "logprob": token.get("logprob")}


def _without_bytes(token: Body) -> Body:
    return {name: value for name, value in token.items() if name != "bytes"}
