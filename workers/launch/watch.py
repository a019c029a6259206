"""Waits that the supervisor chooses between: the process ended, its engine died, no request is left."""

import asyncio
from collections.abc import Awaitable, Callable

from workers.launch.node_api import NodeApi
from workers.node_process import NodeProcess

POLL_SECONDS = 0.1
IDLE_POLL_SECONDS = 0.25
PROOF_SECONDS = 30.0
UNANSWERED = 2


async def poll(check: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Return as soon as `check` says so, asked every `seconds`. The caller has the deadline."""
    while True:
        if await check():
            return
        await asyncio.sleep(seconds)


async def poll_exit(process: NodeProcess) -> str:
    """Return how the process ended."""

    async def has_ended() -> bool:
        return process.exit_code() is not None

    await poll(has_ended, POLL_SECONDS)
    return f"the server ended by itself with code {process.exit_code()}"


async def wait_for_health(api: NodeApi) -> None:
    """Return when /health is 200."""

    async def is_healthy() -> bool:
        return await api.health() == "ok"

    await poll(is_healthy, IDLE_POLL_SECONDS)


async def wait_for_death(process: NodeProcess, api: NodeApi, watch_seconds: float, proof_seconds: float) -> str:
    """Return why the node is dead: its process ended, vLLM says so, or it answers nobody although it is idle.

    /health is asked every `watch_seconds`, an answer every `proof_seconds`, and only of an idle node: users' own
    answers are proof enough, and a busy node may be slow.
    """
    ended = asyncio.create_task(poll_exit(process))
    loop = asyncio.get_running_loop()
    unanswered, proven_at = 0, loop.time()
    try:
        while True:
            done, _ = await asyncio.wait([ended], timeout=watch_seconds)
            if done:
                return ended.result()
            if await api.health() == "dead":
                return "the engine is dead: /health says 503"
            if loop.time() - proven_at >= proof_seconds and await api.requests() == 0:
                proven_at = loop.time()
                unanswered = 0 if await api.answers(PROOF_SECONDS) else unanswered + 1
            if unanswered >= UNANSWERED:
                return f"the engine is dead: an idle node failed {unanswered} short requests in a row"
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def wait_until_idle(api: NodeApi, settle_seconds: float) -> None:
    """Return when no request runs or waits.

    The first look comes after `settle_seconds`: until the gateways have read that the node drains, they may still
    send to it.
    """

    async def is_idle() -> bool:
        return await api.requests() == 0

    await asyncio.sleep(settle_seconds)
    await poll(is_idle, IDLE_POLL_SECONDS)
