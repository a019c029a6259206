"""Bodies, over kept connections: each answer in its dialect's shape, and nothing that a node reads otherwise."""

import asyncio
import json
import random
from typing import Any

from gateway.core.dialects import DIALECTS
from tests.fuzz.grammar import draw
from tests.fuzz.modes import KEY
from tests.fuzz.trial import PATIENCE, Trial
from tests.fuzz.watch import fault_of
from tests.support.raw import RawClient, head, raw_client

CLIENTS = 8

_UNTOUCHED = (
    "messages",
    "prompt",
    "input",
    "system",
    "instructions",
    "tools",
    "stop",
    "temperature",
    "top_p",
    "tokens",
)
"""Fields that no rule changes: a node asked in the client's dialect gets them as they came, but for what it does not
know (`Dialect.adapt`)."""

_DIALECTS = {dialect.path: dialect for dialect in DIALECTS}


async def fuzz_bodies(trial: Trial, numbers: range) -> None:
    """Send the bodies with these numbers, each one drawn from the trial's seed and its number."""
    await asyncio.gather(*(_client(trial, numbers[first::CLIENTS]) for first in range(CLIENTS)))


async def _client(trial: Trial, numbers: range) -> None:
    at = 0
    while at < len(numbers):
        async with raw_client(trial.gateway.port, PATIENCE) as client:
            while at < len(numbers):
                at += 1
                if not await _one(trial, client, numbers[at - 1]):
                    break


async def _one(trial: Trial, client: RawClient, number: int) -> bool:
    """Whether the connection can be used again."""
    rng = random.Random(f"{trial.seed} {number}")
    path, raw = draw(rng)
    leaves = rng.random() < 0.02
    lines: tuple[str, ...] = (
        f"authorization: Bearer {KEY}",
        f"traceparent: {_mark(number)}",
        f"content-length: {len(raw)}",
    )
    if rng.random() < 0.1:
        lines += ("origin: https://a.example", "x-forwarded-for: 10.0.0.1", "x-session-id: s")
    await client.send(head("POST", path, *lines) + raw)
    if leaves:
        trial.done["left"] += 1
        await asyncio.sleep(rng.random() * 0.005)
        return False
    try:
        got = await client.answer()
    except TimeoutError:
        trial.blame("bodies", number, raw, f"{path}: no answer in {PATIENCE:g} s")
        return False
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        trial.blame("bodies", number, raw, f"{path}: cut ({type(error).__name__})")
        return False
    trial.done[str(got.status)] += 1
    fault = fault_of(path, got) or _misread(trial, path, number, raw)
    if fault is not None:
        trial.blame("bodies", number, raw, f"{path}: {fault}")
    trial.look("bodies", number, raw)
    return got.headers.get("connection") != "close"


def _mark(number: int) -> str:
    """The `traceparent` by which the node's side of a request is found."""
    return f"00-{number + 1:032x}-{1:016x}-00"


def _misread(trial: Trial, path: str, number: int, raw: bytes) -> str | None:
    asked = trial.node.got.pop(_mark(number), None)
    if asked is None or asked[0] != path:
        return None
    sent: dict[str, Any] = json.loads(raw)
    dialect = _DIALECTS[path]
    if dialect.adapts:
        sent |= dialect.adapt(sent)
    for name in _UNTOUCHED:
        if asked[1].get(name) != sent.get(name):
            return f"{name} reached the node as {str(asked[1].get(name))[:200]}"
    return None
