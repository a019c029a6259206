"""The part of the limits that one gateway enforces while Redis does not answer: each limit over the live gateways.

An outage begins with what this gateway last saw left in Redis, divided in the same way, and with the places that its
running requests hold: limits do not start full. When Redis is back the shares are dropped, since the backlog settles in
Redis what was used meanwhile. Where Redis refuses the calls for some rules of one tenant (a key of another type, a
right that was taken away), the tenant's share is kept until Redis accepts all of them again.
"""

from collections.abc import Collection, Iterable, Iterator

from gateway.core.limits.rules import LimitResult
from gateway.limits.reservation import Reservation
from gateway.limits.rulesets import MAX_KEPT, Ruleset
from gateway.limits.stores import MemoryStore, now


class LocalShare:
    """The share of this process. `lease` in seconds."""

    def __init__(self, lease: float) -> None:
        self._store = MemoryStore(lease)
        self._last: dict[tuple[str, Ruleset], LimitResult] = {}
        self._shares: dict[tuple[Ruleset, int], Ruleset] = {}
        self._refused: dict[str, set[Ruleset]] = {}

    def configure(self, lease: float) -> None:
        self._store.configure(lease)

    def record_result(self, tenant: str, rules: Ruleset, result: LimitResult) -> None:
        """Remember what was left in Redis, which has accepted a call for `rules`."""
        if len(self._last) >= MAX_KEPT:
            self._last.clear()
        self._last[tenant, rules] = result
        if self._refused:
            self._record_acceptance(tenant, rules)

    def recent(self, seconds: float) -> Iterator[tuple[str, Ruleset, LimitResult]]:
        """What Redis said was left, in the last `seconds`: tenant, rules and result."""
        since = now() - round(seconds * 1_000_000)
        return ((tenant, rules, result) for (tenant, rules), result in self._last.items() if result.now >= since)

    def _record_acceptance(self, tenant: str, rules: Ruleset) -> None:
        refused = self._refused.get(tenant)
        if refused is None:
            return
        refused.discard(rules)
        if not refused:
            del self._refused[tenant]
            self._store.tenants.pop(tenant, None)

    def record_refusal(self, tenant: str, rules: Ruleset) -> None:
        """Redis is up, and refuses the calls for `rules`."""
        refused = self._refused.setdefault(tenant, set())
        if len(refused) < MAX_KEPT:
            refused.add(rules)

    def reserve(
        self, reservation: Reservation, replicas: int, running: Iterable[Reservation]
    ) -> tuple[Ruleset, LimitResult]:
        """Reserve of this gateway's share. `running`: its requests, of which those of the tenant hold places."""
        tenant, rules = reservation.tenant, reservation.rules
        share = self._share(rules, replicas)
        if tenant not in self._store.tenants:
            for other in running:
                if other.tenant == tenant:
                    self._store.adopt(tenant, other.id, self._share(other.rules, replicas))
        result = self._last.get((tenant, rules))
        if result is not None:
            left = tuple(left // replicas for left in result.left)
            self._store.seed(tenant, share, left)
        return share, self._store.reserve(tenant, reservation.id, share, reservation.costs)

    def settle(self, reservation: Reservation, used: tuple[int, ...]) -> None:
        """Make a reservation of this outage what was used; nothing where the share was dropped since."""
        limits = self._store.tenants.get(reservation.tenant)
        held = None if limits is None else limits.reservations.get(reservation.id)
        if limits is not None and held is not None:
            limits.settle(now(), reservation.id, held.rules, used)

    def renew(self, tenant: str, ids: Collection[str]) -> None:
        if tenant in self._store.tenants:
            self._store.renew(tenant, ids)

    def clear(self) -> None:
        """Redis is back."""
        self._store.tenants.clear()
        self._refused.clear()
        self._shares.clear()

    def _share(self, rules: Ruleset, replicas: int) -> Ruleset:
        share = self._shares.get((rules, replicas))
        if share is None:
            share = self._shares[rules, replicas] = rules.share(replicas)
        return share
