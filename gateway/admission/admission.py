"""Admission: the limits grant a request, then a node has a place for it. Nothing is sent before both.

    step                          waits for         what holds from then on
    reserve                       -                 the limits' call to Redis is under way
    choose a node                 -                 the choice's call to Redis is under way, in the same round trip
    the reservation is granted    Redis             what the plan takes of the limits, until the request is settled
    the lease is made             the choice        one unit of the node's concurrency, until its last byte
    or: the queue                 its turn          the same

A lease is made in one piece, behind the last await: bound, drain, slow start and the fleet itself are looked at then,
since others were admitted meanwhile. Where a step fails, what the steps before it took is given back.

No node is chosen for a request that finds others waiting: it waits behind them (`RequestQueue`).
"""

from collections.abc import Mapping
from time import perf_counter

from gateway.admission.queue import RequestQueue
from gateway.admission.turn_charge import TurnCharge
from gateway.core.access.tenants import Identity
from gateway.core.admission.fair_order import Turn
from gateway.core.admission.service_classes import CLASS_HEADER, ServiceClass
from gateway.core.admission.token_costs import CostForecast
from gateway.core.dialects import Ask
from gateway.core.errors import FleetFull
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.fleet.node import AnotherLease, Lease
from gateway.limits.arrivals import Arrival
from gateway.limits.limiter import Limiter
from gateway.limits.reservation import Reservation
from gateway.routing.node_choice import NodeChoice
from gateway.routing.router import Router
from gateway.routing.shared_placement import SharedTurn
from gateway.upstream.downstream import DownstreamRequest


class Admitted:
    """A request that may be served: `lease` is released by who serves it, `reservation` (None: nothing is limited)
    settled when it has ended, and `charge` (None: no node has a bound) too, by `Admission.settle`. `another(tried)`
    leases a node that was not tried."""

    __slots__ = ("another", "charge", "lease", "reservation")

    def __init__(
        self, reservation: Reservation | None, charge: TurnCharge | None, lease: Lease, another: AnotherLease
    ) -> None:
        self.reservation = reservation
        self.charge = charge
        self.lease = lease
        self.another = another


class Admission:
    """`limiter` is None where nothing can be limited."""

    def __init__(self, limiter: Limiter | None, router: Router, queue: RequestQueue) -> None:
        self.limiter = limiter
        self.queue = queue
        self.forecast = CostForecast()
        self._router = router

    def arrive(self, who: Identity, anthropic: bool) -> Arrival | None:
        """For a request whose body costs something to read: refuses it before, as `Limiter.arrive`."""
        return None if self.limiter is None else self.limiter.arrive(who, anthropic)

    def classify(self, who: Identity, ask: Ask, headers: Mapping[bytes, bytes], stats: RequestStats) -> ServiceClass:
        """The class of a request, which `stats` gets. Raises `InvalidRequest` where its header names none."""
        asked = ask.body.get("service_tier")
        classes = self.queue.rules.classes
        header, tenant = headers.get(CLASS_HEADER), who.tenant.service_class
        chosen = classes.default
        if asked is not None or header is not None or tenant is not None or who.service_class is not None:
            chosen = classes.of(tenant, who.service_class, header, asked)
        stats.service_class, stats.priority = chosen.name, chosen.priority
        if isinstance(asked, str) and chosen.tiers:
            stats.service_tier = chosen.tiers[0]
        return chosen

    async def admit(
        self,
        who: Identity,
        plan: Plan,
        service_class: ServiceClass,
        request: DownstreamRequest,
        stats: RequestStats,
        deadline: float,
        arrival: Arrival | None = None,
        limited: bool = True,
    ) -> Admitted:
        """Reserve what `plan` takes, and lease a node for it, at once or when it is its turn. `deadline` is loop time.
        `request` gets the limits' headers once the reservation is granted, and `arrival` ends then. A request that is
        not `limited` takes nothing of the limits.

        Raises `LimitExceeded`, `LimitTooSmall` or `LimitsUnknown` by the limits, `NoNodeReady`, `FleetFull` or
        `QueueFull` by the fleet, `ClientGone` and `DeadlineExceeded` while it waits: then it holds nothing.
        """
        charge = None
        trace = stats.trace
        if trace is not None:
            trace.begin("choice", perf_counter())
        counts = self._router.fleet.bounded or self.queue.bounds.size
        if counts and plan.model is not None:  # what was made before is read beyond all bounds
            charge = self._charge(who, plan, service_class, request)
        reservation = None if self.limiter is None or not limited else self.limiter.begin(who, plan)
        choice: NodeChoice | None = None
        try:
            if charge is None or not self.queue.holds_back(charge, plan.pinned_to):
                turn = None if charge is None else SharedTurn(charge.model, charge.turn)
                choice = NodeChoice(self._router, plan, who.tenant.name, request.headers, turn)
            if reservation is not None:
                request.add_headers(await reservation.granted())
            if arrival is not None:
                arrival.release()
            if choice is not None:
                try:
                    at_once = reservation is None and not choice.waits
                    lease = choice.lease_at_once() if at_once else await choice.lease()
                except FleetFull:  # all nodes are, or others wait whose turn it is
                    choice.cancel()  # what Redis chose may have left meanwhile
                else:
                    if charge is not None:
                        self.queue.charge(charge, choice)
                    return Admitted(reservation, charge, lease, choice.another)
            charge = charge or self._charge(who, plan, service_class, request)
            began = self._router.now()
            if trace is not None:
                trace.begin("queue", perf_counter())
            try:
                lease, another = await self.queue.wait(plan, charge, request, deadline)
            finally:
                stats.queued = self._router.now() - began
            return Admitted(reservation, charge, lease, another)
        except BaseException:
            if choice is not None:
                choice.cancel()
            if reservation is not None:
                reservation.cancel()
            raise

    async def reserve(self, who: Identity, plan: Plan, request: DownstreamRequest) -> Reservation | None:
        """What `plan`, which no node serves, takes of the limits; `request` gets their headers. Raises as `admit`."""
        reservation = None if self.limiter is None else self.limiter.begin(who, plan)
        if reservation is not None:
            try:
                request.add_headers(await reservation.granted())
            except BaseException:
                reservation.cancel()
                raise
        return reservation

    def settle(self, charge: TurnCharge, stats: RequestStats) -> None:
        """The request of `charge` has ended."""
        self.queue.correct(charge, charge.used(stats))

    def _charge(self, who: Identity, plan: Plan, service_class: ServiceClass, request: DownstreamRequest) -> TurnCharge:
        """Whose turn the request takes, and what it is charged for that as planned."""
        turn = Turn(service_class.name, who.tenant.name, service_class.share, who.tenant.share, 0.0)
        request.add_headers(service_class.headers)
        most = plan.output_tokens if plan.dialect.output_fields else 0
        return TurnCharge(self.forecast, self.queue.rules.costs, plan.model or "", turn, plan.input_tokens, most)
