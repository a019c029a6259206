"""Sends drawn requests by the real SDKs through a gateway, and says what became of each."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import anthropic
import openai

from tests.fuzz.node import FuzzNode
from tests.sdks.drawing import Body
from tests.sdks.requests import CALLS, Call, draw_request
from tests.support.nodes import MODEL

CLIENTS = 8

Client = openai.AsyncOpenAI | anthropic.AsyncAnthropic


class Outcome(NamedTuple):
    """One request and its answer. `got`: path and body as the node was asked, None where it was not. `error`: the body
    of a refusal."""

    call: Call
    number: int
    stream: bool
    sent: Body
    status: int
    error: Body
    got: tuple[str, Body] | None


async def send_requests(sdk: str, node: FuzzNode, url: str, key: str, numbers: range) -> list[Outcome]:
    """Send the requests with these numbers, each drawn from its number."""
    outcomes = await asyncio.gather(*(_send(sdk, node, url, key, numbers[n::CLIENTS]) for n in range(CLIENTS)))
    return [each for some in outcomes for each in some]


async def _send(sdk: str, node: FuzzNode, url: str, key: str, numbers: range) -> list[Outcome]:
    calls = [call for call in CALLS if call.sdk == sdk]
    async with _client(sdk, url, key) as client:
        return [await _one(client, node, calls, number) for number in numbers]


def _client(sdk: str, url: str, key: str) -> Client:
    if sdk == "openai":
        return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=60)


async def _one(client: Client, node: FuzzNode, calls: Sequence[Call], number: int) -> Outcome:
    rng = random.Random(number)
    call = rng.choices(calls, [each.share for each in calls])[0]
    stream = call.streams and rng.random() < 0.5
    sent = draw_request(rng, call, MODEL, stream)
    method: Any = client
    for name in call.method.split("."):
        method = getattr(method, name)
    mark = f"00-{1 + (call.sdk == 'openai'):08x}{number:024x}-{1:016x}-00"
    status, error = 200, {}
    try:
        answer = await method(**json.loads(json.dumps(sent)), extra_headers={"traceparent": mark})
        if stream:
            async for _ in answer:
                pass
    except (openai.APIStatusError, anthropic.APIStatusError) as refusal:
        status = refusal.status_code
        error = refusal.response.json()
    except (openai.APIError, anthropic.APIError) as broken:
        status, error = 0, {"error": {"message": repr(broken)}}
    return Outcome(call, number, stream, sent, status, error.get("error", error), node.got.pop(mark, None))
