"""Admission: the limits grant a request, then a node has a place for it. Nothing is sent before both.

    step                          waits for         what holds from then on
    reserve                       -                 the limits' call to Redis is under way
    choose a node                 -                 the choice's call to Redis is under way, in the same round trip
    the reservation is granted    Redis             what the plan takes of the limits, until the request is settled
    the lease is made             the choice        one unit of the node's concurrency, until its last byte

A lease is made in one piece, behind the last await: bound, drain, slow start and the fleet itself are looked at then,
since others were admitted meanwhile. Where a step fails, what the steps before it took is given back.

A queue for a full fleet belongs in `Admission.admit`, in place of the `FleetFull` that `NodeChoice.lease` raises.
"""

from collections.abc import Callable, Mapping

from gateway.core.access.tenants import Identity
from gateway.core.plan import Plan
from gateway.core.thinking.grant import Headers
from gateway.fleet.node import AnotherLease, Lease
from gateway.limits.arrivals import Arrival
from gateway.limits.limiter import Limiter
from gateway.limits.reservation import Reservation
from gateway.routing.router import NodeChoice, Router


class Admitted:
    """A request that may be served: `lease` is released by who serves it, `reservation` (None: nothing is limited)
    settled when it has ended. `another(tried)` leases a node that was not tried."""

    __slots__ = ("another", "lease", "reservation")

    def __init__(self, reservation: Reservation | None, lease: Lease, another: AnotherLease) -> None:
        self.reservation = reservation
        self.lease = lease
        self.another = another


class Admission:
    """`limiter` is None where nothing can be limited."""

    def __init__(self, limiter: Limiter | None, router: Router) -> None:
        self.limiter = limiter
        self._router = router

    def arrive(self, who: Identity, anthropic: bool) -> Arrival | None:
        """For a request whose body costs something to read: refuses it before, as `Limiter.arrive`."""
        return None if self.limiter is None else self.limiter.arrive(who, anthropic)

    async def admit(
        self,
        who: Identity,
        plan: Plan,
        headers: Mapping[bytes, bytes],
        on_granted: Callable[[Headers], None],
        arrival: Arrival | None = None,
        limited: bool = True,
    ) -> Admitted:
        """Reserve what `plan` takes, and lease a node for it. `headers` are the client's. `on_granted` gets the limits'
        headers for the answer once the reservation is granted, and `arrival` ends then. A request that is not `limited`
        takes nothing of the limits.

        Raises `LimitExceeded`, `LimitTooSmall` or `LimitsUnknown` by the limits, `NoNodeReady` or `FleetFull` by the
        fleet: then it holds nothing.
        """
        reservation = None if self.limiter is None or not limited else self.limiter.begin(who, plan)
        choice: NodeChoice | None = None
        try:
            choice = self._router.choose(plan, who.tenant.name, headers)
            if reservation is not None:
                on_granted(await reservation.granted())
            if arrival is not None:
                arrival.release()
            return Admitted(reservation, await choice.lease(), choice.another)
        except BaseException:
            if choice is not None:
                choice.cancel()
            if reservation is not None:
                reservation.cancel()
            raise
