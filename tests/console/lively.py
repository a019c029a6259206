"""A gateway that has something to show: nodes of which one is slow and one is out, tenants, traffic, and an hour."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from gateway.access.new_keys import make_key
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.token_usage import Usage
from tests.console.chromium import TOKEN
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.redis import redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
SMALL = "nemotron-3-nano"
NODE = FakeSettings(models=(MODEL,), rate=45, thinking_tokens=420, answer_tokens=180, prefill_rate=4000)
TENANTS = {
    "search-agents": {"requests_per_minute": 600, "tokens_per_day": 40_000_000, "usd_per_month": 4000},
    "support-bot": {"requests_per_minute": 120, "concurrent_requests": 8},
    "code-review": {"tokens_per_minute": 400_000, "usd_per_month": 900},
    "nightly-batch": {"tokens_per_day": 9_000_000},
    "data-science": {"requests_per_minute": 60, "concurrent_requests": 4},
    "intern-demo": {"requests_per_minute": 6},
}
PRICED = {"name": MODEL, "price": {"input": 0.9, "cached": 0.2, "output": 3.6}}


@dataclass
class Lively:
    gateway: RunningGateway
    nodes: list[FakeNode]
    keys: dict[str, str]
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def ask(self, tenant: str, agent: str = "openai-python/3.1", **fields: Any) -> asyncio.Task[tuple[int, str]]:
        """One more request, read to its end."""
        task = asyncio.create_task(self._ask(tenant, agent, fields))
        self.tasks.append(task)
        return task

    async def _ask(self, tenant: str, agent: str, fields: dict[str, Any]) -> tuple[int, str]:
        messages = [{"role": "user", "content": "Plan a trip to Ghent."}]
        body = {"model": MODEL, "stream": True, "messages": messages, **fields}
        headers = {"authorization": f"Bearer {self.keys[tenant]}", "user-agent": agent}
        async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
            got = await client.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers=headers)
            return got.status_code, got.text


@asynccontextmanager
async def lively(count: int = 5, node: FakeSettings = NODE, **settings: Any) -> AsyncIterator[Lively]:
    """`count` nodes of which the first is slow, the tenants above, usage and keys in a Redis."""
    keys = {name: make_key() for name in TENANTS}
    tenants = [
        {"name": name, "limits": limits, "keys": [{"sha256": keys[name][1], "label": "of the file"}]}
        for name, limits in TENANTS.items()
    ]
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        slow = replace(node, prefill_rate=node.prefill_rate / 120)
        nodes = [await stack.enter_async_context(serve_fake(node if at else slow)) for at in range(count)]
        given: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True},
            "usage": {"stored": True},
            "tenants": tenants,
            "models": [PRICED],
            "admin": {"token": TOKEN, "hosts": []},
            "budgets": {"canary": True},
            **settings,
        }
        gateway = await stack.enter_async_context(running_gateway(*(each.url for each in nodes), **given))
        await eventually(lambda: all(each.ready for each in gateway.app.fleet.nodes))
        found = Lively(gateway, nodes, {name: key for name, (key, _) in keys.items()})
        try:
            yield found
        finally:
            for task in found.tasks:
                task.cancel()
            await asyncio.gather(*found.tasks, return_exceptions=True)


def an_hour(nodes: list[str], until: float, seed: int = 7) -> Iterator[RequestStats]:
    """Requests that ended in the hour before `until`, as observers get them."""
    chance = random.Random(seed)
    shares = dict(zip(TENANTS, (44, 24, 15, 9, 6, 2), strict=True))
    for minute in range(60):
        busy = 1.0 + 0.55 * math.sin(minute / 9) + 0.25 * math.sin(minute / 3.1)
        trouble = 36 <= minute < 41
        for _ in range(int(34 * busy)):
            thinking, said = int(chance.lognormvariate(6.6, 0.6)), int(chance.lognormvariate(5.4, 0.5))
            seconds = (thinking + said) / 48
            ttft = chance.lognormvariate(-1.1, 0.45) * (3.5 if trouble else 1)
            failed = chance.random() < (0.12 if trouble else 0.006)
            yield RequestStats(
                request_id=f"req_{chance.randrange(16**12):012x}",
                dialect="chat",
                tenant=chance.choices(list(shares), list(shares.values()))[0],
                model=MODEL,
                node=nodes[-1] if trouble and failed else chance.choice(nodes),
                stream=True,
                status=502 if failed else 200,
                ending="upstream_cut" if failed else "ok",
                error="The node ended its stream before the answer was complete; retry." if failed else None,
                usage=Usage(int(chance.lognormvariate(7.2, 0.8)), thinking + said, thinking),
                ttft=ttft,
                duration=ttft + seconds,
                at=until - 3600 + 60 * minute + chance.uniform(0, 60),
                attempts=1,
            )


async def make_busy(shown: Lively) -> None:
    """Traffic of all tenants; the first node is slow, one stream silent, the last node out, one drained, and there are
    an hour's figures."""
    gateway, nodes = shown.gateway, shown.nodes
    names = [each.name for each in gateway.app.fleet.nodes]
    past = sorted(an_hour(names, time.time()), key=lambda event: event.at)
    gateway.app.console_feed.note(past)
    assert gateway.app.ledger is not None
    for event in past:
        gateway.app.ledger.request_ended(event)
    short: dict[str, Any] = {"max_tokens": 30, "thinking_token_budget": 12}
    await asyncio.gather(*(shown.ask(tenant, **short) for tenant in TENANTS for _ in range(6)))
    nodes[1].set_faults(Fault("stall", after=30, next=1))
    for tenant, running in zip(TENANTS, (11, 6, 4, 3, 3, 0), strict=True):
        for number in range(running):
            shown.ask(tenant, thinking_token_budget=(512, 1024, 4096)[number % 3])
    nodes[-1].set_faults(Fault("refuse"))
    async with httpx.AsyncClient(base_url=gateway.admin_url, headers={"authorization": f"Bearer {TOKEN}"}) as admin:
        (await admin.post("/admin/drain", json={"node": names[-2]})).raise_for_status()
    await eventually(lambda: not gateway.app.fleet.nodes[-1].ready)
