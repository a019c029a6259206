"""Limits as one would work them out on paper: every event is kept, and what is left is added up anew each time.

No arithmetic here is shared with the gateway's book or its Lua: fractions instead of units, the calendar instead of an
algorithm for it, a list of events instead of levels.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from gateway.core.limits.rules import UNIT, LimitKind, Rule, Rules
from gateway.core.limits.tenant_limits import KEPT, MOURNED

SECOND = 1_000_000


@dataclass(slots=True)
class _Taken:
    at: int
    amount: int
    period: object


@dataclass(slots=True)
class _Held:
    until: int
    rules: Rules
    costs: tuple[int, ...]
    at: int


@dataclass(slots=True)
class Reference:
    """One tenant."""

    events: dict[tuple[str, str], list[_Taken]] = field(default_factory=dict)
    held: dict[str, _Held] = field(default_factory=dict)
    ended: dict[str, tuple[str, int]] = field(default_factory=dict)
    """How a reservation ended, and until when that is remembered."""

    def reserve(self, now: int, id: str, rules: Rules, costs: tuple[int, ...], lease: int) -> tuple[bool, list[int]]:
        self._expire(now)
        for rule in rules:
            if any(event.at > now for event in self.events.get((rule.scope, rule.field), [])[-1:]):
                self._note(rule, 0, now, now)  # the clock has gone back: buckets fill from here on
        if id in self.held or id in self.ended:
            return True, [self.left(rule, now) for rule in rules]
        if any(cost and cost > self.left(rule, now) for rule, cost in zip(rules, costs, strict=True)):
            return False, [self.left(rule, now) for rule in rules]
        for rule, cost in zip(rules, costs, strict=True):
            self._note(rule, cost, now, now)
        self.held[id] = _Held(now + lease, rules, costs, now)
        return True, [self.left(rule, now) for rule in rules]

    def settle(self, now: int, id: str, rules: Rules, used: tuple[int, ...]) -> None:
        if self.ended.get(id, ("", 0))[0] == "settled":
            return
        held = self.held.pop(id, None)
        for index, rule in enumerate(rules):
            if held is not None:
                change = (0 if rule.kind is LimitKind.LEASES else used[index]) - held.costs[index]
                self._note(rule, change, now, held.at)
            elif rule.kind is not LimitKind.LEASES:
                self._note(rule, used[index], now, now)
        self.ended[id] = ("settled", now + KEPT * SECOND)

    def renew(self, now: int, id: str, lease: int) -> None:
        if id in self.held:
            self.held[id].until = now + lease

    def left(self, rule: Rule, now: int) -> int:
        """In the rule's own unit."""
        events = self.events.get((rule.scope, rule.field), [])
        if rule.kind is LimitKind.LEASES:
            return rule.limit - sum(event.amount for event in events)
        if rule.kind is not LimitKind.BUCKET:
            period = _period(rule, now)
            return rule.limit - sum(event.amount for event in events if event.period == period)
        level, at = Fraction(rule.capacity, UNIT), now
        full = level
        for number, event in enumerate(events):
            if number:
                level = min(full, level + Fraction(max(0, event.at - at) * rule.limit, 60 * SECOND))
            level = min(full, level - Fraction(event.amount, UNIT))
            at = event.at
        if events:
            level = min(full, level + Fraction(max(0, now - at) * rule.limit, 60 * SECOND))
        exact = level * UNIT
        assert exact.denominator == 1
        return exact.numerator

    def _expire(self, now: int) -> None:
        self.ended = {id: end for id, end in self.ended.items() if end[1] > now}
        for id, held in list(self.held.items()):
            if held.until <= now:
                for rule, cost in zip(held.rules, held.costs, strict=True):
                    self._note(rule, -cost, now, held.at)
                del self.held[id]
                self.ended[id] = ("expired", now + MOURNED * SECOND)

    def _note(self, rule: Rule, amount: int, now: int, of: int) -> None:
        self.events.setdefault((rule.scope, rule.field), []).append(_Taken(now, amount, _period(rule, of)))


def _period(rule: Rule, now: int) -> object:
    moment = datetime.fromtimestamp(now // SECOND, UTC)
    return moment.date() if rule.kind is LimitKind.DAY else (moment.year, moment.month)
