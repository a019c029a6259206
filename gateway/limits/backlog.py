"""Settlements that Redis did not take (yet): kept in order, within bounds, and sent when it is back."""

from collections import deque
from typing import Any

import structlog

from gateway.ending import Ending
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
            lost = batch  # where this is cancelled, all of them: to settle twice changes nothing
            try:
                lost = await self._settle_all(batch)
            finally:
                self._sending = 0
                self._waiting.extendleft(reversed(lost))
            if lost:
                return

    async def _settle_all(self, batch: list[Settlement]) -> list[Settlement]:
        """Those that Redis did not take."""
        lost = []
        for item, reply in [(item, self._settle(item)) for item in batch]:
            try:
                await reply
            except Unavailable:
                lost.append(item)
            except ScriptFailed as error:
                self._refused(error)
        return lost

    def _settle(self, settlement: Settlement) -> Ending[Any]:
        return self._store.settle(settlement.tenant, settlement.id, settlement.rules, settlement.used)

    def _sent(self, settlement: Settlement, reply: Ending[Any]) -> None:
        error = reply.exception()
        if isinstance(error, ScriptFailed):
            self._refused(error)
        elif error is not None:
            self.add(settlement)

    def _refused(self, error: ScriptFailed) -> None:
        """A settlement that Redis understands and does not take: a mistake of ours, and no reason to try for ever."""
        self.dropped += 1
        log.error("settlement_refused", reason=str(error))
