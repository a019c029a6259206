"""The limiter: what a request is planned to take is reserved before it is served, and settled after it.

Where that is written down depends on what answers:

    Redis   when a request comes      its reservation is made in      its settlement goes to
    none    always                    memory                          memory
    there   up                        Redis                           Redis; if it is lost meanwhile, the backlog
    there   down, on_failure local    memory, by this gateway's share memory and the backlog
    there   down, on_failure open     nowhere: it passes              the backlog
    there   down, on_failure closed   nowhere: it is refused          -
    there   up, refuses this call     as if it were down              Redis, tried again later; and as if it were down

The backlog is settled when Redis is back, so that what was used during an outage counts. A reservation is renewed as
long as its request lives; that of a process that died runs out by itself.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog

from gateway.core.access.tenants import Identity
from gateway.core.errors import InvalidRequest, LimitsUnknown
from gateway.core.limits.metering import ASSUMED_OUTPUT, Meters, plan_amounts, priced
from gateway.core.limits.rules import NOTHING, Amounts, LimitResult, Limits
from gateway.core.plan import Plan
from gateway.core.usage.cost import Price
from gateway.limits.arrivals import Arrival, Arrivals
from gateway.limits.backlog import Backlog, Settlement
from gateway.limits.local_share import LocalShare
from gateway.limits.reservation import Reservation, ReservationPlace, limit_exceeded
from gateway.limits.rulesets import Ruleset, Rulesets
from gateway.limits.stores import MemoryStore, RedisStore, now
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.presence import Presence

log = structlog.get_logger("fleetgate.limits")

RENEWALS = 3
"""How often a lease is renewed before it would run out."""

TRY_AGAIN = 2.0
"""Seconds until settlements that Redis refused are tried again."""


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """How limits are kept. `lease` in seconds, `assumed_output` in tokens, `default` for tenants without limits."""

    on_failure: Literal["local", "open", "closed"] = "local"
    assumed_output: int = ASSUMED_OUTPUT
    lease: float = 60.0
    default: Limits | None = None


class Limiter:
    """The limits of all tenants, as this process keeps them together with the others."""

    def __init__(self, terms: LimiterSettings, meters: Meters, redis: RedisClient | None, presence: Presence) -> None:
        self.live: dict[str, Reservation] = {}
        """What is reserved now by requests of this process, by id."""
        self._terms = terms
        self.meters = meters
        self._redis = redis
        self._presence = presence
        self._rulesets = Rulesets(terms.default)
        self._memory = MemoryStore(terms.lease)
        self._alone = LocalShare(terms.lease)
        self._store = RedisStore(redis, terms.lease) if redis is not None else None
        self._backlog = Backlog(self._store) if self._store is not None else None
        self._arrivals = Arrivals(self._in_memory, now)
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._back = asyncio.Event()
        if redis is not None:
            redis.on_change(self._changed)

    # One request

    def arrive(self, who: Identity, anthropic: bool) -> Arrival | None:
        """For a request whose body costs something to read: raises `LimitExceeded` where it is known before that `who`
        may not ask now; None where nothing is limited. `leave` it once its reservation is granted, or it has ended."""
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
            raise _boundless()
        price = self.meters.prices.get(model) if plan.dialect.computes else None
        planned = priced(self.planned(who.tenant.name, plan), price)
        id = f"{self._prefix}{next(self._numbers):x}"
        held = Reservation(self, who, id, rules, plan, planned, price)
        if self._store is not None and self._redis is not None and self._redis.up:
            held.asked = self._store.ask(held.tenant, held.id, rules, held.costs)
        return held

    def planned(self, tenant: str, plan: Plan) -> Amounts:
        """What `plan` is expected to take, its cost aside."""
        return plan_amounts(plan, self.meters.of(tenant, plan.model or ""), self._terms.assumed_output)

    def bytes_per_token(self, tenant: str, model: str) -> float:
        """How many bytes of text a token of `model`'s prompts was, by what nodes counted of the tenant's requests."""
        return self.meters.of(tenant, model).bytes_per_token.value

    def without_redis(self, held: Reservation) -> tuple[Ruleset, LimitResult] | None:
        """Decide in this process. None where nothing is limited now; raises `LimitsUnknown` where nothing may pass."""
        if self._store is None:
            held.where = ReservationPlace.MEMORY
            return held.rules, self._memory.reserve_now(held.tenant, held.id, held.rules, held.costs)
        held.where = ReservationPlace.ALONE
        match self._terms.on_failure:
            case "closed":
                raise LimitsUnknown("Limits cannot be checked at the moment: try again soon.", retry_after=1.0)
            case "open":
                return None
        if self._redis is not None and self._redis.up:
            self._alone.refused(held.tenant, held.rules)
        return self._alone.reserve(held, held.costs, self._presence.live, self.live.values())

    def seen(self, held: Reservation, taken: LimitResult) -> None:
        """Redis has answered: yes or no."""
        self._alone.saw(held.tenant, held.rules, taken)
        if taken.granted:
            self._arrivals.has_room(held.who)
        elif (base := self._rulesets.of(held.who, "")) is not None:
            self._arrivals.refused(held.who, base, held.rules, taken)

    def enter(self, held: Reservation) -> None:
        self.live[held.id] = held
        self._arrivals.enter(held.tenant, held.rules)

    def leave(self, held: Reservation) -> bool:
        if self.live.pop(held.id, None) is None:
            return False
        self._arrivals.leave(held.tenant, held.rules)
        return True

    def settle(self, held: Reservation, used: tuple[int, ...]) -> None:
        """Make `held` what was used of each rule."""
        if self._backlog is None or self._redis is None:
            self._memory.settle_now(held.tenant, held.id, held.rules, used)
            return
        if used == held.rules.costs(NOTHING):
            self._arrivals.has_room(held.who)
        settlement = Settlement(held.tenant, held.id, held.rules, used)
        if self._redis.up:
            self._backlog.send(settlement)
        else:
            self._backlog.add(settlement)
        self._alone.settle(held, used if held.where is ReservationPlace.ALONE else (0,) * len(used))

    def _in_memory(self, tenant: str, rules: Ruleset) -> LimitResult | None:
        return self._memory.peek_now(tenant, rules) if self._store is None else None

    def _refuse_early(self, anthropic: bool, who: Identity, base: Ruleset, counted: bool) -> None:
        if self._redis is not None and not self._redis.up:
            return  # by other rules then: see the table
        refused = self._arrivals.refusal(who, base, counted)
        if refused is not None:
            rules, costs, taken = refused
            raise limit_exceeded(rules, costs, taken, who.tenant.name, anthropic)

    # In the background

    def reload(self, terms: LimiterSettings, prices: Mapping[str, Price]) -> None:
        """Go by another configuration from now on; leases keep the length that they began with."""
        self._terms = terms
        self.meters.prices = prices
        self._rulesets = Rulesets(terms.default)

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="leases")

    async def stop(self) -> None:
        """Settle what waits, as far as Redis takes it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
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

    def _changed(self, up: bool) -> None:
        if up:
            self._alone.forget()
            self._arrivals.forget()
            self._back.set()

    async def _keep(self) -> None:
        """Renew leases in time, and settle the backlog when Redis is back."""
        loop = asyncio.get_running_loop()
        renewal = loop.time() + self._terms.lease / RENEWALS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(renewal, loop.time() + TRY_AGAIN)):
                    await self._back.wait()
            self._back.clear()
            try:
                if self._backlog is not None:
                    await self._backlog.flush()
                if loop.time() >= renewal:
                    renewal = loop.time() + self._terms.lease / RENEWALS
                    await self._renew()
            except Exception:
                log.exception("lease_keeping_failed_unexpectedly")

    async def _renew(self) -> None:
        """One call for each tenant. A request that is younger than one round needs none yet."""
        due: defaultdict[str, list[str]] = defaultdict(list)
        for held in self.live.values():
            if held.old:
                due[held.tenant].append(held.id)
            held.old = True
        for tenant, ids in due.items():
            self._alone.renew(tenant, ids)
            if self._store is None:
                self._memory.renew_now(tenant, ids)
                continue
            with contextlib.suppress(RedisUnavailable):
                await self._store.renew(tenant, ids)


def _boundless() -> InvalidRequest:
    return InvalidRequest(
        "The field 'max_output_tokens' is needed for a response in the background: it counts against limits as it is "
        "planned, since its answer says nothing of what it will use.",
        param="max_output_tokens",
        code="max_tokens_required",
    )
