"""Where limits are kept: in this process, or in Redis for all of them. Both follow the book of `core.book`."""

import time
from collections.abc import Awaitable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from gateway.aio.inline_future import InlineFuture
from gateway.core.limits.rules import LimitResult
from gateway.core.limits.tenant_limits import TenantLimits
from gateway.limits.rulesets import Ruleset
from gateway.redis.client import RedisClient, Script, Value
from gateway.redis.replies import Shape, integer

_LUA = Path(__file__).parent / "lua"


class Store(Protocol):
    """What a limiter needs. `costs` and `used` are what is taken of each rule, in the rule's own unit."""

    def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> Awaitable[LimitResult]:
        """Take all or nothing; a second time with the same id changes nothing."""

    def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> Awaitable[Any]:
        """Make a reservation what was used; a second time changes nothing."""

    def renew(self, tenant: str, ids: Collection[str]) -> Awaitable[Any]:
        """Begin the leases of reservations anew."""


class MemoryStore:
    """The limits of this process alone: nothing has to wait, so each verb can also be had at once."""

    def __init__(self, lease: float) -> None:
        """`lease`: seconds for which a reservation is held unless it is renewed."""
        self._lease = round(lease * 1_000_000)
        self.books: dict[str, TenantLimits] = {}

    async def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> LimitResult:
        return self.reserve_now(tenant, id, rules, costs)

    async def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> None:
        self.settle_now(tenant, id, rules, used)

    async def renew(self, tenant: str, ids: Collection[str]) -> None:
        self.renew_now(tenant, ids)

    def reserve_now(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> LimitResult:
        return self._book(tenant).reserve(now(), id, rules.rules, costs, self._lease)

    def peek_now(self, tenant: str, rules: Ruleset) -> LimitResult:
        """What is left of each rule; nothing is taken."""
        return self._book(tenant).peek(now(), rules.rules)

    def settle_now(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> None:
        self._book(tenant).settle(now(), id, rules.rules, used)

    def renew_now(self, tenant: str, ids: Collection[str]) -> None:
        self._book(tenant).renew(now(), ids, self._lease)

    def _book(self, tenant: str) -> TenantLimits:
        book = self.books.get(tenant)
        if book is None:
            book = self.books[tenant] = TenantLimits()
        return book


class RedisStore:
    """The limits of all gateways together, on Redis' clock. Every call raises `RedisUnavailable` where Redis does not
    answer, or refuses.

    `ask` and `settle` have their call sent with this turn's others; what they return is only its reply.
    """

    def __init__(self, redis: RedisClient, lease: float) -> None:
        self._redis = redis
        self._lease = round(lease * 1000)
        self._reserve = _script("reserve", _reserved)
        self._settle = _script("settle", integer)
        self._renew = _script("renew", integer)

    async def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> LimitResult:
        return taken_of(await self.ask(tenant, id, rules, costs))

    def ask(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> InlineFuture[Any]:
        """`reserve`, on its way; `taken_of` reads its result."""
        script = self._reserve
        named: tuple[Value, ...] = ("EVALSHA", script.sha, 1, self._base(tenant))
        given: tuple[Value, ...] = (id, self._lease, rules.keep, rules.wire)
        return self._redis.submit((*named, *given, *costs), script)

    def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> InlineFuture[Any]:
        script = self._settle
        return self._redis.submit(
            ("EVALSHA", script.sha, 1, self._base(tenant), id, rules.keep, rules.wire, *used), script
        )

    def renew(self, tenant: str, ids: Collection[str]) -> Awaitable[Any]:
        return self._redis.run(self._renew, [self._base(tenant)], [self._lease, *ids])

    def _base(self, tenant: str) -> str:
        return f"{self._redis.schema.live}:{{{tenant}}}"


def taken_of(reply: Any) -> LimitResult:
    """The answer of `RedisStore.ask`."""
    granted, now, *left = reply
    return LimitResult(granted == 1, now, tuple(left))


def _script(name: str, fits: Shape) -> Script:
    return Script.read(_LUA / "book.lua", _LUA / f"{name}.lua", fits=fits)


def _reserved(reply: Any, command: Sequence[Any]) -> bool:
    """Whether it was granted, the time, and what is left of each rule, which are the words after the eighth."""
    return (
        type(reply) is list and len(reply) == len(command) - 6 and reply[0] in (0, 1) and set(map(type, reply)) == {int}
    )


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
