"""What all endpoints write: JSON as vLLM's server writes it, ids, usage, the heads of answers."""

import json
from collections.abc import Sequence
from json.encoder import encode_basestring
from secrets import token_hex
from typing import Any

from workers.fake.http1 import Exchange, Headers
from workers.fake.settings import FakeSettings

JSON: Headers = ((b"content-type", b"application/json"),)
EVENTS: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)
DONE = b"data: [DONE]\n\n"


def quoted(text: str) -> str:
    """A JSON string, not more escaped than it must be."""
    shown: str = encode_basestring(text)
    return shown


def compact(value: Any) -> str:
    """Compact JSON, UTF-8 kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def answer_json(exchange: Exchange, value: Any, status: int = 200) -> None:
    """A whole JSON answer."""
    exchange.answer(status, compact(value).encode(), JSON)


def random_id() -> str:
    """16 hex digits, as vLLM's ids end."""
    return token_hex(8)


def request_id(exchange: Exchange, given: str | None) -> str:
    """The header's id, else the body's, else a random one."""
    return exchange.header(b"x-request-id") or given or random_id()


def usage(
    settings: FakeSettings,
    prompt: int,
    made: int,
    reasoning: int | None = None,
    cached: int | None = None,
    created: int | None = None,
) -> dict[str, Any]:
    """`usage` of a plain answer, with its nulls. Counts in tokens; None leaves a detail out."""
    shown: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}
    details = cached_details(settings, cached, created)
    shown["prompt_tokens_details"] = details
    if settings.is_032:
        shown["completion_tokens_details"] = None if reasoning is None else {"reasoning_tokens": reasoning}
    return shown


def created_cache(settings: FakeSettings, prompt: int, cached: int) -> int:
    """Tokens of a prompt that its prefill wrote to the prefix cache: those of its full blocks that were not there."""
    return max(0, prompt // settings.block_size * settings.block_size - cached)


def cached_details(settings: FakeSettings, cached: int | None, created: int | None = None) -> dict[str, Any] | None:
    """`usage.prompt_tokens_details`, where the node is set to tell them."""
    if not settings.prompt_tokens_details or cached is None:
        return None
    if settings.is_032:
        return {"cached_tokens": cached, "created_cache_tokens": created, "multimodal_tokens": None}
    return {"cached_tokens": cached}


def without_nulls(value: Any) -> Any:
    """The same JSON without null members, as the last usage event is written."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


def ids_json(ids: Sequence[int] | None) -> str:
    """Token ids as JSON, or null."""
    return "null" if ids is None else "[" + ",".join(map(str, ids)) + "]"
