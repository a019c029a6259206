"""The table of requests that must get the same answer from a node and through the gateway.

Everything is deterministic: temperature 0 or a seed, short answers (a token takes 30 ms on one core). Texts do not
matter, so the tiny model's nonsense is as good as sense.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODEL = "nemotron-3-ultra"

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One request. `body` is sent as JSON, or as it is where it is bytes; `status` is what the node answers.

    `warm` sends it once beforehand: prompts of more than a KV block (128 tokens) report cached tokens the second time.
    """

    name: str
    path: str
    body: object = None
    status: int = 200
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    warm: bool = False


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


def _assistant(content: object) -> Json:
    return {"role": "assistant", "content": content}


FRANCE = [_user("What is the capital of France?")]
WEATHER = [_user("What is the weather in Paris?")]
TOO_LONG = "word " * 6000

_CITY: Json = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
_WEATHER: Json = {"name": "get_weather", "description": "Weather of a city", "parameters": _CITY}
_TIME: Json = {"name": "get_time", "description": "Time of day", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": _WEATHER}, {"type": "function", "function": _TIME}]
STRICT_TOOLS = [{"type": "function", "function": {**_WEATHER, "strict": True}}]
RESPONSES_TOOLS = [{"type": "function", "strict": True, **_WEATHER}]
MESSAGES_TOOLS: list[Any] = [
    {"name": "get_weather", "strict": True, "description": "Weather of a city", "input_schema": _CITY}
]
NAMED_TOOL = {"type": "function", "function": {"name": "get_weather"}}
_CAPITAL = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "capital", "schema": _CAPITAL, "strict": True}}
TOOL_HISTORY = [
    *WEATHER,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 21 degrees"},
]
NO_THINKING: Json = {"chat_template_kwargs": {"enable_thinking": False}}
ANTHROPIC = {"anthropic-version": "2023-06-01"}


def _chat(name: str, status: int = 200, warm: bool = False, **fields: Any) -> Case:
    body = {"model": MODEL, "messages": FRANCE, "temperature": 0, "seed": 1, "max_tokens": 12}
    return Case(f"chat: {name}", CHAT, body | fields, status, warm=warm)


def _both(name: str, **fields: Any) -> tuple[Case, Case]:
    """A chat request, plain and streamed."""
    return _chat(name, **fields), _chat(f"{name}, streamed", **fields, stream=True)


def _completion(name: str, status: int = 200, **fields: Any) -> Case:
    body = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    return Case(f"completions: {name}", COMPLETIONS, body | fields, status)


def _response(name: str, status: int = 200, warm: bool = False, **fields: Any) -> Case:
    body = {"model": MODEL, "input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 12}
    return Case(f"responses: {name}", RESPONSES, body | fields, status, warm=warm)


def _message(name: str, status: int = 200, warm: bool = False, **fields: Any) -> Case:
    body = {"model": MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 12}
    return Case(f"messages: {name}", MESSAGES, body | fields, status, headers=ANTHROPIC, warm=warm)


_CHAT = (
    *_both("bare"),
    *_both("thinking ends by itself", max_tokens=60),
    *_both("thinking off", **NO_THINKING),
    *_both("thinking budget, then an answer", thinking_token_budget=5, max_tokens=16),
    *_both("reasoning effort none", reasoning_effort="none"),
    _chat("reasoning effort high", reasoning_effort="high"),
    _chat("reasoning left out", include_reasoning=False, thinking_token_budget=5, stream=True),
    _chat("low effort by template", chat_template_kwargs={"low_effort": True}),
    *_both("two answers", n=2, temperature=0.8, seed=7, **NO_THINKING),
    _chat("two answers and usage", n=2, temperature=0.8, seed=7, stream=True, stream_options={"include_usage": True}),
    *_both("logprobs", logprobs=True, top_logprobs=2, max_tokens=6),
    *_both("stop string", stop=["France", "Paris"], **NO_THINKING),
    _chat("stop string kept", stop=["France"], include_stop_str_in_output=True, **NO_THINKING),
    _chat("sampling", temperature=0.9, top_p=0.8, top_k=20, min_p=0.01, seed=11, presence_penalty=0.2, stream=True),
    _chat("logit bias", logit_bias={"7042": 5.0}, frequency_penalty=0.1),
    *_both("JSON schema", response_format=SCHEMA_FORMAT, max_tokens=24, **NO_THINKING),
    _chat("JSON object", response_format={"type": "json_object"}, max_tokens=24, **NO_THINKING),
    _chat("JSON schema after a budget", response_format=SCHEMA_FORMAT, thinking_token_budget=5, max_tokens=30),
    _chat("structured output, choice", structured_outputs={"choice": ["red", "blue"]}, **NO_THINKING),
    _chat("structured output, regex", structured_outputs={"regex": "[0-9]{3}"}, stream=True, **NO_THINKING),
    _chat("usage asked for", stream=True, stream_options={"include_usage": True}),
    _chat("usage declined", stream=True, stream_options={"include_usage": False}),
    _chat(
        "usage in every event",
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    ),
    _chat("usage in every event, without asking", stream=True, stream_options={"continuous_usage_stats": True}),
    _chat("empty stream options", stream=True, stream_options={}),
    _chat("null stream options", stream=True, stream_options=None),
    _chat("stream false", stream=False, stream_options=None),
    *_both("token ids", return_token_ids=True, stop=["Paris"]),
    _chat("token ids and usage", return_token_ids=True, stream=True, stream_options={"include_usage": True}),
    _chat("tokens instead of text", return_tokens_as_token_ids=True, logprobs=True, max_tokens=4),
    _chat("unknown fields", nonsense={"deep": [1, 2.5, None]}, metadata={"team": "a"}, user="me", store=False),
    _chat("system", messages=[{"role": "system", "content": "Be brief."}, *FRANCE], stream=True),
    _chat("developer", messages=[{"role": "developer", "content": "Be brief."}, *FRANCE]),
    _chat("content in parts", messages=[{"role": "user", "content": [{"type": "text", "text": "Hi Ünïcode 🌍"}]}]),
    _chat("turns", messages=[*FRANCE, _assistant("Paris."), _user("And of Spain?")]),
    _chat("max_completion_tokens", max_tokens=None, max_completion_tokens=5),
    _chat("both limits", max_tokens=9, max_completion_tokens=5),
    _chat("min tokens", min_tokens=10, ignore_eos=True, stream=True, **NO_THINKING),
    *_both("echo", echo=True, add_generation_prompt=False, messages=[*FRANCE, _assistant("It")]),
    *_both("tools, model's choice", messages=WEATHER, tools=TOOLS, max_tokens=20, warm=True),
    *_both(
        "tools, required",
        messages=WEATHER,
        tools=STRICT_TOOLS,
        tool_choice="required",
        thinking_token_budget=5,
        max_tokens=70,
        warm=True,
    ),
    *_both(
        "tools, one named",
        messages=WEATHER,
        tools=STRICT_TOOLS,
        tool_choice=NAMED_TOOL,
        max_tokens=60,
        warm=True,
        **NO_THINKING,
    ),
    _chat("tools, none", messages=WEATHER, tools=TOOLS, tool_choice="none", warm=True),
    *_both("tool results", messages=TOOL_HISTORY, tools=TOOLS, warm=True),
    _chat("wrong type", 400, temperature="hot"),
    _chat("out of range", 400, temperature=-1),
    _chat("null messages", 400, messages=None),
    Case("chat: no messages", CHAT, {"model": MODEL, "max_tokens": 4}, 400),
    _chat("empty messages", 400, messages=[]),
    _chat("unknown role", 400, messages=[{"role": "wizard", "content": "abracadabra"}]),
    _chat("n 0", 400, n=0),
    _chat("n 2 greedy", 400, n=2),
    _chat("prompt too long", 400, messages=[_user(TOO_LONG)]),
    _chat("prompt too long, streamed", 400, messages=[_user(TOO_LONG)], stream=True),
    _chat("max_tokens over the window", 400, max_tokens=9999),
    _chat("stream options without a stream", 400, stream_options={"include_usage": True}),
    _chat("stream options of a wrong type", 400, stream=True, stream_options="yes"),
    _chat("tool choice without tools", 400, tool_choice="required"),
    _chat("named tool that is not there", 400, tools=TOOLS, tool_choice={**NAMED_TOOL, "function": {"name": "x"}}),
    _chat("unknown response format", 400, response_format={"type": "poem"}),
    _chat("response format without a schema", 400, response_format={"type": "json_schema"}),
    _chat("negative budget", 400, thinking_token_budget=-5),
    _chat("unknown effort", 400, reasoning_effort="ultra"),
    _chat("too many logprobs", 400, logprobs=True, top_logprobs=999),
    _chat("logprobs missing", 400, top_logprobs=2),
    _chat("image for a text model", 400, messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
)

_COMPLETIONS = (
    _completion("bare"),
    _completion("streamed", stream=True),
    _completion("streamed with usage", stream=True, stream_options={"include_usage": True}),
    _completion("usage in every event, without asking", stream=True, stream_options={"continuous_usage_stats": True}),
    _completion("token ids as the prompt", prompt=[504, 3575, 282, 4649, 314]),
    _completion("several prompts", prompt=["One, two,", "Red, green,"]),
    _completion("several lists of token ids", prompt=[[504, 3575], [282, 4649, 314]]),
    _completion("echo with logprobs", echo=True, logprobs=2, max_tokens=4),
    _completion("echo, streamed", echo=True, stream=True),
    _completion("logprobs, streamed", logprobs=1, stream=True),
    _completion("several prompts, streamed", prompt=["One, two,", "Red, green,"], stream=True),
    _completion(
        "several prompts, streamed with usage",
        prompt=["One, two,", "Red, green,"],
        stream=True,
        stream_options={"include_usage": True},
    ),
    _completion("two answers", n=2, temperature=0.8, seed=3),
    _completion("stop", stop=["\n"], stream=True),
    _completion("token ids returned, streamed", return_token_ids=True, stream=True),
    _completion("special tokens kept", prompt="<|im_start|>assistant\n<think>\n", skip_special_tokens=False),
    _completion("budget", prompt="<|im_start|>assistant\n<think>\n", thinking_token_budget=3, max_tokens=12),
    _completion("no tokens", max_tokens=0, echo=True),
    _completion("suffix", 400, suffix="!"),
    _completion("no prompt", 400, prompt=None),
    _completion("prompt of a wrong type", 400, prompt={"text": "x"}),
    _completion("prompt too long", 400, prompt=TOO_LONG),
)

_RESPONSES_CALL: Json = {
    "tools": RESPONSES_TOOLS,
    "tool_choice": "required",
    "reasoning": {"effort": "none"},
    "max_output_tokens": 80,
    "warm": True,
}

_RESPONSES = (
    _response("bare"),
    _response("streamed", stream=True),
    _response("thinking off", reasoning={"effort": "none"}),
    _response("thinking off, streamed", reasoning={"effort": "none"}, stream=True),
    _response("instructions and turns", instructions="Be brief.", input=[_user("Hi"), _user("And bye")]),
    _response("input in parts", input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]),
    _response("metadata", metadata={"team": "a"}, user="me", unheard_of=1),
    _response("tools", **_RESPONSES_CALL),
    _response("tools, streamed", **_RESPONSES_CALL, stream=True),
    _response(
        "JSON schema",
        text={"format": {"type": "json_schema", "name": "capital", "schema": _CAPITAL}},
        reasoning={"effort": "none"},
        max_output_tokens=24,
    ),
    _response("logprobs", include=["message.output_text.logprobs"], top_logprobs=1, reasoning={"effort": "none"}),
    _response("wrong type", 400, temperature="hot"),
    _response("no input", 400, input=None),
    _response("prompt too long", 400, input=TOO_LONG),
    _response("prompt too long, streamed", 400, input=TOO_LONG, stream=True),
)

_MESSAGES_CALL: Json = {
    "tools": MESSAGES_TOOLS,
    "tool_choice": {"type": "any"},
    "thinking": {"type": "disabled"},
    "max_tokens": 80,
    "warm": True,
}

_MESSAGES = (
    _message("bare"),
    _message("streamed", stream=True),
    _message("thinking off", thinking={"type": "disabled"}),
    _message("thinking off, streamed", thinking={"type": "disabled"}, stream=True),
    _message("thinking budget", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=1030, stream=True),
    _message("system and turns", system="Be brief.", messages=[*FRANCE, _assistant("Paris."), _user("Why?")]),
    _message("system in parts", system=[{"type": "text", "text": "Be brief."}], stop_sequences=["Paris"]),
    _message("tools", **_MESSAGES_CALL),
    _message("tools, streamed", **_MESSAGES_CALL, stream=True),
    _message(
        "tool results",
        messages=[
            *WEATHER,
            _assistant([{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}]),
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Sunny"}]},
        ],
        tools=MESSAGES_TOOLS,
        warm=True,
    ),
    _message("prompt too long", 400, messages=[_user(TOO_LONG)]),
    _message("prompt too long, streamed", 400, messages=[_user(TOO_LONG)], stream=True),
    _message("wrong type", 400, temperature="hot"),
    _message("no max_tokens", 400, max_tokens=None),
    Case("count_tokens", COUNT_TOKENS, {"model": MODEL, "messages": FRANCE}, headers=ANTHROPIC),
    Case(
        "count_tokens with tools",
        COUNT_TOKENS,
        {"model": MODEL, "messages": FRANCE, "system": "Be brief.", "tools": MESSAGES_TOOLS},
        headers=ANTHROPIC,
    ),
    Case("count_tokens without messages", COUNT_TOKENS, {"model": MODEL}, 400, headers=ANTHROPIC),
)

_OTHERS = (
    Case("models", "/v1/models", method="GET"),
    Case("embeddings on a model without", "/v1/embeddings", {"model": MODEL, "input": "hi"}, 404),
    Case("tokenize a prompt", "/tokenize", {"model": MODEL, "prompt": "hello world"}),
    Case(
        "tokenize with the tokens' texts", "/tokenize", {"model": MODEL, "prompt": "hello", "return_token_strs": True}
    ),
    Case("tokenize messages", "/tokenize", {"model": MODEL, "messages": FRANCE, "tools": TOOLS, **NO_THINKING}),
    Case("tokenize nothing", "/tokenize", {"model": MODEL}, 400),
    Case("detokenize", "/detokenize", {"model": MODEL, "tokens": [1, 4093, 198, 28120]}),
    Case("detokenize words", "/detokenize", {"model": MODEL, "tokens": ["a"]}, 400),
)

_BAD_BODIES = tuple(
    Case(f"{what}: {path}", path, body, status, headers=ANTHROPIC if path == MESSAGES else {})
    for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
    for what, body, status in (
        ("not JSON", b"{nope", 400),
        ("not an object", b"[1]", 400),
    )
)

_UNKNOWN_MODEL = tuple(
    Case(f"unknown model: {path}", path, {"model": "nope", field: value, "max_tokens": 1}, 404)
    for path, field, value in (
        (CHAT, "messages", FRANCE),
        (COMPLETIONS, "prompt", "x"),
        (RESPONSES, "input", "x"),
        (MESSAGES, "messages", FRANCE),
        (COUNT_TOKENS, "messages", FRANCE),
        ("/tokenize", "prompt", "x"),
    )
)

_NO_MODEL = (
    Case("no model: chat", CHAT, {"messages": FRANCE, "temperature": 0, "max_tokens": 4}),
    Case("no model: completions", COMPLETIONS, {"prompt": "One", "temperature": 0, "max_tokens": 4}),
    Case("no model: responses", RESPONSES, {"input": "One", "temperature": 0, "max_output_tokens": 4}),
    Case("no model: messages", MESSAGES, {"messages": FRANCE, "max_tokens": 4}, 400, headers=ANTHROPIC),
    Case("no model: tokenize", "/tokenize", {"prompt": "One"}),
    Case("no model: detokenize", "/detokenize", {"tokens": [504]}),
)

CASES: tuple[Case, ...] = (
    *_CHAT,
    *_COMPLETIONS,
    *_RESPONSES,
    *_MESSAGES,
    *_OTHERS,
    *_BAD_BODIES,
    *_UNKNOWN_MODEL,
    *_NO_MODEL,
)
