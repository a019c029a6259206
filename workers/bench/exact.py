"""One answer at temperature 0, token by token, with how sure the model was of each."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from workers.bench.answers import CHAT, EndlessLine, events_of, first_bytes, message_in, printable
from workers.errors import NodeFailed

NEAR_TIE = 0.5
"""Nats between the two likeliest tokens. Below it, rounding decides: another batch, or a prompt computed in other
pieces, may choose the other one, and both are right (bfloat16 moves a logit of 20 by 0.06 and more)."""


@dataclass(slots=True)
class Exact:
    """`tokens`: ids where the node tells them, else texts; `margins`: nats between each token and its likeliest rival,
    empty where the node tells no probabilities. Times are monotonic seconds, None before the first token."""

    tokens: list[str] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    cached: int | None = None
    sent: float = 0.0
    first: float | None = None
    end: float = 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part: the token's place, and the greater margin of the two there (None: not told): a cache that
    is wrong may make the model sure of another token, or unsure where it was sure."""

    place: int
    margin: float | None

    @property
    def is_near_tie(self) -> bool:
        """Whether rounding alone may have decided."""
        return self.margin is not None and self.margin < NEAR_TIE


def compare(one: Exact, other: Exact, tokens: int | None = None) -> Difference | None:
    """The first difference within the first `tokens` (None: all); None where there is none."""
    left, right = one.tokens[:tokens], other.tokens[:tokens]
    if left == right:
        return None
    shorter = min(len(left), len(right))
    place = next((i for i in range(shorter) if left[i] != right[i]), shorter)
    margins = [each.margins[place] for each in (one, other) if place < len(each.margins)]
    return Difference(place, max(margins, default=None))


async def ask_exactly(
    client: httpx.AsyncClient,
    model: str,
    prompt: str,
    tokens: int,
    salt: str,
    seconds: float,
    begun: Callable[[], None] = lambda: None,
) -> Exact:
    """Ask for exactly `tokens`. Another `salt` shares no cache; `begun` is called with the first token.

    Raises NodeFailed with what the node said.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": tokens,
        "min_tokens": tokens,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": 2,
        "return_token_ids": True,
        "cache_salt": salt,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = Exact(sent=time.monotonic())
    try:
        async with asyncio.timeout(seconds), client.stream("POST", CHAT, json=body) as response:
            if not response.is_success:
                raise NodeFailed(f"HTTP {response.status_code}: {message_in(await first_bytes(response))}")
            async for event in events_of(response):
                if not _take(event, answer, begun):
                    answer.end = time.monotonic()
                    return answer
    except TimeoutError as error:
        raise NodeFailed(f"no whole answer within {seconds:g} s") from error
    except (httpx.HTTPError, EndlessLine, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise NodeFailed(printable(f"{type(error).__name__}: {error}")) from error
    raise NodeFailed("the stream ended without [DONE]")


def _take(text: str, answer: Exact, begun: Callable[[], None]) -> bool:
    if text == "[DONE]":
        if not answer.tokens:
            raise NodeFailed("an answer without a token")
        return False
    chunk = json.loads(text)
    if chunk.get("error"):
        raise NodeFailed(f"an error event: {json.dumps(chunk['error'])[:300]}")
    if chunk.get("usage"):
        answer.cached = (chunk["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", answer.cached)
    for choice in chunk.get("choices") or ():
        _take_choice(choice, answer, begun)
    return True


def _take_choice(choice: dict[str, Any], answer: Exact, begun: Callable[[], None]) -> None:
    told = (choice.get("logprobs") or {}).get("content") or []
    ids = choice.get("token_ids")
    tokens = [str(each) for each in ids] if ids else [str(each["token"]) for each in told]
    if not tokens:
        return
    if answer.first is None:
        answer.first = time.monotonic()
        begun()
    answer.tokens += tokens
    if len(told) == len(tokens):
        answer.margins += [_margin(each.get("top_logprobs") or []) for each in told]


def _margin(likeliest: Sequence[dict[str, Any]]) -> float:
    chances = sorted((float(each["logprob"]) for each in likeliest), reverse=True)
    return chances[0] - chances[1] if len(chances) > 1 else float("inf")
