"""The simulation's question, asked of a real gateway in front of fake nodes.

    python -m tests.pressure.on_fake_nodes line|refusals|elastic|early [--seconds 300] [--seed 1]

Two nodes with four places each decode 200 tokens a second for every request; what they have no place for waits in the
gateway's queue, as long as it takes, or for `TTFT` seconds at the most (refusals). Times are real, so a run takes as
long as it says, and some minutes to come to its end. Prints one row of the table.
"""

import argparse
import asyncio
import math
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import httpx

from gateway.core.telemetry.request_stats import RequestStats
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeSettings, serve_fake

MODEL = "nemotron-3-ultra"
NODES, PLACES, RATE, ANSWER, BUDGET = 2, 4, 200.0, 100, 8000
LOAD, MEDIAN, SIGMA = 1.3, 4000.0, 0.6
TTFT, END_TO_END = 10.0, 60.0
WAYS: dict[str, dict[str, Any]] = {
    "line": {},
    "refusals": {},
    "elastic": {"pressure": {"enabled": True}},
    "early": {"pressure": {"enabled": True, "cut": 10, "cut_classes": ["standard"]}},
}
WAITS = {"refusals": TTFT}
"""`queue.max_wait`, where a request is refused rather than served late."""


@dataclass(slots=True)
class Heard:
    """One request as its client saw it; `first` and `end` are seconds from its beginning."""

    first: float = math.inf
    end: float = math.inf
    refused: bool = False


class Line:
    """What the gateway tells: its requests, and the factor each time that it is asked for the expected wait."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.stats: list[RequestStats] = []
        self.factors: list[float] = []
        gateway.app.pipeline._observers += (self.stats.append,)
        self._pressure = gateway.app.pressure
        self._wait, self._pressure.expected_wait = self._pressure.expected_wait, self.wait

    def wait(self, model: str) -> float:
        self.factors.append(self._pressure.factors.get(model, 1.0))
        return self._wait(model)

    @property
    def turns(self) -> int:
        """The most turns of the factor in any minute."""
        moves = [
            (at, later - earlier) for at, (earlier, later) in enumerate(pairwise(self.factors)) if later != earlier
        ]
        turned = [at for (_, before), (at, move) in pairwise(moves) if (before < 0) != (move < 0)]
        return max((sum(at - 60 < other <= at for other in turned) for at in turned), default=0)


async def ask(client: httpx.AsyncClient, thinks: int) -> Heard:
    text = f"[[think={thinks}]] [[answer={ANSWER}]] {random.random()}"
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "thinking_token_budget": BUDGET}
    heard, began = Heard(), time.monotonic()
    async with client.stream(
        "POST", "/v1/chat/completions", json={**body, "max_tokens": 20_000, "stream": True}
    ) as told:
        heard.refused = told.status_code != 200
        async for piece in told.aiter_raw():
            if b'"reasoning":"' in piece:
                heard.first = min(heard.first, time.monotonic() - began)
    if not heard.refused:
        heard.end = time.monotonic() - began
    return heard


async def run(way: str, seconds: float, seed: int) -> str:
    chance = random.Random(seed)
    lengths = [round(chance.lognormvariate(math.log(MEDIAN), SIGMA)) for _ in range(10_000)]
    tokens = fmean(min(length, BUDGET) for length in lengths) + ANSWER
    pace = LOAD * NODES * PLACES * RATE / tokens
    made = FakeSettings(rate=RATE, max_num_seqs=PLACES, tokens_per_event=10, capacity=1 << 20)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(serve_fake(made)) for _ in range(NODES)]
        listed = [{"url": node.url, "max_concurrency": PLACES} for node in nodes]
        settings = {
            "nodes": listed,
            "queue": {"max_wait": WAITS.get(way, 3600.0)},
            "budgets": {"canary": True},
            "log": {"level": "error"},
            **WAYS[way],
        }
        gateway = await stack.enter_async_context(running_gateway(**settings))
        fleet = gateway.app.fleet
        await eventually(lambda: all(node.capabilities.native_budget for node in fleet.nodes))
        line = Line(gateway)
        limits = httpx.Limits(max_connections=None)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, timeout=900, trust_env=False, limits=limits)
        )
        asking, until, due = [], time.monotonic() + seconds, time.monotonic()
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asking.append(asyncio.create_task(ask(client, chance.choice(lengths))))
            due += chance.expovariate(pace)
        heard = await asyncio.gather(*asking)
    served = [stats for stats in line.stats if stats.usage is not None and stats.status == 200]
    shares = [
        fmean(each.first <= TTFT for each in heard),
        fmean(each.end <= END_TO_END for each in heard),
        fmean(each.first <= TTFT and each.end <= END_TO_END for each in heard),
        fmean(each.refused for each in heard),
    ]
    granted = fmean(stats.thinking_budget or BUDGET for stats in served)
    thought = fmean((stats.usage and stats.usage.reasoning) or 0 for stats in served)
    early = sum(stats.thinking_ended_early for stats in served)
    cells = [f"{100 * share:.0f} %" for share in shares] + [f"{granted:,.0f}", f"{thought:,.0f}", str(early)]
    return f"| {way} ({len(heard)}) | {' | '.join(cells)} | {line.turns} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(asyncio.run(run(given.way, given.seconds, given.seed)))


if __name__ == "__main__":
    main()
