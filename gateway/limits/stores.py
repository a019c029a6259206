"""Where limits are kept: in this process, or in Redis for all gateways. Both follow `core.limits.tenant_limits`.

`costs` and `used` are what is taken of each rule, in the rule's own unit.
"""

import time
from collections.abc import Awaitable, Collection, Sequence
from pathlib import Path
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.core.limits.rules import LimitResult
from gateway.core.limits.tenant_limits import TenantLimits
from gateway.limits.rulesets import Ruleset
from gateway.redis.client import RedisClient, Script, Value
from gateway.redis.replies import Shape, integer

_LUA = Path(__file__).parent / "lua"


class MemoryStore:
    """The limits of this process alone."""

    def __init__(self, lease: float) -> None:
        self.tenants: dict[str, TenantLimits] = {}
        self.configure(lease)

    def configure(self, lease: float) -> None:
        """`lease`: seconds for which a reservation is held unless it is renewed."""
        self._lease = round(lease * 1_000_000)

    def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> LimitResult:
        """Take all or nothing; a second time with the same id changes nothing."""
        return self._limits_of(tenant).reserve(now(), id, rules.rules, costs, self._lease)

    def adopt(self, tenant: str, id: str, rules: Ruleset) -> None:
        """Count the places of a running request whose reservation was made elsewhere."""
        self._limits_of(tenant).adopt(now(), id, rules.rules, self._lease)

    def seed(self, tenant: str, rules: Ruleset, left: tuple[int, ...]) -> None:
        """Begin with what is `left` elsewhere, for the rules that nothing is known of here."""
        self._limits_of(tenant).seed(now(), rules.rules, left)

    def peek(self, tenant: str, rules: Ruleset) -> LimitResult:
        """What is left of each rule; nothing is taken."""
        return self._limits_of(tenant).peek(now(), rules.rules)

    def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> None:
        """Make a reservation what was used; a second time changes nothing."""
        self._limits_of(tenant).settle(now(), id, rules.rules, used)

    def renew(self, tenant: str, ids: Collection[str]) -> None:
        """Begin the leases of reservations anew."""
        self._limits_of(tenant).renew(now(), ids, self._lease)

    def _limits_of(self, tenant: str) -> TenantLimits:
        limits = self.tenants.get(tenant)
        if limits is None:
            limits = self.tenants[tenant] = TenantLimits()
        return limits


class RedisStore:
    """The limits of all gateways together, by Redis' clock. The methods are those of `MemoryStore`.

    `reserve` and `settle` send their call together with the others of this iteration of the event loop, and return its
    reply. Every reply may be `RedisUnavailable`: Redis did not answer, or refused.
    """

    def __init__(self, redis: RedisClient, lease: float) -> None:
        self._redis = redis
        self._reserve = _script("reserve", _reserve_shape)
        self._settle = _script("settle", integer)
        self._renew = _script("renew", integer)
        self.configure(lease)

    def configure(self, lease: float) -> None:
        self._lease = round(lease * 1000)

    def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> InlineFuture[Any]:
        """`read_result` reads the reply."""
        script = self._reserve
        named: tuple[Value, ...] = ("EVALSHA", script.sha, 1, self._base(tenant))
        given: tuple[Value, ...] = (id, self._lease, rules.keep, rules.wire)
        return self._redis.submit((*named, *given, *costs), script)

    async def peek(self, tenant: str, id: str, rules: Ruleset) -> LimitResult:
        """What is left of each rule, over the connection of reports: nothing is reserved, under a new `id`, and that is
        settled."""
        base, nothing = [self._base(tenant)], [0] * len(rules.rules)
        run = self._redis.reports.run
        result = read_result(await run(self._reserve, base, [id, self._lease, rules.keep, rules.wire, *nothing]))
        await run(self._settle, base, [id, rules.keep, rules.wire, *nothing])
        return result

    def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> InlineFuture[Any]:
        script = self._settle
        return self._redis.submit(
            ("EVALSHA", script.sha, 1, self._base(tenant), id, rules.keep, rules.wire, *used), script
        )

    def renew(self, tenant: str, ids: Collection[str]) -> Awaitable[Any]:
        return self._redis.run(self._renew, [self._base(tenant)], [self._lease, *ids])

    def _base(self, tenant: str) -> str:
        return f"{self._redis.schema.live}:{{{tenant}}}"


def read_result(reply: Any) -> LimitResult:
    """The reply of `RedisStore.reserve`."""
    granted, now, *left = reply
    return LimitResult(granted == 1, now, tuple(left))


def _script(name: str, fits: Shape) -> Script:
    return Script.read(_LUA / "book.lua", _LUA / f"{name}.lua", fits=fits)


def _reserve_shape(reply: Any, command: Sequence[Any]) -> bool:
    """Whether it was granted, the time, and what is left of each rule: one for each word after the eighth."""
    return (
        type(reply) is list and len(reply) == len(command) - 6 and reply[0] in (0, 1) and set(map(type, reply)) == {int}
    )


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
