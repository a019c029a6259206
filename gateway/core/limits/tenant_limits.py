"""The book of one tenant's limits: what is reserved before the work is settled to what was used after it.

A reservation is a lease. Its states, by the request's id:

    state       event                                             next        what happens to the limits
    -           reserve, and every rule has room                  held        all of them are taken
    -           reserve, and one rule has not                     -           none is touched
    held        reserve again (the answer was lost)               held        nothing: it is taken already
    held        settle                                            settled     the rest comes back, or more is owed
    held        renew                                             held        the lease begins anew
    held        its lease runs out (its gateway died)             expired     all of it comes back
    expired, -  settle (a gateway that was cut off, or a book     settled     what was used is taken, room or not
                that was lost)
    settled     settle again (the answer was lost)                settled     nothing: every token counts once
    settled, expired: forgotten after `KEPT` and `MOURNED` seconds.

`gateway/limits/lua` says the same in Lua, for Redis. Times are in microseconds since 1970 and never read here.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from gateway.core.limits.rules import DAY, LimitKind, LimitResult, Rule, Rules, month_of

SECOND = 1_000_000

KEPT = 15
"""Seconds that a settled reservation is remembered, for a settlement that comes twice."""

MOURNED = 3600
"""Seconds that an expired one is remembered."""


class ReservationState(Enum):
    """Where a reservation is; see the table above."""

    HELD = auto()
    SETTLED = auto()
    EXPIRED = auto()


@dataclass(slots=True)
class _Entry:
    """`until`: when its state ends. `costs` and `periods` go with `rules`."""

    state: ReservationState
    until: int
    rules: Rules = ()
    costs: tuple[int, ...] = ()
    periods: tuple[int, ...] = ()


@dataclass(slots=True)
class _Level:
    """A bucket's level at `at`; or what a counter has counted in the period `at`; or places taken (`at` unused)."""

    value: int
    at: int = 0


@dataclass(slots=True)
class TenantLimits:
    """One tenant's levels by (scope, field), and its reservations by the request's id."""

    levels: dict[tuple[str, str], _Level] = field(default_factory=dict)
    reservations: dict[str, _Entry] = field(default_factory=dict)
    _ends: list[tuple[int, str]] = field(default_factory=list, init=False, repr=False, compare=False)
    """A heap of when states end: an entry for each end that was ever set, of which only a reservation's own counts."""

    def reserve(self, now: int, id: str, rules: Rules, costs: tuple[int, ...], lease: int) -> LimitResult:
        """Take `costs` of `rules`, all or none, for `lease` microseconds."""
        self.sweep(now)
        left = [self._left(rule, now) for rule in rules]
        if id in self.reservations:
            return LimitResult(True, now, tuple(left))
        if any(cost > 0 and cost > room for cost, room in zip(costs, left, strict=True)):
            return LimitResult(False, now, tuple(left))
        for index, (rule, cost) in enumerate(zip(rules, costs, strict=True)):
            self._take(rule, cost, now)
            left[index] -= cost
        periods = tuple(_period(rule, now) for rule in rules)
        self._note(id, _Entry(ReservationState.HELD, now + lease, rules, costs, periods))
        return LimitResult(True, now, tuple(left))

    def peek(self, now: int, rules: Rules) -> LimitResult:
        """What is left of `rules`; nothing is taken."""
        self.sweep(now)
        return LimitResult(True, now, tuple([self._left(rule, now) for rule in rules]))

    def settle(self, now: int, id: str, rules: Rules, used: tuple[int, ...]) -> None:
        """Make the reservation `id` what was really used of `rules`."""
        before = self.reservations.get(id)
        if before is not None and before.state is ReservationState.SETTLED:
            return
        if before is None or before.state is ReservationState.EXPIRED:
            for rule, cost in zip(rules, used, strict=True):
                if rule.kind is not LimitKind.LEASES:
                    self._take(rule, cost, now)
        else:
            for rule, cost, reserved, period in zip(rules, used, before.costs, before.periods, strict=True):
                self._adjust(rule, (0 if rule.kind is LimitKind.LEASES else cost) - reserved, period, now)
        self._note(id, _Entry(ReservationState.SETTLED, now + KEPT * SECOND))

    def renew(self, now: int, ids: Iterable[str], lease: int) -> None:
        """Begin the leases of `ids` anew."""
        for id in ids:
            reservation = self.reservations.get(id)
            if reservation is not None and reservation.state is ReservationState.HELD:
                reservation.until = now + lease
                self._note(id, reservation)

    def seed(self, now: int, rules: Rules, left: tuple[int, ...]) -> None:
        """Begin with what is known to be `left` elsewhere, where nothing is written down yet. Not for places."""
        for rule, room in zip(rules, left, strict=True):
            if rule.kind is not LimitKind.LEASES and (rule.scope, rule.field) not in self.levels:
                self._take(rule, rule.capacity - min(room, rule.capacity), now)

    def adopt(self, now: int, id: str, rules: Rules, lease: int) -> None:
        """Count the places of a request that lives, whose other costs are written down elsewhere."""
        costs = tuple(1 if rule.kind is LimitKind.LEASES else 0 for rule in rules)
        for rule, cost in zip(rules, costs, strict=True):
            if cost:
                self._take(rule, cost, now)
        periods = tuple(_period(rule, now) for rule in rules)
        self._note(id, _Entry(ReservationState.HELD, now + lease, rules, costs, periods))

    def sweep(self, now: int) -> None:
        """Give back what is held by leases that ran out; forget what ended long ago."""
        while self._ends and self._ends[0][0] <= now:
            _, id = heapq.heappop(self._ends)
            reservation = self.reservations.get(id)
            if reservation is None or reservation.until > now:
                continue
            if reservation.state is ReservationState.HELD:
                for rule, cost, period in zip(reservation.rules, reservation.costs, reservation.periods, strict=True):
                    self._adjust(rule, -cost, period, now)
                self._note(id, _Entry(ReservationState.EXPIRED, now + MOURNED * SECOND))
            else:
                del self.reservations[id]

    def _note(self, id: str, reservation: _Entry) -> None:
        self.reservations[id] = reservation
        heapq.heappush(self._ends, (reservation.until, id))

    def _left(self, rule: Rule, now: int) -> int:
        level = self.levels.get((rule.scope, rule.field))
        if rule.kind is LimitKind.BUCKET:
            return rule.capacity if level is None else _filled(level, rule, now)
        if level is None or (rule.kind is not LimitKind.LEASES and level.at != _period(rule, now)):
            return rule.limit
        return rule.limit - level.value

    def _take(self, rule: Rule, cost: int, now: int) -> None:
        level = self.levels.get((rule.scope, rule.field))
        if rule.kind is LimitKind.BUCKET:
            left = rule.capacity if level is None else _filled(level, rule, now)
            self.levels[rule.scope, rule.field] = _Level(left - cost, now)
            return
        period = _period(rule, now)
        if level is None or level.at != period:
            level = self.levels[rule.scope, rule.field] = _Level(0, period)
        level.value += cost

    def _adjust(self, rule: Rule, change: int, period: int, now: int) -> None:
        """Take `change` more of what was reserved in `period`, less where it is negative."""
        level = self.levels.get((rule.scope, rule.field))
        if level is None:
            return
        if rule.kind is LimitKind.BUCKET:
            left = min(rule.capacity, _filled(level, rule, now) - change)
            self.levels[rule.scope, rule.field] = _Level(left, now)
        elif level.at == period:  # that of leases is always 0
            level.value += change


def _filled(level: _Level, rule: Rule, now: int) -> int:
    """The level now. One of a time to come (the clock has gone back) becomes one of now: until then nothing would come
    in."""
    level.at = min(level.at, now)
    return min(rule.capacity, level.value + (now - level.at) * rule.limit)


def _period(rule: Rule, now: int) -> int:
    match rule.kind:
        case LimitKind.DAY:
            return now // DAY
        case LimitKind.MONTH:
            return month_of(now)
    return 0
