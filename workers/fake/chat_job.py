"""A chat request read and checked; the other dialects become one too."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.fake.errors import Refusal, invalid
from workers.fake.faults import Fault
from workers.fake.node import Node
from workers.fake.protocol import ChatBody, NamedChoice, Tool
from workers.fake.sampling import Sampling, chat_script, check_model, check_raw, sampling, under_faults
from workers.fake.template import render_chat
from workers.fake.toolcalls import parameter_types

_MOST_LOGPROBS = 20
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

    @property
    def role(self) -> str:
        """Whose turn the answer is said to be: without a generation prompt the last one's."""
        return "assistant" if self.body.add_generation_prompt else str(self.body.messages[-1].get("role"))

    def under_faults(self, faults: Sequence[Fault]) -> "ChatJob":
        """The job as the faults in force have it."""
        return replace(self, plan=under_faults(self.plan, faults))


def read_chat(node: Node, data: dict[str, Any], request: str, limit_name: str = "") -> ChatJob:
    """A body as a job; `limit_name` is what the dialect calls max_tokens. Raises Refusal (400, 404)."""
    check_raw(data)
    _check_chat(data)
    _check_tools(data, node)
    body = node.validate(ChatBody, data)
    check_model(body.model, node.settings)
    prompt = node.tokenizer.encode(render_body(body))
    asked, name = body.max_completion_tokens, "max_completion_tokens"
    if asked is None:
        asked, name = body.max_tokens, limit_name or "max_tokens"
    script = chat_script(body, node.tokenizer)
    plan = sampling(body, asked, prompt, node.settings, script, name)
    begun = body.continue_final_message or not body.add_generation_prompt
    if begun and template_arguments(body).get("enable_thinking") is not False:
        # The parser looks for the end of a thought, and takes all before it for one. In a stream it also looks into
        # the prompt, where an earlier turn of the assistant has one; the count of reasoning does not.
        told = not body.stream or all(turn.get("role") != "assistant" for turn in body.messages)
        plan = replace(plan, all_thought=node.settings.reasoning_parser, tells_thought=told)
    if not node.settings.reasoning_parser:
        plan = replace(plan, think_marks=True)
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
    kwargs = template_arguments(body)
    return render_messages(body.messages, body.tools, kwargs, body.add_generation_prompt, body.continue_final_message)


def template_arguments(body: ChatBody) -> dict[str, Any]:
    """What the template is given, an effort's part in it included."""
    kwargs = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        kwargs.setdefault("enable_thinking", body.reasoning_effort != "none")
        kwargs.setdefault("reasoning_effort", body.reasoning_effort)
    return kwargs


def render_messages(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[Tool] | None,
    kwargs: dict[str, Any] | None,
    add_generation_prompt: bool,
    continue_final: bool,
) -> str:
    """A conversation through the template, the same for chat and for /tokenize. Raises Refusal (400)."""
    if not messages:
        raise Refusal(400, "Cannot apply chat template to an empty conversation. Provide at least one message.")
    for message in messages:
        if message.get("role") not in _ROLES:
            raise Refusal(400, f"Unexpected message role: {message.get('role')}")
    shown = [t.model_dump() for t in tools] if tools else None
    return render_chat(
        messages, shown, kwargs, add_generation_prompt=add_generation_prompt, continue_final=continue_final
    )


def _check_chat(data: dict[str, Any]) -> None:
    wanted = data.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema" and wanted.get("json_schema") is None:
        text = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
        raise invalid(text, "response_format")
    top = data.get("top_logprobs")
    if isinstance(top, int) and (top > 0 or top == -1) and not data.get("logprobs"):
        raise invalid("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if isinstance(top, int) and top > _MOST_LOGPROBS:
        text = f"Requested sample logprobs of {top}, which is greater than max allowed: {_MOST_LOGPROBS}"
        raise invalid(text, "logprobs", top)
    if data.get("continue_final_message") and data.get("add_generation_prompt"):
        raise invalid("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")


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
    if choice not in ("auto", "required") and not isinstance(choice, dict):
        text = (
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.'
        )
        raise invalid(text, "tool_choice")
    if choice == "auto" and not node.settings.tool_parser:
        text = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        raise Refusal(400, text)
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if name not in [(t.get("function") or {}).get("name") for t in data["tools"] if isinstance(t, dict)]:
            text = "The tool specified in `tool_choice` does not match any of the specified `tools`"
            raise invalid(text, "tool_choice")
