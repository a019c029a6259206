"""What one request has reserved, from the question to the settlement."""

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
from gateway.core.limits.words import headers_of, refusal, refusal_for_ever
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.thinking.grant import Headers
from gateway.core.usage.cost import Price
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import taken_of
from gateway.redis.client import RedisUnavailable

log = structlog.get_logger("fleetgate.limits")


class ReservationPlace(Enum):
    """Where a reservation is written down."""

    NOWHERE = auto()
    REDIS = auto()
    MEMORY = auto()
    ALONE = auto()


class ReservationOwner(Protocol):
    """The limiter, as a reservation needs it."""

    @property
    def live(self) -> "Mapping[str, Reservation]":
        """What is reserved now, by id."""

    def enter(self, held: "Reservation") -> None:
        """It lives from now on."""

    def leave(self, held: "Reservation") -> bool:
        """It has ended; whether it lived."""

    def without_redis(self, held: "Reservation") -> tuple[Ruleset, LimitResult] | None:
        """Decide in this process: by which rules, and how; None where nothing is limited."""

    def seen(self, held: "Reservation", taken: LimitResult) -> None:
        """Redis has answered: yes or no."""

    def settle(self, held: "Reservation", used: tuple[int, ...]) -> None:
        """Make it what was used of each rule."""


class Reservation:
    """Await `granted` before the request is served, and `settle` it whatever its end. `cancel` it where it is not
    served.

    `planned` is what it is expected to take, `costs` what that is of each of `rules`; `asked` the answer of Redis on
    its way, None where that is not asked; `old` whether it has lived through a round of renewals.
    """

    __slots__ = (
        "_anthropic",
        "_keeper",
        "_price",
        "asked",
        "costs",
        "id",
        "old",
        "planned",
        "rules",
        "tenant",
        "where",
        "who",
    )

    def __init__(
        self,
        keeper: ReservationOwner,
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
        self.asked: InlineFuture[Any] | None = None
        self.where = ReservationPlace.NOWHERE
        self.old = False
        self._keeper = keeper
        self.planned = planned
        self._price = price if plan.dialect.computes else None
        self._anthropic = plan.dialect.anthropic

    async def granted(self) -> Headers:
        """The headers that tell what is left.

        Raises `LimitExceeded` where there is no room, `LimitsUnknown` where nobody can tell and nothing may pass.
        """
        taken, rules = None, self.rules
        try:
            if self.asked is not None:
                self.where = ReservationPlace.REDIS
                taken = await self._answer(self.asked)
            if taken is None:
                decided = self._keeper.without_redis(self)
                if decided is None:
                    self._keeper.enter(self)
                    return ()
                rules, taken = decided
            if not taken.granted:
                raise self._refusal(rules, taken)
        except BaseException:
            if self.asked is not None and (taken is None or rules is not self.rules):
                self._keeper.settle(self, self.rules.costs(NOTHING))  # Redis may have it, or yet carry it out
            raise
        self._keeper.enter(self)
        return self._headers(rules, taken)

    def settle(self, event: RequestStats) -> None:
        """The request was admitted, and has ended."""
        if self._keeper.leave(self):
            self._keeper.settle(self, self._used(event))

    def cancel(self) -> None:
        """The request is not admitted: it takes nothing, whether it was granted or Redis is yet to answer."""
        unanswered = self.asked is not None and self.where is ReservationPlace.NOWHERE
        if self._keeper.leave(self) or unanswered:
            self._keeper.settle(self, self.rules.costs(NOTHING))

    def _used(self, event: RequestStats) -> tuple[int, ...]:
        """What it took of each rule; what was planned, where that cannot be told: it is settled, whatever is wrong."""
        try:
            used = amounts_used(event, self.planned)
            cached = None if event.usage is None else event.usage.cached
            return self.rules.costs(priced(used, self._price, cached))
        except Exception:
            log.exception("metering_failed_unexpectedly", request_id=event.request_id)
            return self.costs

    async def _answer(self, asked: InlineFuture[Any]) -> LimitResult | None:
        try:
            reply = await asked
        except RedisUnavailable:
            return None
        taken = taken_of(reply)
        self._keeper.seen(self, taken)
        return taken

    def _headers(self, rules: Ruleset, taken: LimitResult) -> Headers:
        return limit_headers(rules, taken, self._anthropic)

    def _refusal(self, rules: Ruleset, taken: LimitResult) -> LimitExceeded:
        return limit_exceeded(rules, self.costs, taken, self.tenant, self._anthropic)


def limit_headers(rules: Ruleset, taken: LimitResult, anthropic: bool) -> Headers:
    """The headers that tell what is left."""
    return headers_of(rules.rules, taken, rules.shown_to_anthropic if anthropic else rules.shown)


def limit_exceeded(
    rules: Ruleset, costs: tuple[int, ...], taken: LimitResult, tenant: str, anthropic: bool
) -> LimitExceeded:
    """The error for a request that does not fit now, with its headers."""
    error = refusal(rules.rules, costs, taken, tenant)
    error.headers = {name.decode(): value.decode() for name, value in limit_headers(rules, taken, anthropic)}
    return error


def _fitted(rules: Ruleset, costs: tuple[int, ...], tenant: str, assumed: bool) -> tuple[int, ...]:
    """`costs`, if they can ever be had. What is only assumed is cut to what can, since it refuses nobody for ever."""
    if assumed:
        return tuple(map(min, costs, rules.capacities))
    if not all(map(le, costs, rules.capacities)) and (error := refusal_for_ever(rules.rules, costs, tenant)):
        raise error
    return costs
