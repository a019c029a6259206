"""The factor of each model, one for all gateways: its state lies in Redis, and one gateway at a time makes a step.

    Redis                                     the next state is made of
    has the state that was seen last          this process's own, which is the same unless Redis was away meanwhile
    has a later one                           that one: another gateway has made it
    has none, or one that cannot be read      this process's own
    does not answer, or there is none         this process's own, by its own expected wait and clock

So a gateway that dies leaves its last step, one that comes takes over what there is, and after an outage the first one
to come back goes on from where it is.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.core.pressure.factor import FRESH, FactorRules, FactorState, read, step, write
from gateway.redis.client import RedisClient, RedisUnavailable, Script

DUE = 0.9
"""Seconds after which a step is followed by another: less than between two calls, which are a second apart."""

KEPT = 600.0
"""Seconds without a step after which the factor is forgotten."""

LONGEST_WAIT = 86_400.0
"""Seconds, for an expected wait without an end."""


def _shared(reply: Any, command: Sequence[Any]) -> bool:
    """The state, and four numbers: see share.lua."""
    if type(reply) is not list or len(reply) != 5 or type(reply[0]) is not bytes:
        return False
    return set(map(type, reply[1:])) == {int} and reply[1] >= 0 and reply[2] >= 0


SHARE = Script.read(Path(__file__).parent / "lua" / "share.lua", fits=_shared)


class SharedFactor:
    """One model's. `state` is what holds in this process now, `seen` the number of the last state in Redis that it
    follows."""

    def __init__(self, model: str, redis: RedisClient | None) -> None:
        self.state: FactorState = FRESH
        self._redis = redis
        self._key = "" if redis is None else f"{redis.schema.live}:{{pressure}}:{model}"
        self.seen = 0
        self._stepped: float | None = None

    async def refresh(self, rules: FactorRules, wait: float, now: float) -> None:
        """Bring `state` up to date; `wait` is expected here (seconds), `now` is this process's own time. Nobody else
        may call it meanwhile."""
        wait = 0.0 if math.isnan(wait) else float(min(max(wait, 0.0), LONGEST_WAIT))
        passed, self._stepped = 0.0 if self._stepped is None else now - self._stepped, now
        if self._redis is not None:
            try:
                await self._share(self._redis, rules, wait)
                return
            except RedisUnavailable:
                pass
        self.state = step(self.state, rules, wait, passed)

    async def _share(self, redis: RedisClient, rules: FactorRules, wait: float) -> None:
        args = [round(wait * 1000), round(DUE * 1000), round(KEPT * 1000)]
        text, number, passed, longest, due = await redis.run(SHARE, [self._key], [*args, "", ""])
        if due:
            base = self._base(text, number)
            made = step(base, rules, longest / 1000, passed / 1000)
            text, number, *_ = await redis.run(SHARE, [self._key], [*args, number, write(made)])
        self.state = self._base(text, number)
        self.seen = number

    def _base(self, text: bytes, number: int) -> FactorState:
        """The state that holds where Redis has `text` as the state `number`."""
        found = None if number == self.seen else read(text)
        return self.state if found is None else found
