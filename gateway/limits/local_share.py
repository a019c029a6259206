"""A gateway on its own: while Redis does not answer it enforces its share, the limit over the live gateways.

It begins each outage with what it last saw left in Redis, divided in the same way, and with the places that its own
requests hold: so an outage is not a fresh bucket. When Redis is back all of this is forgotten, since what was used
meanwhile is settled there. Where Redis refuses what is asked for some rules of one tenant (a key of another type, or a
right that was taken away), that tenant's share is kept here until Redis takes all of those again.
"""

from collections.abc import Iterable
from typing import Protocol

from gateway.core.limits.rules import LimitResult
from gateway.core.limits.tenant_limits import TenantLimits
from gateway.limits.rulesets import MAX_KEPT, Ruleset
from gateway.limits.stores import MemoryStore, now


class LocalHold(Protocol):
    """A request that lives."""

    id: str
    tenant: str
    rules: Ruleset


class LocalShare:
    """The share of one gateway. `lease` in seconds."""

    def __init__(self, lease: float) -> None:
        self._store = MemoryStore(lease)
        self._lease = round(lease * 1_000_000)
        self._last: dict[tuple[str, Ruleset], LimitResult] = {}
        self._shares: dict[tuple[Ruleset, int], Ruleset] = {}
        self._refused: dict[str, set[Ruleset]] = {}

    def saw(self, tenant: str, rules: Ruleset, taken: LimitResult) -> None:
        """Remember what was left in Redis."""
        if len(self._last) >= MAX_KEPT:
            self._last.clear()
        self._last[tenant, rules] = taken
        if self._refused:
            self._taken_again(tenant, rules)

    def _taken_again(self, tenant: str, rules: Ruleset) -> None:
        refused = self._refused.get(tenant)
        if refused is None:
            return
        refused.discard(rules)
        if not refused:
            del self._refused[tenant]
            self._store.books.pop(tenant, None)

    def refused(self, tenant: str, rules: Ruleset) -> None:
        """Redis is there, and does not take what is asked for `rules`."""
        refused = self._refused.setdefault(tenant, set())
        if len(refused) < MAX_KEPT:
            refused.add(rules)

    def reserve(
        self, held: LocalHold, costs: tuple[int, ...], replicas: int, living: Iterable[LocalHold]
    ) -> tuple[Ruleset, LimitResult]:
        """Reserve of this gateway's share. `living`: all its requests, of which those of the tenant hold places."""
        share = self._share(held.rules, replicas)
        book = self._store.books.get(held.tenant)
        if book is None:
            book = self._store.books[held.tenant] = TenantLimits()
            for other in living:
                if other.tenant == held.tenant:
                    book.adopt(now(), other.id, self._share(other.rules, replicas).rules, self._lease)
        last = self._last.get((held.tenant, held.rules))
        if last is not None:
            book.seed(now(), share.rules, tuple(left // replicas for left in last.left))
        return share, self._store.reserve_now(held.tenant, held.id, share, costs)

    def settle(self, held: LocalHold, used: tuple[int, ...]) -> None:
        """Make a reservation of this outage what was used; nothing where it was forgotten since."""
        book = self._store.books.get(held.tenant)
        reservation = None if book is None else book.reservations.get(held.id)
        if book is not None and reservation is not None:
            book.settle(now(), held.id, reservation.rules, used)

    def renew(self, tenant: str, ids: list[str]) -> None:
        if tenant in self._store.books:
            self._store.renew_now(tenant, ids)

    def forget(self) -> None:
        """Redis is back."""
        self._store.books.clear()
        self._refused.clear()
        self._shares.clear()

    def _share(self, rules: Ruleset, replicas: int) -> Ruleset:
        share = self._shares.get((rules, replicas))
        if share is None:
            share = self._shares[rules, replicas] = rules.share(replicas)
        return share
