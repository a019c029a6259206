"""One streamed answer of the node: what came when, and what went wrong."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from workers.bench.workloads import Question

CHAT = "/v1/chat/completions"
SHOWN = 160
DATA = b"data:"
LONGEST_LINE = 4_000_000
LONGEST_MESSAGE = 65_536
MOST_EVENTS = 1_000_000
PARTS = ("content", "reasoning", "reasoning_content", "tool_calls")


@dataclass(slots=True)
class Answer:
    """Times are seconds of a monotonic clock. `events` are those that brought tokens; `tokens` is the node's own count,
    or that of the events where it does not tell. `failure` None: nothing went wrong. `whole`: it came to its end."""

    sent: float
    events: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    counted: int | None = None
    failure: str | None = None
    whole: bool = False

    @property
    def first(self) -> float | None:
        """When the first token came."""
        return self.events[0] if self.events else None

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return len(self.events) if self.counted is None else max(self.counted, 1 if self.events else 0)


def body_of(question: Question, model: str) -> dict[str, Any]:
    """The request. Its answer has exactly the wanted length: ends of the model's own are ignored."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": question.output_tokens,
        "min_tokens": question.output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


async def ask(client: httpx.AsyncClient, body: Mapping[str, Any], seconds: float, answer: Answer) -> None:
    """Fill `answer` as the node's comes. Every way in which that can fail ends in `answer.failure`."""
    try:
        async with asyncio.timeout(seconds), client.stream("POST", CHAT, json=body) as response:
            if response.status_code != httpx.codes.OK:
                answer.failure = f"HTTP {response.status_code}: {message_in(await first_bytes(response))}"
                return
            async for event in events_of(response):
                if _take(event, answer):
                    return
                if len(answer.events) > MOST_EVENTS:
                    answer.failure = f"a stream of more than {MOST_EVENTS:,} tokens"
                    return
        answer.failure = "the stream ended without [DONE]"
    except TimeoutError:
        answer.failure = f"no whole answer within {seconds:g} s"
    except (httpx.HTTPError, EndlessLine) as error:
        answer.failure = printable(f"{type(error).__name__}: {error}")


class EndlessLine(Exception):
    """A line of a stream that does not end."""


async def events_of(response: httpx.Response) -> AsyncIterator[str]:
    """The data of each event of a stream. Raises EndlessLine."""
    rest = b""
    async for data in response.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise EndlessLine(f"a line of more than {LONGEST_LINE:,} bytes")
        for line in lines:
            if line.startswith(DATA):
                yield line[len(DATA) :].decode(errors="replace").strip()


async def first_bytes(response: httpx.Response) -> bytes:
    """The beginning of a body: as much as a message needs."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) > LONGEST_MESSAGE:
            break
    return body[:LONGEST_MESSAGE]


def printable(text: str) -> str:
    """What a node said, in one short line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)[:SHOWN]


def _take(text: str, answer: Answer) -> bool:
    """Take one event; True at the end."""
    if text == "[DONE]":
        answer.whole = answer.failure is None and bool(answer.events)
        if not answer.whole and answer.failure is None:
            answer.failure = "an answer without a token"
        return True
    try:
        chunk = json.loads(text)
        usage, choices, error = chunk.get("usage"), chunk.get("choices") or (), chunk.get("error")
        brings = any((choice.get("delta") or {}).get(part) for choice in choices for part in PARTS)
        if usage is not None:
            _take_usage(usage, answer)
    except (ValueError, RecursionError, AttributeError, TypeError):
        answer.failure = f"an event that is no chunk: {printable(text)}"
        return True
    if error is not None:
        answer.failure = f"an error event: {json.dumps(error)[:SHOWN]}"
    if brings:
        answer.events.append(time.monotonic())
    return False


def _take_usage(usage: Mapping[str, Any], answer: Answer) -> None:
    prompt, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    answer.prompt_tokens = prompt if isinstance(prompt, int) else answer.prompt_tokens
    answer.counted = made if isinstance(made, int) else answer.counted
    answer.cached_tokens = cached if isinstance(cached, int) else answer.cached_tokens


def message_in(body: bytes) -> str:
    """The message of an error body, in one line."""
    try:
        document = json.loads(body)
        error = document.get("error", document)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, RecursionError, AttributeError):
        text = body[: 4 * SHOWN].decode(errors="replace")
    return printable(" ".join(str(text).split()))
