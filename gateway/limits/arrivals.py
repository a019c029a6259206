"""Early refusals: of requests that cannot be granted, before their bodies are read and without a call to Redis.

Only requests whose bodies cost something to read are checked (large ones, and those that are still to come), and only
by the limits that count requests: how many run at once, and how many may come in a minute.

    known in this process                          a request is refused where
    its running requests, and those whose          they are as many as may run at once: Redis counts no fewer
    bodies are being read
    a level of its own store                       a request does not fit into the level now
    Redis' last refusal of a caller by its         the level, filled up since then, would still refuse it, and none of
    requests per minute                            the caller's requests was granted or given back since

The model is not known yet, so limits of a tenant on a single model are left to the reservation.
"""

from collections.abc import Callable, Iterable

from gateway.core.access.tenants import Identity
from gateway.core.limits.rules import Amounts, LimitKind, LimitResult, Measure
from gateway.limits.rulesets import MAX_KEPT, Ruleset

_A_REQUEST = Amounts()


class LastRefusal:
    """A refusal of a caller by Redis. `base`: the caller's rules on every model at that time."""

    __slots__ = ("at", "base", "result", "rules")

    def __init__(self, at: int, base: Ruleset, rules: Ruleset, result: LimitResult) -> None:
        """`at` is by this process' clock, `result.now` by Redis'."""
        self.at = at
        self.base = base
        self.rules = rules
        self.result = result


class Arrivals:
    """What runs here now, and what Redis refused last."""

    def __init__(self, peek: Callable[[str, Ruleset], LimitResult | None], now: Callable[[], int]) -> None:
        """`peek(tenant, rules)`: what this process' own store has left of each rule, None where Redis keeps it."""
        self._peek = peek
        self._now = now
        self._running: dict[tuple[str, str], int] = {}
        self._refusals: dict[tuple[str, str | None], LastRefusal] = {}

    def enter(self, tenant: str, rules: Ruleset) -> None:
        """A request runs, or will when its body is there."""
        for scope in rules.concurrency_scopes:
            self._running[tenant, scope] = self._running.get((tenant, scope), 0) + 1

    def leave(self, tenant: str, rules: Ruleset) -> None:
        for scope in rules.concurrency_scopes:
            left = self._running[tenant, scope] - 1
            if left:
                self._running[tenant, scope] = left
            else:
                del self._running[tenant, scope]

    def record_refusal(self, who: Identity, base: Ruleset, rules: Ruleset, result: LimitResult) -> None:
        """Redis has refused a request of `who`. Kept, where it would refuse the next one as well."""
        if not _fits(_costs(rules, places=False), result.left):
            if len(self._refusals) >= MAX_KEPT:
                self._refusals.clear()
            self._refusals[who.tenant.name, who.key] = LastRefusal(self._now(), base, rules, result)

    def forget_refusal(self, who: Identity) -> None:
        """Redis has granted a request of `who`, or is given one back: the last refusal may not hold any more."""
        if self._refusals:
            self._refusals.pop((who.tenant.name, who.key), None)

    def forget_all(self) -> None:
        """Redis is back, perhaps without its data."""
        self._refusals.clear()

    def refusal(
        self, who: Identity, base: Ruleset, counted: bool
    ) -> tuple[Ruleset, tuple[int, ...], LimitResult] | None:
        """By which rules a request of `who` is refused now, what it would have taken, and what is left of them; None
        where it may be granted. `counted`: it has entered."""
        tenant = who.tenant.name
        result = self._peek(tenant, base)
        rules = base
        if result is None:
            rules, result = self._last_levels(who, base)
        left = list(result.left)
        for index, rule in enumerate(rules.rules):
            if rule.kind is LimitKind.LEASES:
                left[index] = min(left[index], rule.limit - self._running.get((tenant, rule.scope), 0) + counted)
        costs = _costs(rules, places=True)
        if _fits(costs, left):
            return None
        return rules, costs, LimitResult(False, result.now, tuple(left))

    def _last_levels(self, who: Identity, base: Ruleset) -> tuple[Ruleset, LimitResult]:
        """The levels of the last refusal, filled up since; full ones where there was none."""
        caller = (who.tenant.name, who.key)
        last = self._refusals.get(caller)
        now = self._now()
        if last is None:
            return base, LimitResult(True, now, base.capacities)
        rules, result = last.rules, last.result
        passed = max(0, now - last.at)
        left = tuple(
            [
                min(rule.capacity, room + passed * rule.limit) if rule.kind is LimitKind.BUCKET else rule.capacity
                for rule, room in zip(rules.rules, result.left, strict=True)
            ]
        )
        if _fits(_costs(rules, places=False), left) or last.base is not base:
            del self._refusals[caller]
            return base, LimitResult(True, now, base.capacities)
        return rules, LimitResult(False, result.now + passed, left)


def _fits(costs: Iterable[int], left: Iterable[int]) -> bool:
    """Whether every cost fits. A cost of 0 always does, also where the level is below 0."""
    return all(cost <= room for cost, room in zip(costs, left, strict=True) if cost)


def _costs(rules: Ruleset, places: bool) -> tuple[int, ...]:
    """What any request takes of the rules that hold for every model: of requests, and of `places`."""
    kinds = (Measure.REQUESTS, Measure.PLACES) if places else (Measure.REQUESTS,)
    return tuple(
        [
            cost if rule.measure in kinds and not rule.scope.startswith("m:") else 0
            for rule, cost in zip(rules.rules, rules.costs(_A_REQUEST), strict=True)
        ]
    )


class Arrival:
    """One request whose body is still to be read. `release` it on every way out; a second time changes nothing."""

    __slots__ = ("_arrivals", "_base", "_entered", "_refuse", "_who")

    def __init__(self, arrivals: Arrivals, who: Identity, base: Ruleset, refuse: Callable[..., None]) -> None:
        """`refuse(who, base, counted)` raises where it is refused."""
        self._arrivals = arrivals
        self._who = who
        self._base = base
        self._refuse = refuse
        self._entered = False

    def enter(self) -> None:
        self._refuse(self._who, self._base, False)
        self._arrivals.enter(self._who.tenant.name, self._base)
        self._entered = True

    def recheck(self) -> None:
        """The body is there. Others may have been granted meanwhile."""
        self._refuse(self._who, self._base, True)

    def release(self) -> None:
        if self._entered:
            self._entered = False
            self._arrivals.leave(self._who.tenant.name, self._base)
