"""Agents that talk in turns: each knows its conversation, waits as a tool would, and tells how long it waited.

All share one long system prompt. Every turn sends the whole conversation again, so that a prefix cache is worth
most of it, if the request comes to the node that has it.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from loadtest.answers import MODEL

WORDS = ("bridge", "city", "field", "forest", "garden", "house", "island", "lake", "letter", "light", "music", "river")
"""Each is one token to the fake node."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What the agents do: how many sessions of how many turns, tokens of the parts, seconds between turns."""

    sessions: int = 32
    turns: int = 8
    system: int = 2000
    user: int = 500
    pause: float = 2.0


@dataclass(slots=True)
class Heard:
    """What came back: seconds to the first token of each request, prompt tokens and how many of them were cached."""

    ttft: list[float] = field(default_factory=list)
    prompt: int = 0
    cached: int = 0
    failed: int = 0

    def quantile(self, share: float) -> float:
        """Of the waits, in seconds."""
        waits = sorted(self.ttft)
        return waits[min(int(share * len(waits)), len(waits) - 1)] if waits else float("nan")

    @property
    def hit_rate(self) -> float:
        """The share of prompt tokens that the nodes had in their caches."""
        return self.cached / self.prompt if self.prompt else 0.0


async def talk(urls: Sequence[str], what: Talk, midway: Callable[[], None], seed: int) -> Heard:
    """Hold all sessions through `urls`, request by request in turn, as a load balancer without memory deals them.

    `midway` is called once, when half of the requests are answered.
    """
    heard, turns, half = Heard(), itertools.count(), what.sessions * what.turns // 2
    gateways = itertools.cycle(urls)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:

        async def session(number: int) -> None:
            dice = random.Random(seed * 1000 + number)
            messages = [{"role": "system", "content": _text(random.Random(seed), what.system)}]
            await asyncio.sleep(dice.random() * what.pause * 2)
            for _ in range(what.turns):
                messages.append({"role": "user", "content": _text(dice, what.user)})
                answer = await _ask(client, next(gateways), messages, f"session-{seed}-{number}", heard)
                messages.append({"role": "assistant", "content": answer})
                if next(turns) == half:
                    await asyncio.to_thread(midway)
                await asyncio.sleep(dice.expovariate(1 / what.pause))

        await asyncio.gather(*[session(number) for number in range(what.sessions)])
    return heard


async def _ask(client: httpx.AsyncClient, url: str, messages: list[dict[str, str]], session: str, heard: Heard) -> str:
    body = {"model": MODEL, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    headers = {"x-session-id": session}
    began, first, text = time.perf_counter(), 0.0, []
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                for choice in event.get("choices", ()):
                    delta = choice["delta"]
                    if not first and (delta.get("reasoning") or delta.get("content")):
                        first = time.perf_counter() - began
                    text.append(delta.get("content") or "")
                if event.get("usage"):
                    heard.prompt += event["usage"]["prompt_tokens"]
                    heard.cached += (event["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    except httpx.HTTPError:
        heard.failed += 1
    if first:
        heard.ttft.append(first)
    return "".join(text)


def _text(dice: random.Random, tokens: int) -> str:
    return " ".join(dice.choices(WORDS, k=tokens))
