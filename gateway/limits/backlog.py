"""Settlements that Redis did not take (yet): kept in order, within bounds, and sent when it is back."""

import asyncio
from collections import deque
from typing import Any

import structlog

from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import RedisStore
from gateway.shared.link import ScriptFailed, Unavailable

log = structlog.get_logger("fleetgate.limits")

MAX_WAITING = 100_000
"""About 400 bytes each; an outage that leaves more loses the oldest."""

TOGETHER = 100


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
        """Settle now; where Redis is lost meanwhile, later. Nobody waits for it."""
        self._settle(settlement).add_done_callback(lambda reply: self._sent(settlement, reply))

    def add(self, settlement: Settlement) -> None:
        """Settle when Redis is back."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(settlement)

    async def flush(self) -> None:
        """Send what waits, as long as Redis takes it."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            self._sending = len(batch)
            replies = await asyncio.gather(*[self._settle(item) for item in batch], return_exceptions=True)
            self._sending = 0
            lost = [item for item, reply in zip(batch, replies, strict=True) if isinstance(reply, Unavailable)]
            if lost:
                self._waiting.extendleft(reversed(lost))
                return
            for reply in replies:
                if isinstance(reply, BaseException):
                    self._refused(reply)

    def _settle(self, settlement: Settlement) -> asyncio.Future[Any]:
        return self._store.settle(settlement.tenant, settlement.id, settlement.rules, settlement.used)

    def _sent(self, settlement: Settlement, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled():
            self.add(settlement)
            return
        error = reply.exception()
        if isinstance(error, Unavailable):
            self.add(settlement)
        elif error is not None:
            self._refused(error)

    def _refused(self, error: BaseException) -> None:
        """A settlement that Redis understands and does not take: a mistake of ours, and no reason to try for ever."""
        self.dropped += 1
        assert isinstance(error, ScriptFailed)
        log.error("settlement_refused", reason=str(error))
