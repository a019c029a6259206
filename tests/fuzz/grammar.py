"""Request bodies for fuzzing: likely ones of every dialect, mutated. One `random.Random` draws it all."""

import json
import random
from collections.abc import Iterator
from typing import Any

from gateway.core.dialects.opaque_text import COMPACTION, REASONING, encode_text
from tests.support.nodes import MODEL

Body = dict[str, Any]

ALIAS = "alias"
_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"city": "x"}'}}
_TOOLS = [{"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}]
_MESSAGES_TOOLS = [{"name": "look", "description": "d", "input_schema": {"type": "object"}}]
_RESPONSES_TOOLS = [
    {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "free", "format": {"type": "text"}},
    {"type": "namespace", "name": "space", "tools": [{"type": "function", "name": "inner"}]},
    {"type": "custom", "name": "bound", "description": "d", "format": {"type": "grammar", "definition": "start: x"}},
]
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
_CHAT = [
    {"role": "system", "content": "be"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x"}}]},
    {"role": "assistant", "content": None, "reasoning": "r", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    {"role": "user", "content": "and?"},
]
_MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"city": "x"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "ok"}]},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}},
        ],
    },
    {
        "role": "system",
        "content": [
            {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "look"}},
            {"type": "text", "text": "more"},
        ],
    },
]
_KEPT = [
    {"type": "compaction", "id": "cmp_1", "encrypted_content": encode_text(COMPACTION, "Before.")},
    {"type": "reasoning", "summary": [], "encrypted_content": encode_text(REASONING, "t")},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
]
_INPUT = [
    {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:x"}]},
    {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "d", "name": "free", "input": "x"},
    {"type": "function_call_output", "call_id": "c", "output": "ok"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
    {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
    {"role": "user", "content": "on"},
]
_SAMPLING: Body = {"temperature": 0.5, "top_p": 0.9, "stop": ["x"], "seed": 1, "logit_bias": {"5": 1}, "user": "u"}

THINKING: tuple[Body, ...] = (
    {"thinking_token_budget": 20},
    {"thinking_token_budget": -1},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"chat_template_kwargs": {"low_effort": True}},
    {"enable_thinking": True},
    {"thinking_budget": 9},
    {"reasoning_budget": 5},
    {"nvext": {"max_thinking_tokens": 7}},
    {"nvidia": {"reasoning_budget": 7}},
    {"reasoning_effort": "high"},
    {"reasoning_effort": "none"},
    {"reasoning": {"effort": "low"}},
    {"reasoning": {"max_tokens": 5}},
    {"reasoning": {"exclude": True}},
    {"reasoning": {"enabled": False}},
    {"thinking": {"type": "disabled"}},
    {"thinking": {"type": "enabled", "budget_tokens": 15}},
    {"thinking": {"type": "between_tools"}},
    {"output_config": {"task_budget": {"type": "tokens", "total": 90, "remaining": 7}}},
    {"output_format": {"type": "json_schema", "schema": {"type": "object"}}, "output_config": {"effort": "low"}},
    {"output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}}},
    {"include_reasoning": False},
)


def _answering() -> Iterator[tuple[str, Body]]:
    last = _CHAT[-1:]
    chat, completions, messages, responses = (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
    )
    tools = {"tools": _TOOLS, "tool_choice": "auto"}
    yield chat, {"messages": _CHAT, "max_tokens": 20, **_SAMPLING, **tools, "n": 1, "response_format": _SCHEMA}
    counts = {"logprobs": True, "top_logprobs": 2, "n": 2, "stream_options": {"include_usage": True}}
    engine = {"priority": 5, "vllm_xargs": {"cache_salt": "x", "a": 1}, "kv_transfer_params": {"a": 1}}
    yield chat, {"messages": last, "max_completion_tokens": 12, **counts, **engine}
    kept = {"prompt_cache_key": "k", "cache_salt": "x", "request_id": "y", "return_token_ids": True}
    yield chat, {"messages": last, "chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 9, **kept}
    yield completions, {"prompt": "hello <think>\n", "max_tokens": 12, "n": 1, "echo": True, "logprobs": 2}
    yield completions, {"prompt": ["a", "b"], "max_tokens": 4, "stream_options": {"include_usage": False}}
    yield completions, {"prompt": [1, 2, 3], "max_tokens": 4}
    yield completions, {"prompt": [[1, 2], [3]], "max_tokens": 4, "best_of": 2}
    choice = {"tools": _MESSAGES_TOOLS, "tool_choice": {"type": "auto"}, "stop_sequences": ["z"]}
    told = {"system": [{"type": "text", "text": "s"}], "metadata": {"user_id": "u"}}
    yield messages, {"messages": _MESSAGES, "max_tokens": 30, **choice, **told}
    yield messages, {"messages": _MESSAGES[:1], "max_tokens": 30, "system": "s", "thinking": {"type": "adaptive"}}
    form = {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}}
    said: Body = {"instructions": "i", "tools": _RESPONSES_TOOLS, "tool_choice": "auto", "store": False}
    yield responses, {"input": _INPUT, "max_output_tokens": 30, **said, **form, "reasoning": {"effort": "low"}}
    shown = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "truncation": "auto"}
    yield responses, {"input": "hi", "max_output_tokens": 20, "metadata": {"a": "b"}, **shown}
    kept_for_us = [*_KEPT, *_INPUT[:1], {"type": "compaction_trigger"}]
    yield responses, {"input": kept_for_us, "include": ["reasoning.encrypted_content"], "tools": _RESPONSES_TOOLS}
    yield responses, {"input": "x", "previous_response_id": "resp_" + "0" * 48, "background": False}


def _small() -> Iterator[tuple[str, Body]]:
    yield "/v1/messages/count_tokens", {"messages": _MESSAGES, "tools": _MESSAGES_TOOLS}
    yield "/v1/responses/input_tokens", {"input": [*_KEPT, *_INPUT], "tools": _RESPONSES_TOOLS, "instructions": "i"}
    yield "/v1/responses/compact", {"input": [*_KEPT, *_INPUT], "tools": _RESPONSES_TOOLS, "max_output_tokens": 30}
    yield "/v1/embeddings", {"input": ["a", "b"]}
    yield "/v1/rerank", {"query": "a", "documents": ["b", "c"], "top_n": 1}
    yield "/v1/score", {"text_1": "a", "text_2": ["b", "c"]}
    yield "/pooling", {"messages": _CHAT[-1:]}
    yield "/tokenize", {"messages": _CHAT, "tools": _TOOLS, "add_generation_prompt": True}
    yield "/tokenize", {"prompt": "abc"}
    yield "/detokenize", {"tokens": [1, 2, 3]}


SEEDS: tuple[tuple[str, Body], ...] = (
    *((path, {"model": MODEL, "stream": True, **body}) for path, body in _answering()),
    *((path, {"model": ALIAS, **body}) for path, body in _answering()),
    *((path, {"model": MODEL, **body}) for path, body in _small()),
)

TEXTS = (
    *(
        "",
        "a",
        "x" * 3000,
        "\0",
        "\ud800",
        "a\udfff",
        "😀" * 20,
        "é\u0301\u202e\ufeff\U0010ffff",
        "</think>",
        "<think>",
    ),
    *(
        "auto",
        "none",
        "required",
        "any",
        "tool",
        "function",
        "custom",
        "namespace",
        "grammar",
        "text",
        "image",
        "image_url",
    ),
    *(
        "input_text",
        "input_image",
        "output_text",
        "refusal",
        "tool_use",
        "tool_result",
        "tool_addition",
        "tool_removal",
    ),
    *("compaction", "compaction_trigger", "web_search_call", COMPACTION, REASONING + "YQ=="),
    *("thinking", "message", "reasoning", "function_call", "function_call_output", "in_progress", "json_object"),
    *("resp_" + "0" * 48, "resp_zz", "1", "10.0", "1e400", "NaN", "true", MODEL, ALIAS, "../..", "a\r\nb: c"),
    *(
        "\x1b[31m",
        '{"a":',
        "[" * 1500,
        "system",
        "user",
        "assistant",
        "developer",
        "low",
        "high",
        "enabled",
        "disabled",
    ),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 5, 50, 1000, 32768, 10**6, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30)),
    *(0.0, -0.0, 0.5, 1.0, 4.0, 1e15, 1e308, -1e-320),
)
RAW = (
    *("NaN", "-Infinity", "1e400", "-1E+400", "9" * 5000, "0." + "1" * 5000, "1e-9999", "-0", "1E2", "01", "+1", ".5"),
    *(
        '{"a":1,"a":2}',
        '{"a":{"b":[{"c":1,"\\u0063":2}]}}',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
    ),
    *('"\\/\\u0022"', '"\x01"', "'a'", "undefined", "True", "[1,]", "{,}", '{"a"}', "/**/1", ""),
    *("[" * depth + "]" * depth for depth in (98, 99, 100, 260, 1100, 9000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (98, 99, 100, 260, 1100, 9000)),
    "[" * 5000,
    "[" + ",".join("1" * 3000) + "]",
    '{"' + "k" * 5000 + '":1}',
    "[" + ",".join(['{"a":[{}]}'] * 200) + "]",
)
"""What `json.dumps` would not write: put in the place of a marker."""

_MARK = "\x02raw"
_KEYS = (
    *("model", "messages", "stream", "stream_options", "include_usage", "max_tokens", "max_completion_tokens"),
    *("max_output_tokens", "n", "best_of", "tools", "tool_choice", "functions", "function_call", "response_format"),
    *("chat_template_kwargs", "thinking", "reasoning", "reasoning_effort", "thinking_token_budget", "output_config"),
    *("include_reasoning", "nvext", "nvidia", "prompt", "input", "instructions", "system", "previous_response_id"),
    *("background", "store", "conversation", "vllm_xargs", "cache_salt", "priority", "logprobs", "top_logprobs"),
    *("echo", "stop", "stop_sequences", "metadata", "user", "user_id", "content", "role", "type", "text", "tool_calls"),
    *(
        "function",
        "arguments",
        "name",
        "id",
        "status",
        "include",
        "truncation",
        "format",
        "schema",
        "summary",
        "source",
    ),
    *("continue_final_message", "add_generation_prompt", "prompt_logprobs", "return_token_ids", "prompt_embeds"),
    *("truncate_prompt_tokens", "structured_outputs", "use_beam_search", "min_tokens", "ignore_eos", "documents"),
    *("prompt_cache_key", "chat_template", "parameters", "strict", "defer_loading", "namespace", "call_id", "output"),
    *("encrypted_content", "image_url", "budget_tokens", "effort", "enable_thinking", "low_effort", "exclude"),
    *("__proto__", "", "\0", 'a"b', "x" * 200, "\ud800", "😀"),
)


def draw(rng: random.Random) -> tuple[str, bytes]:
    """A path and the bytes of a body for it."""
    path, body = rng.choice(SEEDS)
    if rng.random() < 0.6:
        body = {**body, **rng.choice(THINKING)}
    try:
        return path, encode(rng, mutate(rng, body))
    except RecursionError:  # of what writes it here
        return path, b"[" * rng.randrange(1, 100_000)


def mutate(rng: random.Random, body: Body) -> Body:
    """A copy with one to five changes, anywhere in it."""
    body = json.loads(json.dumps(body))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        place = rng.choice(list(_places(body, ())))
        if place:
            _change(rng, body, place)
        else:
            body[rng.choice(_KEYS)] = _value(rng, 0)
    return body


def _change(rng: random.Random, body: Body, place: tuple[Any, ...]) -> None:
    parent: Any = body
    for step in place[:-1]:
        parent = parent[step]
    last = place[-1]
    kinds = ("value", "drop", "wrap", "add", "repeat", "deepen", "text", "graft")
    match rng.choices(kinds, (40, 15, 10, 15, 5, 3, 5, 12))[0]:
        case "value" if last == "arguments" and rng.random() < 0.3:
            parent[last] = rng.choice(('{"a":', "[", "[ ", "[1,")) * rng.choice((99, 400, 501, 1100, 6000))
        case "drop":
            del parent[last]
        case "wrap":
            parent[last] = [parent[last]]
        case "add" if isinstance(parent, dict):
            parent[rng.choice(_KEYS)] = _value(rng, 0)
        case "repeat" if isinstance(parent[last], list):
            parent[last] = parent[last] * rng.choice((2, 3, 20))
        case "deepen":
            for _ in range(rng.choice((3, 96, 97, 98, 99, 120, 300))):
                parent[last] = [parent[last]] if rng.random() < 0.5 else {"a": parent[last]}
        case "text":
            parent[last] = rng.choice(TEXTS) * 2
        case "graft":
            parent[last] = _part(rng)
        case _:
            parent[last] = _value(rng, 0)


def _part(rng: random.Random) -> Any:
    """Something that stands elsewhere, in any dialect."""
    _, part = rng.choice(SEEDS)
    grafted: Any = json.loads(json.dumps(part))
    for _ in range(rng.randrange(1, 6)):
        if not isinstance(grafted, dict | list) or not grafted:
            break
        grafted = rng.choice(list(grafted.values()) if isinstance(grafted, dict) else grafted)
    return grafted


def _value(rng: random.Random, depth: int) -> Any:
    match rng.choices(("null", "bool", "number", "text", "raw", "list", "object"), (12, 8, 25, 27, 5, 12, 11))[0]:
        case "null":
            return None
        case "bool":
            return rng.random() < 0.5
        case "number":
            return rng.choice(NUMBERS)
        case "raw":
            return f"{_MARK}{rng.randrange(len(RAW))};"
        case "list" if depth < 4:
            return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case "object" if depth < 4:
            return {rng.choice(_KEYS): _value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(TEXTS)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(child, (*path, key))


def encode(rng: random.Random, body: Body) -> bytes:
    """Mostly plain JSON, now and then spelled oddly or broken."""
    separators = rng.choice(((",", ":"), (", ", ": ")))
    text = json.dumps(body, ensure_ascii=rng.random() < 0.3, separators=separators)
    mark = json.dumps(_MARK)[:-1]
    while mark in text:
        before, _, after = text.partition(mark)
        number, _, after = after.partition(';"')
        text = before + RAW[int(number)] + after
    raw = text.encode(errors="surrogatepass")
    return _respell(rng, raw) if rng.random() < 0.15 and raw else raw


def _respell(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return rng.choice(
        (
            lambda: raw.replace(b"{", b'{"model":"a",', 1),
            lambda: raw.replace(b'"m', b'"\\u006d', 1),
            lambda: raw.replace(b":", b':1e400,"q":', 1),
            lambda: raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :],
            lambda: raw[:at] + raw[at : at + 40] + raw[at:],
            lambda: raw[:at],
            lambda: b"\xef\xbb\xbf" + raw,
            lambda: raw.decode("utf-8", "replace").encode("utf-16"),
            lambda: b" \r\n\t" + raw + b"\n\n",
            lambda: raw + raw,
            lambda: raw.replace(b",", b",\r\nupgrade:", 1),
        )
    )()
