"""Which requests tell how many bytes of text a token is: those whose prompt is nothing but its text.

A node counts what it made of a prompt, the gateway measures bytes. The two can be compared only where nothing else came
between: a picture is thousands of tokens and no text, a truncated prompt much text and few tokens, a prompt of token
ids no text at all, a stored response brings a prompt that nobody measured. So a request teaches only where its body has
nothing but fields of this list, and its turns nothing but text.
"""

from typing import Any, Final

from gateway.core.bodies import Body
from gateway.core.reading.outline import Outline

SHORTEST: Final = 64
"""Tokens of a prompt from which it tells something: a shorter one is mostly the template's."""

LONGEST = 4000
"""Parts of a prompt that are looked at; one with more is left out, for what looking costs."""

_TEXT_ALONE = frozenset(
    {
        "chat_template_kwargs",
        "frequency_penalty",
        "ignore_eos",
        "include_reasoning",
        "input",
        "instructions",
        "logprobs",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "min_p",
        "min_tokens",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "return_token_ids",
        "seed",
        "service_tier",
        "stop",
        "stop_sequences",
        "store",
        "stream",
        "stream_options",
        "structured_outputs",
        "system",
        "temperature",
        "text",
        "thinking",
        "thinking_token_budget",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""What comes after the prompt, such as `n` or `logprobs`, does not change how long it is."""

_TURNS = ("messages", "system", "input", "prompt")

_TYPES = frozenset(
    {
        None,
        "function",
        "function_call",
        "function_call_output",
        "input_text",
        "message",
        "output_text",
        "reasoning",
        "reasoning_text",
        "summary_text",
        "text",
        "thinking",
        "tool_result",
        "tool_use",
    }
)

_MEDIA = frozenset(
    {
        "audio_url",
        "data",
        "file",
        "file_data",
        "file_id",
        "image",
        "image_url",
        "input_audio",
        "source",
        "url",
        "video_url",
    }
)


def is_text(body: Body) -> bool:
    """Whether the prompt of `body` is its text, one prompt and all of it."""
    if type(body) is Outline or not body.keys() <= _TEXT_ALONE:
        return False
    waiting: list[Any] = []
    for name in _TURNS:
        turns = body.get(name)
        if type(turns) is list:
            if type(next(iter(turns), None)) is not dict and len(turns) != 1:
                return False  # several prompts
            waiting += turns
        elif turns is not None and type(turns) is not str:
            return False
    return _are_text(waiting)


def _are_text(waiting: list[Any]) -> bool:
    seen = 0
    while waiting:
        seen += 1
        part = waiting.pop()
        if type(part) is str or part is None:
            continue
        if type(part) is not dict or seen > LONGEST:
            return False
        kind = part.get("type")
        if not _MEDIA.isdisjoint(part) or not (kind is None or type(kind) is str) or kind not in _TYPES:
            return False
        for name in ("content", "output", "summary"):
            inner = part.get(name)
            if type(inner) is list:
                waiting += inner
            elif inner is not None and type(inner) is not str:
                return False
    return True
