"""What a flood costs others, and what the queue costs the fleet: a real gateway in front of fake nodes.

    python -m tests.admission.flood waits    500 long requests of one tenant, one a second of another
    python -m tests.admission.flood cost     conversations of six tenants, with the queue and with the nodes' own
    python -m tests.admission.flood shares   two tenants with shares 3:1, by 1 and by 4 gateways

Times are real. docs/queue.md shows the last results.
"""

import argparse
import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx

from gateway.admission.turn_charge import TurnCharge
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.upstream.downstream import DownstreamRequest
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import FakeNode, FakeSettings, serve_fake

MODEL = "nemotron-3-ultra"
TENANTS = "abcdef"
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def fleet(
    settings: FakeSettings, nodes: int, bound: int | None, gateways: int = 1, shared: bool = False, **shares: float
) -> AsyncIterator[tuple[list[FakeNode], list[RunningGateway]]]:
    """`bound`: requests at once on each node; 0 where that is to be found, None where there is to be none."""
    tenants = [
        {"name": name, "share": shares.get(name, 1.0), "keys": [{"sha256": hashlib.sha256(name.encode()).hexdigest()}]}
        for name in TENANTS
    ]
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(serve_fake(settings)) for _ in range(nodes)]
        common: dict[str, Any] = {
            "nodes": [{"url": node.url, "max_concurrency": bound or None} for node in made],
            "queue": {"max_wait": 3600, "find_concurrency": bound is not None},
            "tenants": tenants,
            "log": {"level": "error"},
        }
        if shared:
            redis = await stack.enter_async_context(redis_server())
            common["redis"] = {**redis.settings, "timeout": 2.0}
        running = [await stack.enter_async_context(running_gateway(**common)) for _ in range(gateways)]
        for each in running:
            await eventually(lambda each=each: all(node.ready for node in each.app.fleet.nodes))
        yield made, running


def body(text: str, thinks: int, answers: int, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": f"[[think={thinks}]] [[answer={answers}]] {text}"}]
    return {"model": MODEL, "messages": said, "max_tokens": 20_000, **more}


def client_of(gateway: RunningGateway, name: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {name}"}
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=gateway.url, timeout=3600, trust_env=False, limits=limits, headers=headers)


async def waits(bound: int) -> None:
    """Sixteen places; the flood's requests take 1.5 to 4.5 seconds."""
    dice = random.Random(20)
    settings = FakeSettings(rate=100, tokens_per_event=5, max_num_seqs=8)
    async with fleet(settings, 2, bound) as (_, (gateway,)):
        freed: list[float] = []
        queued: list[tuple[str, float]] = []
        passed: list[int] = []
        """Places that were free and given to others, while the one that asks once a second waited."""

        def ended(stats: RequestStats) -> None:
            freed.append(time.monotonic())
            queued.append((stats.tenant or "", stats.queued or 0.0))

        gateway.app.pipeline._observers += (ended,)
        wait = gateway.app.queue.wait

        async def noting(plan: Plan, charge: TurnCharge, request: DownstreamRequest, deadline: float) -> Any:
            before = len(freed)
            try:
                return await wait(plan, charge, request, deadline)
            finally:
                if charge.turn.tenant == "b":
                    passed.append(max(0, len(freed) - before - 1))

        gateway.app.queue.wait = noting  # type: ignore[method-assign]
        async with client_of(gateway, "a") as flood, client_of(gateway, "b") as other:
            asking = [
                asyncio.create_task(flood.post(CHAT, json=body(f"{n}", dice.randint(100, 400), 50))) for n in range(500)
            ]
            await asyncio.sleep(3)
            for number in range(60):
                asking.append(asyncio.create_task(other.post(CHAT, json=body(f"{number}", 20, 10))))
                await asyncio.sleep(1)
            got = await asyncio.gather(*asking)
        assert all(each.status_code == 200 for each in got)
    gaps = sorted(later - earlier for earlier, later in pairwise(freed))
    mine = sorted(wait for tenant, wait in queued if tenant == "b")
    theirs = sorted(wait for tenant, wait in queued if tenant == "a")
    print("| | p50 | p95 |\n|---|---:|---:|")
    for name, values in (
        ("until one place becomes free", gaps),
        ("wait of the one that asks once a second", mine),
        ("wait of the flood", theirs),
    ):
        p50, p95 = values[len(values) // 2], values[len(values) * 95 // 100]
        print(f"| {name} | {1000 * p50:,.0f} ms | {1000 * p95:,.0f} ms |")
    first = passed.count(0)
    print(f"{first} of {len(passed)} that waited got the first place that became free; at most {max(passed)} passed by")


async def cost() -> None:
    """Sixty conversations of six turns, each turn with all that was said before; sixteen places."""
    for name, bound in (("the nodes' own queues", None), ("the queue", 8), ("the queue, bounds found", 0)) * 2:
        print(f"| {name} | {await _talks(bound)} |")


async def _talks(bound: int | None) -> str:
    settings = FakeSettings(rate=200, prefill_rate=20_000, tokens_per_event=5, max_num_seqs=8, capacity=1 << 14)
    async with fleet(settings, 2, bound) as (_, (gateway,)):
        used: list[tuple[int, int]] = []

        def ended(stats: RequestStats) -> None:
            if stats.usage is not None:
                used.append((stats.usage.input, stats.usage.cached or 0))

        gateway.app.pipeline._observers += (ended,)

        async def talk(number: int, client: httpx.AsyncClient) -> None:
            dice, said = random.Random(number), []
            for _ in range(6):
                text = " ".join(dice.choice(("river", "stone", "light", "seven")) for _ in range(dice.randint(50, 400)))
                thinks = dice.randint(20, 120)
                said.append({"role": "user", "content": f"[[think={thinks}]] [[answer=30]] {number} {text}"})
                got = await client.post(CHAT, json={"model": MODEL, "messages": said, "max_tokens": 9000})
                said.append({"role": "assistant", "content": got.json()["choices"][0]["message"]["content"]})

        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(gateway, name)) for name in TENANTS]
            began = time.monotonic()
            talking = asyncio.gather(*(talk(number, clients[number % 6]) for number in range(60)))
            while len(used) < 300:  # of 360: at the end, when some have all said, not all places are used
                await asyncio.sleep(0.01)
            seconds = time.monotonic() - began
            await talking
    hits = sum(cached for _, cached in used) / sum(read for read, _ in used)
    return f"{300 / seconds:.2f} requests a second | {100 * hits:.1f} % of prompt tokens cached"


async def shares(seconds: float) -> None:
    """Two tenants, one with three times the share and a third of the clients."""
    for gateways in (1, 4):
        print(f"| {gateways} | {await _ratio(gateways, seconds):.2f} |")


async def _ratio(gateways: int, seconds: float) -> float:
    settings = FakeSettings(rate=200, tokens_per_event=5, max_num_seqs=4)
    async with fleet(settings, 2, 4, gateways, shared=True, b=3.0) as (_, running):
        tokens = dict.fromkeys("ab", 0)

        async def ask(name: str, number: int, gateway: RunningGateway, until: float) -> None:
            dice = random.Random(number)
            async with client_of(gateway, name) as client:
                while time.monotonic() < until:
                    thinks = min(1500, round(dice.lognormvariate(5.0, 0.6)))
                    got = await client.post(CHAT, json=body(f"{name}{number} {time.monotonic()}", thinks, 20))
                    if began < time.monotonic() < until:
                        tokens[name] += got.json()["usage"]["completion_tokens"]

        began = time.monotonic() + 10
        asking = [
            ask(name, number, running[number % gateways], began + seconds)
            for name, many in (("a", 48), ("b", 16))
            for number in range(many)
        ]
        await asyncio.gather(*asking)
    return tokens["b"] / tokens["a"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("waits", "cost", "shares"))
    parser.add_argument("--seconds", type=float, default=600.0, help="of shares, for each number of gateways")
    parser.add_argument("--find", action="store_true", help="of waits: no max_concurrency is configured")
    given = parser.parse_args()
    match given.what:
        case "shares":
            asyncio.run(shares(given.seconds))
        case "waits":
            asyncio.run(waits(0 if given.find else 8))
        case _:
            asyncio.run(cost())


if __name__ == "__main__":
    main()
