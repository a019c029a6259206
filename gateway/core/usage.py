"""What one request used, in tokens, whatever its dialect calls them."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """Token counts as the node reported them; None where it did not say.

    `output` includes `reasoning`; `input` includes `cached` (prompt tokens found in the node's prefix cache).
    """

    input: int = 0
    output: int = 0
    reasoning: int | None = None
    cached: int | None = None


def from_openai(usage: Mapping[str, Any]) -> Usage:
    """Read the `usage` object of chat and completions (`prompt_tokens`, ...) or of responses (`input_tokens`, ...)."""
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    input_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    if not (type(read) is type(written) is int and read >= 0 and written >= 0):
        read = _count(usage.get("prompt_tokens", usage.get("input_tokens"))) or 0
        written = _count(usage.get("completion_tokens", usage.get("output_tokens"))) or 0
    return Usage(
        read,
        written,
        _count(output_details.get("reasoning_tokens")) if isinstance(output_details, dict) else None,
        _count(input_details.get("cached_tokens")) if isinstance(input_details, dict) else None,
    )


def from_anthropic(usage: Mapping[str, Any], earlier: Usage | None = None) -> Usage:
    """Read the `usage` object of messages; a stream's last event need not repeat what its first one said."""
    base = earlier or Usage()
    cached = _count(usage.get("cache_read_input_tokens"))
    read = _count(usage.get("input_tokens"))
    return Usage(
        input=base.input if read is None else read + ((base.cached if cached is None else cached) or 0),
        output=_count(usage.get("output_tokens")) or base.output,
        reasoning=base.reasoning,
        cached=base.cached if cached is None else cached,
    )


def tokens_lost(lost: float, duration: float, usage: Usage | None) -> int:
    """Output tokens that nodes made in the `lost` of a request's `duration` (both in seconds), at the pace of the rest;
    0 where nobody answered it, since no pace was seen."""
    worked = duration - lost
    return round(usage.output * lost / worked) if usage is not None and worked > 0 else 0


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
