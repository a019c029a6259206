"""What one request has reserved, from the call to the store up to its settlement."""

from collections.abc import Mapping
from enum import Enum, auto
from operator import le
from typing import Any, Protocol

import structlog

from gateway.aio.inline_future import InlineFuture
from gateway.core.access.tenants import Identity
from gateway.core.errors import LimitExceeded
from gateway.core.limits.metering import amounts_used, priced
from gateway.core.limits.rules import NOTHING, Amounts, LimitResult
from gateway.core.limits.words import check_capacities, headers_of, refusal
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.thinking.grant import Headers
from gateway.core.usage.cost import Price
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import read_result
from gateway.redis.client import RedisUnavailable

log = structlog.get_logger("fleetgate.limits")


class ReservationPlace(Enum):
    """Where a reservation is kept."""

    NOWHERE = auto()
    REDIS = auto()
    MEMORY = auto()
    LOCAL_SHARE = auto()


class ReservationOwner(Protocol):
    """The part of `Limiter` that a reservation calls. A protocol, since `limiter` imports this module."""

    @property
    def live(self) -> "Mapping[str, Reservation]":
        """The reservations of running requests, by id."""

    def enter(self, reservation: "Reservation") -> None:
        """Its request is served from now on."""

    def leave(self, reservation: "Reservation") -> bool:
        """Its request has ended; whether it was served."""

    def decide_locally(self, reservation: "Reservation") -> tuple[Ruleset, LimitResult] | None:
        """Decide in this process: by which rules, and how; None where nothing is limited."""

    def record_result(self, reservation: "Reservation", result: LimitResult) -> None:
        """Redis has granted or refused it."""

    def settle(self, reservation: "Reservation", used: tuple[int, ...]) -> None:
        """Make it what was used of each rule."""


class Reservation:
    """Await `granted` before the request is served, and `settle` it whatever its end. `cancel` it where it is not
    served.

    `planned` is what the request is expected to take, `costs` what that is of each of `rules`. `reply` is that of
    Redis, None where Redis was not called. `old`: the reservation has lived through a round of renewals.
    """

    __slots__ = (
        "_anthropic",
        "_limiter",
        "_price",
        "costs",
        "id",
        "old",
        "place",
        "planned",
        "reply",
        "rules",
        "tenant",
        "who",
    )

    def __init__(
        self,
        limiter: ReservationOwner,
        who: Identity,
        id: str,
        rules: Ruleset,
        plan: Plan,
        planned: Amounts,
        price: Price | None,
    ) -> None:
        self.id = id
        self.who = who
        self.tenant = tenant = who.tenant.name
        self.rules = rules
        self.costs = _fitted(rules, rules.costs(planned), tenant, assumed=plan.max_tokens is None and not plan.least)
        self.reply: InlineFuture[Any] | None = None
        self.place = ReservationPlace.NOWHERE
        self.old = False
        self._limiter = limiter
        self.planned = planned
        self._price = price if plan.dialect.computes else None
        self._anthropic = plan.dialect.anthropic

    async def granted(self) -> Headers:
        """The headers that say what is left.

        Raises `LimitExceeded` where there is no room, `LimitsUnknown` where limits cannot be checked and nothing may
        pass.
        """
        result, rules = None, self.rules
        try:
            if self.reply is not None:
                self.place = ReservationPlace.REDIS
                result = await self._result(self.reply)
            if result is None:
                decided = self._limiter.decide_locally(self)
                if decided is None:
                    self._limiter.enter(self)
                    return ()
                rules, result = decided
            if not result.granted:
                raise self._refusal(rules, result)
        except BaseException:
            if self.reply is not None and (result is None or rules is not self.rules):
                self._limiter.settle(self, self.rules.costs(NOTHING))  # Redis may have made it, or may yet
            raise
        self._limiter.enter(self)
        return self._headers(rules, result)

    def settle(self, event: RequestStats) -> None:
        """The request was admitted, and has ended."""
        if self._limiter.leave(self):
            self._limiter.settle(self, self._used(event))

    def cancel(self) -> None:
        """The request is not admitted: it takes nothing, whether it was granted or Redis is yet to answer."""
        unanswered = self.reply is not None and self.place is ReservationPlace.NOWHERE
        if self._limiter.leave(self) or unanswered:
            self._limiter.settle(self, self.rules.costs(NOTHING))

    def _used(self, event: RequestStats) -> tuple[int, ...]:
        """What the request took of each rule; what was planned, where that cannot be computed."""
        try:
            used = amounts_used(event, self.planned)
            cached = None if event.usage is None else event.usage.cached
            return self.rules.costs(priced(used, self._price, cached))
        except Exception:
            log.exception("metering_failed", request_id=event.request_id)
            return self.costs

    async def _result(self, reply: InlineFuture[Any]) -> LimitResult | None:
        """None where Redis does not answer, or refuses the call."""
        try:
            result = read_result(await reply)
        except RedisUnavailable:
            return None
        self._limiter.record_result(self, result)
        return result

    def _headers(self, rules: Ruleset, result: LimitResult) -> Headers:
        return limit_headers(rules, result, self._anthropic)

    def _refusal(self, rules: Ruleset, result: LimitResult) -> LimitExceeded:
        return limit_exceeded(rules, self.costs, result, self.tenant, self._anthropic)


def limit_headers(rules: Ruleset, result: LimitResult, anthropic: bool) -> Headers:
    """The headers that say what is left."""
    return headers_of(rules.rules, result, rules.shown_to_anthropic if anthropic else rules.shown)


def limit_exceeded(
    rules: Ruleset, costs: tuple[int, ...], result: LimitResult, tenant: str, anthropic: bool
) -> LimitExceeded:
    """The error for a request that does not fit now, with its headers."""
    error = refusal(rules.rules, costs, result, tenant)
    error.headers = {name.decode(): value.decode() for name, value in limit_headers(rules, result, anthropic)}
    return error


def _fitted(rules: Ruleset, costs: tuple[int, ...], tenant: str, assumed: bool) -> tuple[int, ...]:
    """`costs`, or an error where they can never be had. Assumed costs are cut to what can be had instead."""
    if assumed:
        return tuple(map(min, costs, rules.capacities))
    if not all(map(le, costs, rules.capacities)):
        check_capacities(rules.rules, costs, tenant)
    return costs
