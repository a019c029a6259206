"""The limiter: reserves what a request is planned to take before it is served, and settles what it used after it.

Where a reservation is kept depends on Redis:

    Redis   when a request comes      its reservation is made in      its settlement goes to
    none    always                    memory                          memory
    there   up                        Redis                           Redis; if Redis is lost meanwhile, the backlog
    there   down, on_failure local    memory, as this gateway's share memory and the backlog
    there   down, on_failure open     nowhere: it passes              the backlog
    there   down, on_failure closed   nowhere: it is refused          -
    there   up, refuses this call     as if it were down              Redis, tried again later; and as if it were down

The backlog is settled when Redis is back, so that what was used during an outage counts. A reservation is a lease,
which `LeaseRenewal` renews as long as its request runs.
"""

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import structlog

from gateway.core.access.tenants import Identity
from gateway.core.errors import InvalidRequest, LimitsUnknown
from gateway.core.limits.metering import ASSUMED_OUTPUT, Meters, plan_amounts, priced
from gateway.core.limits.rules import NOTHING, Amounts, LimitResult, Limits, Rules
from gateway.core.limits.words import setting_of
from gateway.core.plan import Plan
from gateway.limits.arrivals import Arrival, Arrivals
from gateway.limits.backlog import Backlog, Settlement
from gateway.limits.lease_renewal import LeaseRenewal
from gateway.limits.local_share import LocalShare
from gateway.limits.reservation import Reservation, ReservationPlace, limit_exceeded
from gateway.limits.rulesets import Ruleset, Rulesets
from gateway.limits.stores import MemoryStore, RedisStore, now
from gateway.redis.client import RedisClient
from gateway.redis.presence import Presence

log = structlog.get_logger("fleetgate.limits")


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """How limits are kept. `lease` in seconds, `assumed_output` in tokens, `default` for tenants without limits."""

    on_failure: Literal["local", "open", "closed"] = "local"
    assumed_output: int = ASSUMED_OUTPUT
    lease: float = 60.0
    default: Limits | None = None


SHOWN_SECONDS = 60.0
SHOWN_AT_MOST = 2000
"""What was left of limits is shown for so long, of so many rulesets."""


class Limiter:
    """The limits of all tenants, kept by this process together with the other gateways."""

    def __init__(
        self, settings: LimiterSettings, meters: Meters, redis: RedisClient | None, presence: Presence
    ) -> None:
        self.live: dict[str, Reservation] = {}
        """The reservations of requests that run in this process, by id."""
        self.failovers: dict[str, int] = {}
        """Requests that were decided without Redis since the start, by `on_failure`."""
        self.meters = meters
        self._redis = redis
        self._presence = presence
        self._memory = MemoryStore(settings.lease)
        self._local_share = LocalShare(settings.lease)
        self._store = RedisStore(redis, settings.lease) if redis is not None else None
        self._backlog = Backlog(self._store) if self._store is not None else None
        self._renewal = LeaseRenewal(self.live, self._renew, self._backlog, settings.lease)
        self._arrivals = Arrivals(self._peek, now)
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()
        self.configure(settings)
        if redis is not None:
            redis.on_change(self._redis_changed)

    def configure(self, settings: LimiterSettings) -> None:
        """Go by `settings` from now on."""
        self._settings = settings
        self._rulesets = Rulesets(settings.default)
        self._memory.configure(settings.lease)
        self._local_share.configure(settings.lease)
        if self._store is not None:
            self._store.configure(settings.lease)
        self._renewal.configure(settings.lease)

    # One request

    def arrive(self, who: Identity, anthropic: bool) -> Arrival | None:
        """For a request whose body costs something to read: raises `LimitExceeded` where it is certain already that
        `who` has no room; None where nothing is limited. `release` it once its reservation is granted, or it has ended.
        """
        base = self._rulesets.of(who, "")
        if base is None:
            return None
        arrival = Arrival(self._arrivals, who, base, partial(self._refuse_early, anthropic))
        arrival.enter()
        return arrival

    def begin(self, who: Identity, plan: Plan) -> Reservation | None:
        """Reserve what `plan` takes of the limits of `who`; None where there are none. Await its `granted` next.

        The call to Redis is on its way when this returns. Raises `LimitTooSmall` where no waiting would help.
        """
        model = plan.model or ""
        rules = self._rulesets.of(who, model)
        if rules is None:
            return None
        if plan.ask.background and plan.max_tokens is None and rules.counts_tokens:
            raise _unbounded()
        price = self.meters.prices.get(model) if plan.dialect.computes else None
        planned = priced(self.planned(who.tenant.name, plan), price)
        id = f"{self._prefix}{next(self._numbers):x}"
        made = Reservation(self, who, id, rules, plan, planned, price)
        if self._store is not None and self._redis is not None and self._redis.up:
            made.reply = self._store.reserve(made.tenant, made.id, rules, made.costs)
        return made

    def planned(self, tenant: str, plan: Plan) -> Amounts:
        """What `plan` is expected to take, its cost aside."""
        return plan_amounts(plan, self.meters.of(tenant, plan.model or ""), self._settings.assumed_output)

    def bytes_per_token(self, tenant: str, model: str) -> float:
        """How many bytes of text a token of `model`'s prompts was, by what nodes counted of the tenant's requests."""
        return self.meters.of(tenant, model).bytes_per_token.value

    def decide_locally(self, reservation: Reservation) -> tuple[Ruleset, LimitResult] | None:
        """Decide in this process. None where nothing is limited now; raises `LimitsUnknown` where nothing may pass."""
        tenant, rules = reservation.tenant, reservation.rules
        if self._store is None:
            reservation.place = ReservationPlace.MEMORY
            return rules, self._memory.reserve(tenant, reservation.id, rules, reservation.costs)
        reservation.place = ReservationPlace.LOCAL_SHARE
        how = self._settings.on_failure
        self.failovers[how] = self.failovers.get(how, 0) + 1
        match how:
            case "closed":
                raise LimitsUnknown("Limits cannot be checked at the moment; retry in 1 s.", retry_after=1.0)
            case "open":
                return None
        if self._redis is not None and self._redis.up:
            self._local_share.record_refusal(tenant, rules)
        return self._local_share.reserve(reservation, self._presence.live, self.live.values())

    def record_result(self, reservation: Reservation, result: LimitResult) -> None:
        """Redis has granted or refused `reservation`."""
        self._local_share.record_result(reservation.tenant, reservation.rules, result)
        if result.granted:
            self._arrivals.forget_refusal(reservation.who)
        elif (base := self._rulesets.of(reservation.who, "")) is not None:
            self._arrivals.record_refusal(reservation.who, base, reservation.rules, result)

    def enter(self, reservation: Reservation) -> None:
        self.live[reservation.id] = reservation
        self._arrivals.enter(reservation.tenant, reservation.rules)

    def leave(self, reservation: Reservation) -> bool:
        if self.live.pop(reservation.id, None) is None:
            return False
        self._arrivals.leave(reservation.tenant, reservation.rules)
        return True

    def settle(self, reservation: Reservation, used: tuple[int, ...]) -> None:
        """Make `reservation` what was used of each rule."""
        tenant, rules = reservation.tenant, reservation.rules
        if self._backlog is None or self._redis is None:
            self._memory.settle(tenant, reservation.id, rules, used)
            return
        if used == rules.costs(NOTHING):
            self._arrivals.forget_refusal(reservation.who)
        settlement = Settlement(tenant, reservation.id, rules, used)
        if self._redis.up:
            self._backlog.send(settlement)
        else:
            self._backlog.add(settlement)
        local = reservation.place is ReservationPlace.LOCAL_SHARE
        self._local_share.settle(reservation, used if local else (0,) * len(used))

    def _peek(self, tenant: str, rules: Ruleset) -> LimitResult | None:
        """What is left of each rule; None where Redis keeps it."""
        return self._memory.peek(tenant, rules) if self._store is None else None

    def _refuse_early(self, anthropic: bool, who: Identity, base: Ruleset, counted: bool) -> None:
        if self._redis is not None and not self._redis.up:
            return  # other rules hold then: see the table
        refused = self._arrivals.refusal(who, base, counted)
        if refused is not None:
            rules, costs, result = refused
            raise limit_exceeded(rules, costs, result, who.tenant.name, anthropic)

    async def levels(self, who: Identity, model: str) -> tuple[Rules, tuple[int, ...]] | None:
        """What is left of each limit of `who` on `model`, in the rules' own units; None where there are none. Raises
        `RedisUnavailable`."""
        rules = self._rulesets.of(who, model)
        if rules is None:
            return None
        if self._store is None:
            return rules.rules, self._memory.peek(who.tenant.name, rules).left
        id = f"{self._prefix}{next(self._numbers):x}"
        return rules.rules, (await self._store.peek(who.tenant.name, id, rules)).left

    def shares_left(self) -> dict[tuple[str, str], float]:
        """Of each limit of a tenant that had a request in the last minute, 0 to 1: what was left. By tenant and name of
        the limit; those of keys and of single models aside."""
        if self._store is None:
            known: Iterator[tuple[str, Ruleset, LimitResult]] = (
                (name, rules, self._memory.peek(name, rules)) for name, rules in self._rulesets.kept()
            )
        else:
            known = self._local_share.recent(SHOWN_SECONDS)
        found: dict[tuple[str, str], tuple[int, float]] = {}
        for tenant, rules, result in islice(known, SHOWN_AT_MOST):
            for rule, left in zip(rules.rules, result.left, strict=True):
                place = tenant, setting_of(rule)
                if rule.scope == "t" and found.get(place, (0, 0.0))[0] <= result.now:
                    found[place] = result.now, min(1.0, max(0.0, left / rule.capacity))
        return {place: share for place, (_, share) in found.items()}

    # In the background

    def start(self) -> None:
        self._renewal.start()

    async def stop(self) -> None:
        """Settle the backlog, as far as Redis takes it."""
        await self._renewal.stop()
        if self._backlog is not None:
            await self._backlog.flush()
            if self._backlog:
                log.warning("settlements_lost", count=len(self._backlog))

    @property
    def waiting(self) -> int:
        """Settlements that wait for Redis."""
        return 0 if self._backlog is None else len(self._backlog)

    @property
    def dropped(self) -> int:
        """Settlements that were given up, since too many waited."""
        return 0 if self._backlog is None else self._backlog.dropped

    def _redis_changed(self, up: bool) -> None:
        if up:
            self._local_share.clear()
            self._arrivals.forget_all()
            self._renewal.wake()

    async def _renew(self, tenant: str, ids: list[str]) -> None:
        self._local_share.renew(tenant, ids)
        if self._store is None:
            self._memory.renew(tenant, ids)
        else:
            await self._store.renew(tenant, ids)


def _unbounded() -> InvalidRequest:
    return InvalidRequest(
        "The field 'max_output_tokens' is required for a background response under limits: it is charged "
        "in full, since its usage is not reported.",
        param="max_output_tokens",
        code="max_tokens_required",
    )
