"""What one request used, in tokens, whatever its dialect calls them."""

from collections.abc import Mapping
from typing import Any, Final


class Usage:
    """Token counts as the node reported them; None where it did not say.

    `output` includes `reasoning`; `input` includes `cached` (prompt tokens found in the node's prefix cache).
    """

    __slots__ = ("cached", "input", "output", "reasoning")

    def __init__(
        self, input: int = 0, output: int = 0, reasoning: int | None = None, cached: int | None = None
    ) -> None:
        self.input = input
        self.output = output
        self.reasoning = reasoning
        self.cached = cached

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Usage) and self.counts() == other.counts()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Usage{self.counts()}"

    def counts(self) -> tuple[int, int, int | None, int | None]:
        return self.input, self.output, self.reasoning, self.cached


MOST_TOKENS: Final = 10**9
"""More than this no request has: a count beyond it is no count."""


class ObservedWork:
    """What was seen of a node's work on one answer, however little of it went to the client.

    `events`: of its stream, hidden and held ones included. In seconds: `asked` since the request was sent, `flowed`
    from the first event to the last, `paused` of that while the client took nothing, `silent` since the last event.
    """

    __slots__ = ("asked", "events", "flowed", "paused", "silent")

    def __init__(self, events: int = 0, asked: float = 0.0, flowed: float = 0.0, paused: float = 0.0) -> None:
        self.events = events
        self.asked = asked
        self.flowed = flowed
        self.paused = paused
        self.silent = 0.0

    def add(self, events: int, asked: float, flowed: float, paused: float, silent: float) -> None:
        """The answer went on with another request: that is added, but for the silence, which begins anew."""
        self.events += events
        self.asked += asked
        self.flowed += flowed
        self.paused += paused
        self.silent = silent


def from_openai(usage: Mapping[str, Any]) -> Usage | None:
    """Read the `usage` object of chat and completions (`prompt_tokens`, ...) or of responses (`input_tokens`, ...).

    None where a count in it is no count: then nothing of it is believed.
    """
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (type(read) is type(written) is int and 0 <= read <= MOST_TOKENS and 0 <= written <= MOST_TOKENS):
        read = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
        written = _count(usage.get("completion_tokens", usage.get("output_tokens")))
        if read < 0 or written < 0:
            return None
    input_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Usage(
        read,
        written,
        _part(output_details.get("reasoning_tokens"), written) if isinstance(output_details, dict) else None,
        _part(input_details.get("cached_tokens"), read) if isinstance(input_details, dict) else None,
    )


def from_anthropic(usage: Mapping[str, Any], earlier: Usage | None = None) -> Usage | None:
    """Read the `usage` object of messages; a stream's last event need not repeat what its first one said.

    `input_tokens` leaves out the prompt's tokens that were read from the cache and those that were written to it: both
    are counted beside it. What was known `earlier` stays where a count in it is no count.
    """
    base = earlier or Usage()
    cached, read = _count(usage.get("cache_read_input_tokens")), _count(usage.get("input_tokens"))
    created, written = _count(usage.get("cache_creation_input_tokens")), _count(usage.get("output_tokens"))
    if cached < 0 or created < 0 or read < 0 or written < 0:
        return earlier
    known = base.cached if usage.get("cache_read_input_tokens") is None else cached
    details = usage.get("output_tokens_details")
    reported = 0 if usage.get("input_tokens") is None else read + created + (known or 0)
    return Usage(
        input=max(base.input, reported),  # a prompt does not shrink: an event that is silent about the cache says less
        output=written or base.output,
        reasoning=_part(details.get("thinking_tokens"), written) if isinstance(details, dict) else base.reasoning,
        cached=known,
    )


def tokens_lost(lost: float, duration: float, usage: Usage | None) -> int:
    """Output tokens that nodes made in the `lost` of a request's `duration` (both in seconds), at the pace of the rest;
    0 where nobody answered it, since no pace was seen."""
    worked = duration - lost
    return round(usage.output * lost / worked) if usage is not None and worked > 0 else 0


def _count(value: object) -> int:
    """A count of tokens: 0 where the node does not say, -1 where what it says is none."""
    if value is None:
        return 0
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else -1


def _part(value: object, whole: int) -> int | None:
    """A count of some of `whole` tokens; None where it is not said, or no count."""
    return min(value, whole) if type(value) is int and value >= 0 else None
