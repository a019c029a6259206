"""Agents behind a gateway on fake nodes, in real time: what a plan of a workload is held against."""

import asyncio
import itertools
import json
import re
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import httpx

from tests.support.crowd import CHAT, ask
from tests.support.fake_process import FakeProcess, fake_process
from tests.support.gateways import running_gateway
from workers.workload.closed_loop import SteadyState, steady_states
from workers.workload.speed import DecodePoint, NodeSpeed
from workers.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class LiveCase:
    """`fresh` and `shared` are words of a prompt: new ones each turn, and those of the agent itself."""

    agents: int
    nodes: int
    pause: float
    fresh: int
    shared: int
    output: int
    prefill: float
    rate: float


@dataclass(slots=True)
class Live:
    """What the agents saw behind the warm-up, and what the gateway counted in all."""

    seconds: float
    first_tokens: list[float] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    cacheds: list[int] = field(default_factory=list)
    errors: int = 0
    recomputed: int = 0
    resumes: int = 0

    @property
    def first_token(self) -> float:
        return fmean(self.first_tokens)

    @property
    def turns_per_second(self) -> float:
        return len(self.first_tokens) / self.seconds

    @property
    def input(self) -> float:
        return fmean(self.inputs)

    @property
    def cached(self) -> float:
        return fmean(self.cacheds)


def predict(live: LiveCase, seen: Live) -> SteadyState:
    """The busiest node by the model, for prompts as long and as cached as they were."""
    workload = Workload(
        agents=live.agents,
        input=seen.input,
        cached=min(seen.cached, seen.input),
        output=live.output,
        pause=live.pause,
        spread=0,
    )
    speed = NodeSpeed(live.prefill, (DecodePoint(1e6, live.rate),), 1_000_000, "given", "given")
    *_, last = steady_states(workload, speed, -(-live.agents // live.nodes))
    return last


async def play(live: LiveCase, seconds: float, kills: bool = False) -> Live:
    """`seconds` of all agents, the first quarter thrown away. `kills`: one node dies in the middle."""
    options = ("--rate", str(live.rate), "--prefill-rate", str(live.prefill), "--thinking-tokens", "0")
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(fake_process(*options)) for _ in range(live.nodes)]
        gateway = await stack.enter_async_context(running_gateway(*[node.url for node in nodes]))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=120, limits=httpx.Limits()))
        seen = Live(seconds * 3 / 4)
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(live.agents):
                group.create_task(_agent(client, gateway.url, live, number, begun, seconds, seen))
            if kills:
                group.create_task(_kill(nodes[0], seconds / 2))
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
        seen.recomputed = _total(page, "fleetgate_recomputed_tokens_total")
        seen.resumes = _total(page, "fleetgate_resumes_total")
    return seen


async def _kill(node: FakeProcess, after: float) -> None:
    await asyncio.sleep(after)
    await node.kill()


async def _agent(
    client: httpx.AsyncClient, url: str, live: LiveCase, number: int, begun: float, seconds: float, seen: Live
) -> None:
    await asyncio.sleep(live.pause * number / live.agents)
    own = " ".join(f"agent{number}word{i}" for i in range(live.shared // 8))
    for turn in itertools.count():
        if time.monotonic() - begun > seconds:
            return
        fresh = " ".join(f"turn{turn}of{number}word{i}" for i in range(live.fresh // 8))
        body = ask(f"[[think=0]][[answer={live.output}]] {fresh}", stream=True, max_tokens=live.output)
        body["messages"].insert(0, {"role": "system", "content": own})
        body["stream_options"] = {"include_usage": True}
        asked = time.monotonic()
        first, usage = await _turn(client, url, body, asked)
        ended = time.monotonic() - begun
        if usage is None:
            seen.errors += 1
        elif seconds / 4 <= ended < seconds and first is not None:
            seen.first_tokens.append(first)
            seen.inputs.append(usage["prompt_tokens"])
            seen.cacheds.append((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        await asyncio.sleep(live.pause)


async def _turn(
    client: httpx.AsyncClient, url: str, body: dict[str, object], asked: float
) -> tuple[float | None, dict[str, Any] | None]:
    """Seconds to the first text, and the answer's usage; None where it did not come."""
    first, usage = None, None
    async with client.stream("POST", url + CHAT, json=body) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("error"):
                raise AssertionError(f"a stream ended with {event['error']}")
            usage = event.get("usage") or usage
            delta = event["choices"][0]["delta"] if event.get("choices") else {}
            if first is None and (delta.get("content") or delta.get("reasoning")):
                first = time.monotonic() - asked
    return first, usage


def _total(page: str, metric: str) -> int:
    found = re.findall(rf"^{metric}{{.*}} ([0-9.e+]+)$", page, re.MULTILINE)
    return round(sum(map(float, found)))
