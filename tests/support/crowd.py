"""Many clients at once, and what each of them saw."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.nodes import MODEL

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Seen:
    """One client's answer: `status` 0 where the connection broke. `whole`: it came to its proper end."""

    status: int
    whole: bool
    body: bytes
    headers: httpx.Headers

    @property
    def code(self) -> str | None:
        """The code of its error, wherever it stands."""
        last = self.body.strip().split(b"\n")[-1].removeprefix(b"data: ")
        try:
            code: str | None = json.loads(last)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None
        return code


def ask(text: str = "hello", stream: bool = False, **fields: Any) -> dict[str, Any]:
    """A chat request; texts differ where their bodies should."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": stream, **fields}


async def send(url: str, body: dict[str, Any], **headers: str) -> Seen:
    """One request on a connection of its own."""
    async with httpx.AsyncClient(timeout=30) as client:
        return await send_by(client, url, body, **headers)


async def send_by(client: httpx.AsyncClient, url: str, body: dict[str, Any], **headers: str) -> Seen:
    try:
        got = await client.post(url + CHAT, json=body, headers=headers)
    except httpx.HTTPError:
        return Seen(0, False, b"", httpx.Headers())
    whole = got.status_code == 200
    if body.get("stream"):
        whole = whole and got.content.endswith(b"data: [DONE]\n\n") and b'"error"' not in got.content
    return Seen(got.status_code, whole, got.content, got.headers)


async def crowd(
    url: str, count: int, stream: bool = False, text: str = "hello", at_once: int = 100, **fields: Any
) -> Sequence[Seen]:
    """`count` requests with different bodies, `at_once` at a time."""
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=at_once)) as client:

        async def one(number: int) -> Seen:
            async with gate:
                return await send_by(client, url, ask(f"{text} {number}", stream, **fields))

        return await asyncio.gather(*map(one, range(count)))


def lost(seen: Sequence[Seen]) -> list[tuple[int, str | None]]:
    """Status and error of those that were not answered whole; what broke where there is no status."""
    return [(one.status, one.code if one.status else one.body.decode()) for one in seen if not one.whole]


def text_of(seen: Seen) -> tuple[str, str]:
    """Thinking and answer of a stream that came whole."""
    assert seen.whole, seen
    events = [json.loads(line[6:]) for line in seen.body.decode().splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    reasoning, content = ("".join(delta.get(name) or "" for delta in deltas) for name in ("reasoning", "content"))
    return reasoning, content
