"""Refusals that need no body: what this process knows before a request is read, without asking anybody.

Only bodies that cost something to read are looked at (large ones, and those that are still to come), and only by what
counts requests: how many run at once, and how many may come in a minute.

    known here                                     a request is refused where
    requests of this process that hold a place,    they are as many as may run at once: Redis knows of no fewer
    and those whose bodies are being read
    a level of this process' own book              a request does not fit into it now
    Redis' last refusal of a caller for its        the level, filled up since then, would still refuse it, and none of
    requests per minute                            the caller's requests was granted or given back since

Models are not known yet, so limits of a tenant on a single model are left to the reservation.
"""

from collections.abc import Callable, Iterable

from gateway.core.access.tenants import Identity
from gateway.core.limits.rules import Amounts, LimitKind, LimitResult, Measure
from gateway.limits.rulesets import MAX_KEPT, Ruleset

_A_REQUEST = Amounts()


class LastRefusal:
    """What a caller was refused by: `base` are its rules on every model, as they were then."""

    __slots__ = ("at", "base", "rules", "taken")

    def __init__(self, at: int, base: Ruleset, rules: Ruleset, taken: LimitResult) -> None:
        """`at` is by this process' clock, `taken.now` by Redis'."""
        self.at = at
        self.base = base
        self.rules = rules
        self.taken = taken


class Arrivals:
    """`look(tenant, rules)` is what this process' own book has left of each rule, None where Redis keeps it."""

    def __init__(self, look: Callable[[str, Ruleset], LimitResult | None], now: Callable[[], int]) -> None:
        self._look = look
        self._now = now
        self._places: dict[tuple[str, str], int] = {}
        self._refusals: dict[tuple[str, str | None], LastRefusal] = {}

    def enter(self, tenant: str, rules: Ruleset) -> None:
        """A request takes a place, or will when its body is there."""
        for scope in rules.places:
            self._places[tenant, scope] = self._places.get((tenant, scope), 0) + 1

    def leave(self, tenant: str, rules: Ruleset) -> None:
        for scope in rules.places:
            left = self._places[tenant, scope] - 1
            if left:
                self._places[tenant, scope] = left
            else:
                del self._places[tenant, scope]

    def refused(self, who: Identity, base: Ruleset, rules: Ruleset, taken: LimitResult) -> None:
        """Redis has refused a request of `who`: remembered, where that will hold for the next one."""
        if not _fits(_costs(rules, places=False), taken.left):
            if len(self._refusals) >= MAX_KEPT:
                self._refusals.clear()
            self._refusals[who.tenant.name, who.key] = LastRefusal(self._now(), base, rules, taken)

    def has_room(self, who: Identity) -> None:
        """Redis has granted a request of `who`, or is given one back: what it refused before holds no more."""
        if self._refusals:
            self._refusals.pop((who.tenant.name, who.key), None)

    def forget(self) -> None:
        """Redis is back, perhaps without what it knew."""
        self._refusals.clear()

    def refusal(
        self, who: Identity, base: Ruleset, counted: bool
    ) -> tuple[Ruleset, tuple[int, ...], LimitResult] | None:
        """By which rules a request of `who` is refused now, what it would have taken, and what is left of them; None
        where nothing is known against it. `counted`: it is among those that have entered."""
        tenant = who.tenant.name
        taken = self._look(tenant, base)
        rules = base
        if taken is None:
            rules, taken = self._remembered(who, base)
        left = list(taken.left)
        for index, rule in enumerate(rules.rules):
            if rule.kind is LimitKind.LEASES:
                left[index] = min(left[index], rule.limit - self._places.get((tenant, rule.scope), 0) + counted)
        costs = _costs(rules, places=True)
        if _fits(costs, left):
            return None
        return rules, costs, LimitResult(False, taken.now, tuple(left))

    def _remembered(self, who: Identity, base: Ruleset) -> tuple[Ruleset, LimitResult]:
        """The levels of the last refusal, filled up since; full ones where there was none."""
        caller = (who.tenant.name, who.key)
        last = self._refusals.get(caller)
        now = self._now()
        if last is None:
            return base, LimitResult(True, now, base.capacities)
        rules, taken = last.rules, last.taken
        passed = max(0, now - last.at)
        left = tuple(
            [
                min(rule.capacity, room + passed * rule.limit) if rule.kind is LimitKind.BUCKET else rule.capacity
                for rule, room in zip(rules.rules, taken.left, strict=True)
            ]
        )
        if _fits(_costs(rules, places=False), left) or last.base is not base:
            del self._refusals[caller]
            return base, LimitResult(True, now, base.capacities)
        return rules, LimitResult(False, taken.now + passed, left)


def _fits(costs: Iterable[int], left: Iterable[int]) -> bool:
    """What takes nothing of a limit fits, also where more is owed to that than it holds."""
    return all(cost <= room for cost, room in zip(costs, left, strict=True) if cost)


def _costs(rules: Ruleset, places: bool) -> tuple[int, ...]:
    """What any request takes of the rules that hold for every model: requests, and `places`."""
    kinds = (Measure.REQUESTS, Measure.PLACES) if places else (Measure.REQUESTS,)
    return tuple(
        [
            cost if rule.measure in kinds and not rule.scope.startswith("m:") else 0
            for rule, cost in zip(rules.rules, rules.costs(_A_REQUEST), strict=True)
        ]
    )


class Arrival:
    """One request whose body is still to be read. `leave` on every way out; a second time changes nothing."""

    __slots__ = ("_arrivals", "_base", "_refuse", "_there", "_who")

    def __init__(self, arrivals: Arrivals, who: Identity, base: Ruleset, refuse: Callable[..., None]) -> None:
        """`refuse(who, base, counted)` raises where it is refused."""
        self._arrivals = arrivals
        self._who = who
        self._base = base
        self._refuse = refuse
        self._there = False

    def enter(self) -> None:
        self._refuse(self._who, self._base, False)
        self._arrivals.enter(self._who.tenant.name, self._base)
        self._there = True

    def recheck(self) -> None:
        """The body is there: others may have come meanwhile."""
        self._refuse(self._who, self._base, True)

    def release(self) -> None:
        if self._there:
            self._there = False
            self._arrivals.leave(self._who.tenant.name, self._base)
