"""What other gateways have on the nodes of large models, as Redis has it: heard a few times a second, and when needed.

A choice is made on exact facts of its candidates (`lua/choose.lua`). This says which nodes are worth being candidates,
so it may be a moment old. A small fleet, whose nodes are all candidates, needs none of it.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from gateway.aio.inline_future import InlineFuture
from gateway.core.routing.selection import NOTHING
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.replies import pairs_of
from gateway.routing.candidate_sampler import CandidateSampler, RoutingView
from gateway.routing.routing_groups import RoutingGroups

log = structlog.get_logger("fleetgate.routing")

SECONDS = 0.25
"""Between two looks, while other gateways have anything."""

FRESH = 0.025
"""Seconds for which a look is believed that all nodes are full."""


class PeerLoads:
    """Reads two hashes of Redis, of each group that has large models, for `sampler`. One look at a time, whoever asks
    for it."""

    def __init__(
        self, redis: RedisClient, fleet: Fleet, sampler: CandidateSampler, view: RoutingView, groups: RoutingGroups
    ) -> None:
        self._redis = redis
        self._fleet = fleet
        self._sampler = sampler
        self._view = view
        self._groups = groups
        self._heard_at = float("-inf")
        self._under_way: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look every `SECONDS`, for ever."""
        while True:
            await asyncio.sleep(SECONDS)
            sampler = self._sampler
            if sampler.models and (self._fleet.gateways > 1 or sampler.others or sampler.tokens):
                try:
                    await self.refresh()
                except Exception:
                    log.exception("background_task_failed", task="peer loads")

    async def refresh(self) -> None:
        """Have heard what holds within `FRESH`. Where Redis does not answer, nothing changes."""
        if not self._redis.up or asyncio.get_running_loop().time() < self._heard_at + FRESH:
            return
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._hear(), name="peer loads")
        await asyncio.shield(self._under_way)

    async def _hear(self) -> None:
        names = {self._groups.of(model).name for model in self._sampler.models}
        bases = [self._redis.schema.routing(name) for name in names]
        places = [self._redis.submit(("HGETALL", f"{base}:places")) for base in bases]
        pending = [self._redis.submit(("HGETALL", f"{base}:pending")) for base in bases]
        began = asyncio.get_running_loop().time()
        try:
            held, waiting = await _numbers(places), await _numbers(pending)
        except RedisUnavailable:
            return
        own = self._view.pending
        others = self._beside(held, lambda node: node.in_flight)
        tokens = self._beside(waiting, lambda node: own.get(node.name, NOTHING).tokens)
        self._sampler.heard(others, tokens)
        self._heard_at = began

    def _beside(self, told: dict[bytes, int], own: Callable[[Node], int]) -> dict[Node, int]:
        """What is told of each node of the fleet beyond this process's own part."""
        found: dict[Node, int] = {}
        for name, number in told.items():
            node = self._fleet.by_name(name.decode(errors="replace"))
            if node is not None and number > (part := own(node)):
                found[node] = number - part
        return found


async def _numbers(replies: Sequence[InlineFuture[object]]) -> dict[bytes, int]:
    """By node. One that is counted in several groups has all its requests in each."""
    found: dict[bytes, int] = {}
    for reply in replies:
        for name, value in pairs_of(await reply).items():
            if value.lstrip(b"-").isdigit():
                found[name] = max(found.get(name, 0), int(value))
    return found
