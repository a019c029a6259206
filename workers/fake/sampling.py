"""From a request to what the model is asked: vLLM's checks, lengths, and the script of a constrained answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.fake.errors import Refusal, invalid, unknown_model
from workers.fake.faults import Fault, find
from workers.fake.model import Wishes
from workers.fake.protocol import ChatBody, Generation, NamedChoice
from workers.fake.settings import FakeSettings
from workers.fake.steering import tool_script
from workers.fake.structured import minimal_instance
from workers.fake.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request is answered: lengths in tokens, texts to stop at, choices, what is told besides the text."""

    max_tokens: int
    wishes: Wishes
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    keep_stop: bool = False
    skip_special: bool = True
    think_marks: bool = False
    all_thought: bool = False  # what comes before the end of a thought is counted as one
    tells_thought: bool = True  # and told as one
    beams: bool = False
    token_ids: bool = False
    logprobs: int | None = None
    usage: bool = False
    running_usage: bool = False
    salt: str = ""
    abort_after: int | None = None  # the engine gives the request up once it has made so many tokens


def check_model(body_model: str | None, settings: FakeSettings) -> None:
    """Raises Refusal (404) for a model that is not served; none means the node's own."""
    if body_model and body_model not in settings.models:
        raise unknown_model(body_model, settings.models)


def check_raw(data: Mapping[str, Any]) -> None:
    """The checks that vLLM makes on the raw body, before its types. Raises Refusal (400)."""
    if data.get("stream_options") and not data.get("stream"):
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
    if "cache_salt" in data:
        salt = data["cache_salt"]
        if salt is not None and (not isinstance(salt, str) or not salt):
            raise invalid("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    check_budget(data.get("thinking_token_budget"))


def check_budget(budget: Any) -> None:
    """A thinking budget is an int, at least -1. Raises Refusal (400)."""
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < -1:
        text = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
        raise invalid(text, "thinking_token_budget", budget)


def sampling(
    body: Generation,
    asked: int | None,
    prompt: Sequence[int],
    settings: FakeSettings,
    script: Sequence[int] | None = None,
    name: str = "max_tokens",
) -> Sampling:
    """Reads a body's sampling fields for a prompt. Raises Refusal (400) where vLLM does."""
    _check_numbers(body)
    options = body.stream_options
    usage = bool(options and options.include_usage)
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    # A beam search asks its engine for one token at a time: no budget, no grammar, no stop string reaches it.
    beams = body.use_beam_search
    budget = None if beams else _budget(body.thinking_token_budget, settings)
    wishes = Wishes(
        settings.thinking_tokens,
        settings.answer_tokens,
        budget,
        tuple(script) if script is not None and not beams else None,
        body.ignore_eos,
        0 if beams else body.min_tokens,
    )
    return Sampling(
        max_tokens=room(asked, prompt, settings, name),
        wishes=wishes,
        n=1 if body.n is None else body.n,
        stop=() if beams else tuple(s for s in stop if s),
        stop_ids=frozenset() if beams else frozenset(body.stop_token_ids or ()),
        keep_stop=body.include_stop_str_in_output,
        skip_special=body.skip_special_tokens is not False,
        beams=beams,
        token_ids=bool(body.return_token_ids),
        usage=usage,
        running_usage=usage and bool(options and options.continuous_usage_stats),
        salt=body.cache_salt or "",
    )


def under_faults(plan: Sampling, faults: Sequence[Fault]) -> Sampling:
    """The plan as the faults in force have it."""
    fault = find(faults, "abort")
    return replace(plan, abort_after=max(fault.after, 0)) if fault else plan


def _check_numbers(body: Generation) -> None:
    n = 1 if body.n is None else body.n
    if n < 1:
        raise invalid(f"n must be at least 1, got {n}.")
    if body.temperature is not None:
        _check_temperature(body.temperature)
        if body.temperature == 0 and n > 1 and not body.use_beam_search:
            raise invalid(f"n must be 1 when using greedy sampling, got {n}.")
    if body.top_p is not None and not 0 < body.top_p <= 1:
        raise invalid(f"top_p must be in (0, 1], got {body.top_p}.", "top_p", body.top_p)
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(body, name)
        if value is not None and not -2 <= value <= 2:
            raise invalid(f"{name} must be in [-2, 2], got {value}.")
    if body.top_k is not None and body.top_k < -1:
        raise invalid(f"top_k must be 0 (disable), or at least 1, got {body.top_k}.")
    if body.min_p is not None and not 0 <= body.min_p <= 1:
        raise invalid(f"min_p must be in [0, 1], got {body.min_p}.")


def _check_temperature(value: float) -> None:
    if value < 0:
        raise invalid(f"temperature must be non-negative, got {value}.", "temperature", value)
    if value > 2:
        raise invalid(f"temperature must be in [0, 2], got {value}.", "temperature", value)


def _budget(budget: Any, settings: FakeSettings) -> int | None:
    if budget is None or budget == -1:
        return None
    if settings.budget == "absent" or not settings.reasoning_parser:
        raise invalid(
            "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser "
            "and/or --reasoning-config to use thinking_token_budget."
        )
    return int(budget) if settings.budget == "obey" else None


def room(asked: int | None, prompt: Sequence[int], settings: FakeSettings, name: str = "max_tokens") -> int:
    """The output tokens that a prompt leaves. Raises Refusal (400) when prompt or wish do not fit the window."""
    window = settings.max_model_len
    if asked is not None and asked > window:
        text = f"{name}={asked} cannot be greater than max_model_len={window}. Please request fewer output tokens."
        raise invalid(text, name, asked)
    if asked is not None and asked < 1:
        raise invalid(f"max_tokens must be at least 1, got {asked}.", "max_tokens", asked)
    if len(prompt) > window:
        raise _too_long(window)
    left = window - len(prompt)
    if left < 1:
        raise invalid("max_tokens must be at least 1, got 0.", "max_tokens", 0)
    return left if asked is None else min(left, asked)


def _too_long(window: int) -> Refusal:
    text = (
        f"This model's maximum context length is {window} tokens. However, your prompt contains at least {window + 1} "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        "prompt."
    )
    return invalid(text, "input_tokens", window + 1)


def chat_script(body: ChatBody, tokenizer: Tokenizer) -> list[int] | None:
    """The answer that a schema or a tool choice forces, as token ids; None where the model is free."""
    if body.tools and isinstance(body.tool_choice, NamedChoice):
        wanted = body.tool_choice.function.name
        tool = next(t for t in body.tools if t.function.name == wanted)
        return tokenizer.encode(tool_script(tool.function.model_dump()))
    if body.tools and body.tool_choice == "required":
        return tokenizer.encode(tool_script(body.tools[0].function.model_dump()))
    return grammar_script(body, tokenizer)


def grammar_script(body: Generation, tokenizer: Tokenizer) -> list[int] | None:
    """The answer that a schema forces, as token ids; None without one."""
    schema = _schema(body)
    if schema is None:
        return None
    return tokenizer.encode(json.dumps(minimal_instance(schema), ensure_ascii=False))


def _schema(body: Generation) -> Any:
    given = body.structured_outputs or {}
    if given.get("json") is not None:
        return json.loads(given["json"]) if isinstance(given["json"], str) else given["json"]
    if given.get("choice"):
        return {"enum": given["choice"]}
    if body.response_format is None or body.response_format.type == "text":
        return {"type": "object"} if given.get("json_object") else None
    wanted = body.response_format.json_schema
    return wanted.json_schema if wanted and wanted.json_schema else {"type": "object"}
