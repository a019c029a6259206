"""What a console costs on a large fleet: `python -m tests.console.scale [--nodes 1000] [--tenants 500]`.

One fake node listens on many addresses of this machine, so that each is a node. Told are: seconds between two looks of
the gateway's loop, the gaps of a stream beside, and how long the page takes to apply and draw an event.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from playwright.async_api import Page

from gateway.core.access.api_keys import key_digest
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.token_usage import Usage
from tests.console.chromium import TOKEN, chromium, console_page, show
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeSettings, serve_fake

MODEL = "nemotron-3-ultra"
KEY = "fg-scale"
VIEWS = ("now", "fleet", "tenants", "requests", "errors")


@dataclass
class Gaps:
    """Milliseconds."""

    seen: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.seen)
        return (
            f"median {statistics.median(ordered):.1f}, p99 {ordered[int(0.99 * len(ordered))]:.1f}, "
            f"longest {ordered[-1]:.1f} ms of {len(ordered)}"
        )


@asynccontextmanager
async def large_gateway(nodes: int, tenants: int) -> AsyncIterator[RunningGateway]:
    settings = FakeSettings(host="0.0.0.0", rate=50, thinking_tokens=4000, answer_tokens=4000, models=(MODEL,))
    async with serve_fake(settings) as fake:
        urls = [f"http://127.0.{number // 250}.{number % 250 + 1}:{fake.port}" for number in range(nodes)]
        listed: list[dict[str, Any]] = [
            {
                "name": f"tenant-{number:03}",
                "limits": {"requests_per_minute": 600, "tokens_per_day": 10_000_000},
                "keys": [{"sha256": key_digest(f"{KEY}-{number}").hex()}],
            }
            for number in range(tenants)
        ]
        given: dict[str, Any] = {
            "admin": {"token": TOKEN, "hosts": []},
            "tenants": listed,
            "health": {"interval": 10, "timeout": 10.0},
            "models": [{"name": MODEL, "price": {"input": 1.0, "output": 4.0}}],
        }
        async with running_gateway(*urls, ready=False, **given) as gateway:
            known = gateway.app.fleet.nodes
            await eventually(lambda: sum(node.ready for node in known) == nodes, 120)
            yield gateway


def give_use(gateway: RunningGateway, tenants: int, nodes: list[str]) -> None:
    """Every tenant and node has something to show, and changes with each second."""
    now = time.time()
    gateway.app.metrics.readers[0](
        [
            RequestStats(
                tenant=f"tenant-{number % tenants:03}",
                model=MODEL,
                node=nodes[number % len(nodes)],
                stream=True,
                status=200,
                ttft=0.1,
                duration=8.0,
                at=now - number % 3500,
                cost=number * 1000,
                usage=Usage(1000, 400, 300),
            )
            for number in range(4000)
        ]
    )


async def looks(seconds: float, every: float = 0.002) -> Gaps:
    """By how much the loop was late."""
    found, end, before = Gaps(), time.perf_counter() + seconds, time.perf_counter()
    while before < end:
        await asyncio.sleep(every)
        now = time.perf_counter()
        found.seen.append(1000 * (now - before - every))
        before = now
    return found


async def stream_gaps(gateway: RunningGateway, seconds: float) -> Gaps:
    """Of a stream of 50 events a second."""
    found = Gaps()
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        url, headers = f"{gateway.url}/v1/chat/completions", {"authorization": f"Bearer {KEY}-0"}
        async with client.stream("POST", url, json=body, headers=headers) as stream:
            begin = before = time.perf_counter()
            async for _ in stream.aiter_bytes():
                now = time.perf_counter()
                found.seen.append(1000 * (now - before))
                before = now
                if now > begin + seconds:
                    break
    return found


async def both(gateway: RunningGateway, seconds: float) -> tuple[Gaps, Gaps]:
    late, gaps = await asyncio.gather(looks(seconds), stream_gaps(gateway, seconds))
    return late, gaps


async def refreshes(page: Page, view: str, seconds: float) -> Gaps:
    await show(page, view)
    await page.evaluate("performance.clearMeasures('refresh')")
    await page.wait_for_timeout(1000 * seconds)
    return Gaps(await page.evaluate("performance.getEntriesByName('refresh').map((each) => each.duration)"))


async def measure(nodes: int, tenants: int, seconds: float) -> None:
    async with large_gateway(nodes, tenants) as gateway:
        names = [node.name for node in gateway.app.fleet.nodes]
        give_use(gateway, tenants, names)
        await asyncio.sleep(3)
        late, gaps = await both(gateway, seconds)
        print(f"no console:   the loop late by {late}\n              a stream's gaps {gaps}")
        async with chromium() as browser, console_page(browser, gateway.admin_url) as page:
            await page.wait_for_timeout(3000)
            late, gaps = await both(gateway, seconds)
            print(f"with console: the loop late by {late}\n              a stream's gaps {gaps}")
            for view in VIEWS:
                print(f"page, {view}: {await refreshes(page, view, seconds)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a console costs on a large fleet.")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    asyncio.run(measure(given.nodes, given.tenants, given.seconds))
