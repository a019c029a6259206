"""Redis in trouble, one fault and one `on_failure` at a time: what clients saw, how long the worst waited, what came
after. The tenant has 30 requests in its bucket; 5 are used before the fault, 40 come during it."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeSettings, serve_fake

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
MODES = ("local", "open", "closed")
LIMIT, BEFORE, DURING = 30, 5, 40


@dataclass(frozen=True, slots=True)
class Fault:
    """`strike` makes the trouble, `mend` ends it; `loses` what Redis holds; `outage` whether Redis is out of reach."""

    name: str
    strike: Callable[[RedisServer], object]
    mend: Callable[[RedisServer], object] = lambda _: None
    loses: bool = False
    outage: bool = True


def _fail_over(redis: RedisServer) -> None:
    redis.kill()
    redis.restart()


FAULTS = (
    Fault("killed, connections refused", RedisServer.kill, RedisServer.restart, loses=True),
    Fault("frozen (SIGSTOP)", RedisServer.freeze, RedisServer.thaw),
    Fault("slow: no answer for 3 s", lambda redis: redis.do("CLIENT", "PAUSE", 3000, "ALL")),
    Fault(
        "full (maxmemory)",
        lambda redis: redis.do("CONFIG", "SET", "maxmemory", 1),
        lambda redis: redis.do("CONFIG", "SET", "maxmemory", 0),
    ),
    Fault(
        "became a read-only replica",
        lambda redis: redis.do("REPLICAOF", "127.0.0.1", 1),
        lambda redis: redis.do("REPLICAOF", "NO", "ONE"),
    ),
    Fault("failed over to an empty server", _fail_over, loses=True, outage=False),
    Fault("connections cut", lambda redis: redis.do("CLIENT", "KILL", "TYPE", "normal"), outage=False),
    Fault("script cache flushed", RedisServer.forget_scripts, outage=False),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen. `worst` in milliseconds; `left` of the bucket when Redis had been back and all was settled."""

    fault: str
    mode: str
    ok: int
    refused: int
    failed: int
    worst: float
    left: int


async def suffer(fault: Fault, mode: str, timeout: float) -> Outcome:
    """Run one case. `timeout`: seconds that the gateway gives Redis."""
    async with redis_server() as redis, serve_fake(FakeSettings()) as node:
        settings: dict[str, Any] = {
            "redis": {**redis.settings, "timeout": timeout, "connect_timeout": timeout},
            "limits": {"on_failure": mode, "default": {"requests_per_minute": LIMIT}},
        }
        async with running_gateway(node.url, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
                before = [await _ask(client) for _ in range(BEFORE)]
                assert [status for status, _ in before] == [200] * BEFORE
                await _link(gateway).submit(("PING",))  # answered after their settlements, which are in the books then
                fault.strike(redis)
                first = [await _ask(client) for _ in range(8)]
                rest = await asyncio.gather(*[_ask(client) for _ in range(DURING - len(first))])
                if fault.outage:
                    await eventually(lambda: not _link(gateway).up)
                fault.mend(redis)
                await eventually(lambda: _link(gateway).up)
                limiter = gateway.app.limiter
                assert limiter is not None
                await eventually(lambda: not limiter.live and not limiter.waiting)
                left = redis_left(redis)
                seen = [status for status, _ in (*first, *rest)]
                assert not [status for status in seen if status not in (200, 429, 503)], seen
                worst = max(seconds for _, seconds in (*first, *rest)) * 1000
                return Outcome(
                    fault.name, mode, seen.count(200), seen.count(429), seen.count(503), round(worst, 1), left
                )


def redis_left(redis: RedisServer) -> int:
    """What is left of the tenant's requests, as Redis has it written down; the whole limit where it has nothing."""
    level = redis.do("HGET", "fg1:{default}:t", "rpm")
    return LIMIT if level is None else int(level) // 60_000_000


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown."""
    lines = ["| fault | on_failure | ok | 429 | 503 | worst, ms | left afterwards |", "|---|---|---|---|---|---|---|"]
    for seen in outcomes:
        figures = (seen.fault, seen.mode, seen.ok, seen.refused, seen.failed, seen.worst, seen.left)
        lines.append("| " + " | ".join(map(str, figures)) + " |")
    return "\n".join(lines)


async def _ask(client: httpx.AsyncClient) -> tuple[int, float]:
    began = time.perf_counter()
    answer = await client.post("/v1/chat/completions", json=BODY)
    return answer.status_code, time.perf_counter() - began


def _link(gateway: RunningGateway) -> Any:
    return gateway.app.redis
