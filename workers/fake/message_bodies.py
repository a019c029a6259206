"""The bodies of the messages dialect, and what they are as a chat request."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from workers.fake.errors import Refusal, malformed


class Block(BaseModel):
    """A content block; which fields count depends on its type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[dict[str, Any]] | None = None


class Message(BaseModel):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(BaseModel):
    """A tool as messages has it."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class ToolChoice(BaseModel):
    """auto, any, none, or a named tool."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class Enabled(BaseModel):
    """Thinking with a budget; vLLM takes none under 1024."""

    type: Literal["enabled"]
    budget_tokens: int = Field(ge=1024)


class Disabled(BaseModel):
    """No thinking."""

    type: Literal["disabled"]


class Adaptive(BaseModel):
    """Thinking as the model likes."""

    type: Literal["adaptive"]


class CountBody(BaseModel):
    """`/v1/messages/count_tokens`."""

    model: str
    messages: list[Message]
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Annotated[Enabled | Disabled | Adaptive, Field(discriminator="type")] | None = None
    output_config: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesBody(CountBody):
    """`/v1/messages`."""

    max_tokens: int
    stop_sequences: list[str] | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    cache_salt: str | None = None


def check_thinking(body: MessagesBody, data: dict[str, Any]) -> None:
    """The budget lies under max_tokens, and that is positive. Raises Refusal (400)."""
    if body.max_tokens <= 0:
        raise _value_error(("body", "max_tokens"), "max_tokens must be positive", body.max_tokens)
    if isinstance(body.thinking, Enabled) and body.thinking.budget_tokens >= body.max_tokens:
        raise _value_error(("body",), "thinking.budget_tokens must be less than max_tokens", data)


def _value_error(loc: tuple[str, ...], message: str, value: Any) -> Refusal:
    entry = {"type": "value_error", "loc": loc, "msg": f"Value error, {message}", "input": value}
    return malformed([{**entry, "ctx": {"error": ValueError(message)}}])


def as_chat(body: CountBody) -> dict[str, Any]:
    """The body as chat would have it. Raises Refusal (400)."""
    turns = [{"role": "system", "content": text}] if (text := _system(body.system)) else []
    for message in body.messages:
        turns += _turns(message)
    chat: dict[str, Any] = {"model": body.model, "messages": turns}
    if body.chat_template_kwargs:
        chat["chat_template_kwargs"] = body.chat_template_kwargs
    if body.tools:
        chat["tools"] = [_tool(t) for t in body.tools]
        chat["tool_choice"] = _choice(body.tool_choice)
    config = body.output_config or {}
    if config.get("effort"):
        chat["reasoning_effort"] = config["effort"]
    if (config.get("format") or {}).get("schema"):
        schema = {"name": "json_schema", "schema": config["format"]["schema"]}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(body.thinking, Disabled):
        chat["reasoning_effort"] = "none"
    elif isinstance(body.thinking, Enabled):
        chat["thinking_token_budget"] = body.thinking.budget_tokens
    return chat


def _system(system: str | list[Block] | None) -> str:
    if isinstance(system, str):
        return system
    return "".join(b.text for b in system or () if b.type == "text" and b.text)


def _turns(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    turns: list[dict[str, Any]] = []
    texts, calls = [], []
    for block in message.content:
        if block.type == "text" and block.text:
            texts.append(block.text)
        elif block.type == "tool_use":
            arguments = json.dumps(block.input or {})
            calls.append({"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}})
        elif block.type == "tool_result":
            turns.append({"role": "tool", "tool_call_id": block.tool_use_id or "", "content": _result(block)})
    if texts or calls:
        turn: dict[str, Any] = {"role": message.role, "content": "\n".join(texts)}
        turns.append({**turn, "tool_calls": calls} if calls else turn)
    return turns


def _result(block: Block) -> str:
    if isinstance(block.content, str):
        return block.content
    return "\n".join(str(part.get("text", "")) for part in block.content or ())


def _tool(tool: AnthropicTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return "auto"
    if choice.type == "tool":
        if not choice.name:
            text = "tool_choice.name is required when type is 'tool'"
            raise _value_error(("body", "tool_choice"), text, choice.model_dump(exclude_unset=True))
        return {"type": "function", "function": {"name": choice.name}}
    return {"any": "required"}.get(choice.type, choice.type)
