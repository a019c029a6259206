"""Random requests that each SDK's types allow, within the providers' own rules that no type says.

Such rules: a tool's result follows its call, a named tool choice names a tool, a budget is below `max_tokens`.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta_message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from tests.sdks.drawing import PICTURE, Body, Drawing, words

LIKELY = frozenset(
    {
        # chat
        "ChatCompletionAssistantMessageParam",
        "ChatCompletionContentPartTextParam",
        "ChatCompletionDeveloperMessageParam",
        "ChatCompletionFunctionToolParam",
        "ChatCompletionMessageFunctionToolCallParam",
        "ChatCompletionNamedToolChoiceParam",
        "ChatCompletionSystemMessageParam",
        "ChatCompletionUserMessageParam",
        "ResponseFormatJSONSchema",
        "ResponseFormatText",
        # responses
        "EasyInputMessageParam",
        "FunctionCallOutput",
        "FunctionToolParam",
        "Message",
        "NamespaceToolParam",
        "ResponseCustomToolCallParam",
        "ResponseFormatTextJSONSchemaConfigParam",
        "ResponseFunctionToolCallParam",
        "ResponseInputTextParam",
        "ResponseInputTextContentParam",
        "ResponseOutputMessageParam",
        "ResponseOutputTextParam",
        "ResponseReasoningItemParam",
        "ToolChoiceAllowedParam",
        "ToolChoiceFunctionParam",
        # messages
        "AssistantMessageParam",
        "Base64ImageSourceParam",
        "ImageBlockParam",
        "RedactedThinkingBlockParam",
        "TextBlockParam",
        "ThinkingBlockParam",
        "ThinkingConfigAdaptiveParam",
        "ThinkingConfigDisabledParam",
        "ThinkingConfigEnabledParam",
        "ToolChoiceAnyParam",
        "ToolChoiceAutoParam",
        "ToolChoiceNoneParam",
        "ToolChoiceToolParam",
        "ToolParam",
        "ToolResultBlockParam",
        "ToolUseBlockParam",
        "UserMessageParam",
    }
)
LIKELY |= {f"Beta{name}" for name in LIKELY}
"""What most requests are made of; the rest of a union, mostly tools that a provider runs by itself, is drawn rarely."""


class Call(NamedTuple):
    """One method of an SDK. `kind`: its parameters. `bend`: applies the provider's rules, in place."""

    sdk: str
    method: str
    path: str
    kind: Any
    bend: Callable[[random.Random, Body, bool], None]
    streams: bool = True
    share: float = 1.0


def draw_request(rng: random.Random, call: Call, model: str, stream: bool) -> Body:
    """The keyword arguments of one call; `stream` among them where it streams."""
    drawing = Drawing(rng, LIKELY, frozenset({"stream"}))
    made = drawing.members(call.kind, share=rng.choice((0.1, 0.3, 0.6)))
    made["model"] = model
    call.bend(rng, made, stream)
    return {**made, "stream": True} if stream else made


# Chat and completions


def bend_chat(rng: random.Random, made: Body, stream: bool) -> None:
    _bend_sampling(made, stream)
    if made.get("top_logprobs") is not None:
        made["logprobs"] = True
    tools = made.get("tools")
    if tools:
        _name_apart(tool[tool["type"]] for tool in tools)
    _bend_choice(rng, made, [tool["function"]["name"] for tool in tools or () if "function" in tool], _chat_choice)
    if not made.get("functions"):
        made.pop("function_call", None)
    elif isinstance(made.get("function_call"), dict):
        made["function_call"] = {"name": made["functions"][0]["name"]}
    made["messages"] = list(_chat_turns(made["messages"]))


def _chat_choice(choice: Body, names: list[str], rng: random.Random) -> None:
    if choice["type"] in ("function", "custom"):
        name = rng.choice(names)
        choice.clear()
        choice |= {"type": "function", "function": {"name": name}}
    allowed = choice.get("allowed_tools")
    if allowed is not None:
        allowed["tools"] = [{"type": "function", "function": {"name": rng.choice(names)}}]


def _chat_turns(turns: Iterable[Body]) -> Iterable[Body]:
    """Each call is followed by its result, and there is no other result; the last word is the user's or a tool's."""
    last = ""
    for turn in turns:
        if turn["role"] == "tool":
            continue
        turn.pop("audio", None)
        if turn["role"] == "assistant" and not turn.get("content") and not turn.get("tool_calls"):
            turn["content"] = "Well."
        yield turn
        last = turn["role"]
        for number, called in enumerate(turn.get("tool_calls") or ()):
            called["id"] = f"call_{number}"
            yield {"role": "tool", "tool_call_id": called["id"], "content": "sunny 🌞"}
            last = "tool"
    if last not in ("user", "tool"):
        yield {"role": "user", "content": "and?"}


def bend_completion(rng: random.Random, made: Body, stream: bool) -> None:
    _bend_sampling(made, stream)
    made["prompt"] = made.get("prompt") or words(rng)
    made.setdefault("max_tokens", 16)
    if made.get("best_of") is not None:  # no fewer than n, and none in a stream
        made["best_of"] = None if stream else max(made["best_of"], made.get("n") or 1)


def _bend_sampling(made: Body, stream: bool) -> None:
    if not stream:
        made.pop("stream_options", None)
    stop = made.get("stop")
    if isinstance(stop, list):
        made["stop"] = stop[:4]


def bend_embedding(rng: random.Random, made: Body, stream: bool) -> None:
    """Nothing more is asked of it."""


# Responses


def bend_response(rng: random.Random, made: Body, stream: bool) -> None:
    if not stream:
        made.pop("stream_options", None)
    names = []
    tools = made.get("tools")
    if tools:
        _name_apart(tool for tool in tools if "name" in tool)
        names = [tool["name"] for tool in tools if tool["type"] in ("function", "custom")]
    _bend_choice(rng, made, names, _response_choice)
    if made.get("background"):
        made["store"] = True
    made.pop("previous_response_id", None)  # no response is stored that it could name
    given = made.get("input") or words(rng)
    made["input"] = given if isinstance(given, str) else list(_items(given))


def _response_choice(choice: Body, names: list[str], rng: random.Random) -> None:
    if "name" in choice and choice.get("type") in ("function", "custom"):
        choice["name"] = rng.choice(names)
    if choice.get("type") == "allowed_tools":
        choice["tools"] = [{"type": "function", "name": rng.choice(names)}]


def _items(given: Iterable[Body]) -> Iterable[Body]:
    """Each call is followed by its output, and there is no other output."""
    for number, item in enumerate(given):
        kind = item.get("type") or "message"
        if kind in ("function_call_output", "custom_tool_call_output"):
            continue
        if item.get("status") == "in_progress":
            item["status"] = "completed"
        for holder in ("content", "output"):
            for part in item[holder] if isinstance(item.get(holder), list) else ():
                if part.get("type") == "input_image" and part.get("file_id") is None:
                    part["image_url"] = part.get("image_url") or PICTURE
        yield item
        if kind in ("function_call", "custom_tool_call"):
            item["call_id"] = f"call_{number}"
            yield {"type": f"{kind}_output", "call_id": item["call_id"], "output": "sunny 🌞"}
    yield {"role": "user", "content": "and?"}


# Messages


def bend_count(rng: random.Random, made: Body, stream: bool) -> None:
    _bend_messages(rng, made)


def bend_messages(rng: random.Random, made: Body, stream: bool) -> None:
    _bend_messages(rng, made)
    thinking = made.get("thinking")
    if thinking and "budget_tokens" in thinking:
        made["max_tokens"] = thinking["budget_tokens"] + made["max_tokens"]


def _bend_messages(rng: random.Random, made: Body) -> None:
    tools = made.get("tools")
    if tools:
        _name_apart(tool for tool in tools if "input_schema" in tool)
    _bend_choice(rng, made, [tool["name"] for tool in tools or () if "input_schema" in tool], _tool_choice)
    made["messages"] = _turns(made["messages"])


def _tool_choice(choice: Body, names: list[str], rng: random.Random) -> None:
    if choice["type"] == "tool":
        choice["name"] = rng.choice(names)


_OF_USERS = ("tool_result",)
_OF_ASSISTANTS = ("tool_use", "thinking", "redacted_thinking", "server_tool_use")


def _turns(given: Iterable[Body]) -> list[Body]:
    """User and assistant by turns, the user first and last; each call is answered in the turn after it."""
    turns: list[Body] = []
    for turn in given:
        wanted = "assistant" if len(turns) % 2 else "user"
        if turn["role"] == "system":
            if turns and turns[-1]["role"] == "user":
                turns[-1]["content"] = _blocks(turns[-1])
            continue
        foreign = _OF_USERS if wanted == "assistant" else _OF_ASSISTANTS
        blocks = [block for block in _blocks(turn) if block["type"] not in foreign and block["type"] != "tool_result"]
        if wanted == "user" and turns:
            blocks = [*_results(turns[-1]), *blocks]
        for number, block in enumerate(blocks):
            if block["type"] == "tool_use":
                block["id"] = f"toolu_{number}"
        plain = isinstance(turn["content"], str) and [block["type"] for block in blocks] == ["text"]
        content = turn["content"] if plain else blocks or "Well."
        turns.append({"role": wanted, "content": content})
    if not turns:
        return [{"role": "user", "content": "hello"}]
    if turns[-1]["role"] == "assistant":
        turns.append({"role": "user", "content": [*_results(turns[-1]), {"type": "text", "text": "and?"}]})
    return turns


def _blocks(turn: Body) -> list[Body]:
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _results(turn: Body) -> list[Body]:
    called = [block["id"] for block in _blocks(turn) if block["type"] == "tool_use"]
    return [{"type": "tool_result", "tool_use_id": each, "content": "sunny 🌞"} for each in called]


# Tools


def _name_apart(tools: Iterable[Body]) -> None:
    for number, tool in enumerate(tools):
        tool["name"] = f"tool_{number}"


def _bend_choice(
    rng: random.Random, made: Body, names: list[str], bend: Callable[[Body, list[str], random.Random], None]
) -> None:
    """No choice without a tool that could be chosen; one by name names such a tool."""
    if "tools" in made and not made["tools"]:
        del made["tools"]
    if not names:
        made.pop("tool_choice", None)
        if not made.get("tools"):
            made.pop("parallel_tool_calls", None)
    elif isinstance(made.get("tool_choice"), dict):
        bend(made["tool_choice"], names, rng)


CALLS = (
    Call("openai", "chat.completions.create", "/v1/chat/completions",
         chat_create_params.CompletionCreateParamsNonStreaming, bend_chat, share=4),
    Call("openai", "responses.create", "/v1/responses",
         response_create_params.ResponseCreateParamsNonStreaming, bend_response, share=4),
    Call("openai", "completions.create", "/v1/completions",
         completion_create_params.CompletionCreateParamsNonStreaming, bend_completion),
    Call("openai", "embeddings.create", "/v1/embeddings",
         embedding_create_params.EmbeddingCreateParams, bend_embedding, streams=False),
    Call("anthropic", "messages.create", "/v1/messages",
         message_create_params.MessageCreateParamsNonStreaming, bend_messages, share=4),
    Call("anthropic", "beta.messages.create", "/v1/messages",
         beta_message_create_params.MessageCreateParamsNonStreaming, bend_messages, share=4),
    Call("anthropic", "messages.count_tokens", "/v1/messages/count_tokens",
         message_count_tokens_params.MessageCountTokensParams, bend_count, streams=False),
)  # fmt: skip
"""The methods that ask a model for something. `share`: how often one is drawn, beside the others of its SDK."""
