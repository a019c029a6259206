"""Waiting for a place on another node, of a request that its first node has failed.

It goes before those that have not begun (`ResumeBudgets.wants_place`), and holds nothing meanwhile.
"""

import asyncio
from collections.abc import Callable

from gateway.core.errors import ClientGone
from gateway.core.http.sse import KEEP_ALIVE
from gateway.fleet.node import Lease
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import deadline_exceeded, shutting_down
from gateway.upstream.resume_budgets import ResumeBudgets


async def wait_for_place(
    budgets: ResumeBudgets,
    request: DownstreamRequest,
    comments: float,
    look: Callable[[], Lease | None],
    check: Callable[[float], None],
) -> Lease:
    """The first lease that `look` finds, asked every `budgets.step` seconds. `check(now)` raises what ends the wait.
    `comments`: seconds between two comments to a client whose stream has begun."""
    loop = asyncio.get_running_loop()
    next_comment = loop.time() + comments
    budgets.waiting += 1
    try:
        while True:
            await asyncio.sleep(budgets.step)
            now = loop.time()
            check(now)
            if now >= next_comment and request.started:
                request.push(KEEP_ALIVE)
                next_comment = now + comments
            if (lease := look()) is not None:
                return lease
    finally:
        budgets.waiting -= 1


def check_waiting(request: DownstreamRequest, closing: bool, deadline: float, now: float) -> None:
    """Raises the error of a request that need not wait any longer at loop time `now`; `closing`: the process ends."""
    if request.gone:
        raise ClientGone("The client closed its connection.")
    if closing:
        raise shutting_down()
    if now >= deadline:
        raise deadline_exceeded()
