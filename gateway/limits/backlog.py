"""Settlements that Redis has not accepted yet: kept in order, within bounds, and sent when Redis is back.

One that Redis refuses (a right that was taken away, a key of another type) goes to the end and is sent again later, so
that it holds up no other.
"""

from collections import deque
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import RedisStore
from gateway.redis.client import RedisUnavailable, ScriptFailed

MAX_WAITING = 100_000
"""About 400 bytes each; an outage that leaves more loses the oldest."""

TOGETHER = 100
"""Settlements that are sent before the first reply is awaited."""


class Settlement:
    """What a request has used of its rules, each in its own unit."""

    __slots__ = ("id", "rules", "tenant", "used")

    def __init__(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> None:
        self.tenant = tenant
        self.id = id
        self.rules = rules
        self.used = used


class Backlog:
    """Settlements on their way, and those that wait."""

    def __init__(self, store: RedisStore) -> None:
        self.dropped = 0
        self._sending = 0
        self._store = store
        self._waiting: deque[Settlement] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + self._sending

    def send(self, settlement: Settlement) -> None:
        """Settle now, without waiting for the reply; where Redis does not accept it, it waits."""
        self._settle(settlement).add_done_callback(lambda reply: self._keep_failed(settlement, reply))

    def add(self, settlement: Settlement) -> None:
        """Settle when Redis is back."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(settlement)

    async def flush(self) -> None:
        """Send what waits, as long as Redis accepts it. Where a whole batch is refused, the rest is left for later."""
        untried = len(self._waiting)
        while self._waiting and untried > 0:
            batch = [self._waiting.popleft() for _ in range(min(TOGETHER, untried, len(self._waiting)))]
            untried -= len(batch)
            refused: list[Settlement] = []
            self._sending = len(batch)
            lost = batch  # all of them, where this is cancelled: to settle twice changes nothing
            try:
                lost, refused = await self._settle_all(batch)
            finally:
                self._sending = 0
                self._waiting.extendleft(reversed(lost))
                for item in refused:
                    self.add(item)
            if lost or len(refused) == len(batch):
                return

    async def _settle_all(self, batch: list[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
        """Those without an answer, and those that Redis refused."""
        lost: list[Settlement] = []
        refused: list[Settlement] = []
        for item, reply in [(item, self._settle(item)) for item in batch]:
            try:
                await reply
            except ScriptFailed:
                refused.append(item)
            except RedisUnavailable:
                lost.append(item)
        return lost, refused

    def _settle(self, settlement: Settlement) -> InlineFuture[Any]:
        return self._store.settle(settlement.tenant, settlement.id, settlement.rules, settlement.used)

    def _keep_failed(self, settlement: Settlement, reply: InlineFuture[Any]) -> None:
        if reply.exception() is not None:
            self.add(settlement)
