"""What tenants used today and this month, by what one process saw: shown where no usage is stored."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.core.telemetry.request_stats import RequestStats

KEPT = 2000
"""Tenants; beyond it further ones are not counted."""

DAY = 86_400


class Used(NamedTuple):
    """Of a day or a month; `cost` in nano-dollars."""

    requests: int = 0
    errors: int = 0
    output: int = 0
    thinking: int = 0
    cost: int = 0

    def plus(self, other: "Used") -> "Used":
        return Used(*(a + b for a, b in zip(self, other, strict=True)))


class TenantUse(NamedTuple):
    """Of one tenant."""

    today: Used = Used()
    month: Used = Used()


class TenantUses:
    """Of one process, since it began. Days are UTC's; `month` is the one that the caller says it is."""

    def __init__(self) -> None:
        self._day = self._month = -1
        self._tenants: dict[str, TenantUse] = {}

    def note(self, ended: Iterable[RequestStats], now: float, month: int) -> None:
        """Add requests that have ended, at `now` in seconds since 1970."""
        self._turn(int(now) // DAY, month)
        sums: dict[str, list[int]] = {}
        for event in ended:
            if event.tenant is not None:
                _add(event, sums.setdefault(event.tenant, [0, 0, 0, 0, 0]))
        for name, counted in sums.items():
            if name in self._tenants or len(self._tenants) < KEPT:
                one, known = Used(*counted), self._tenants.get(name, TenantUse())
                self._tenants[name] = TenantUse(known.today.plus(one), known.month.plus(one))

    @property
    def tenants(self) -> dict[str, TenantUse]:
        return self._tenants

    def _turn(self, day: int, month: int) -> None:
        if month != self._month:
            self._tenants = {}
        elif day != self._day:
            self._tenants = {name: TenantUse(month=use.month) for name, use in self._tenants.items()}
        self._day, self._month = day, month


def add_up_uses(parts: Iterable[dict[str, TenantUse]]) -> dict[str, TenantUse]:
    """Those of several processes."""
    sums: dict[str, TenantUse] = {}
    for tenants in parts:
        for name, use in tenants.items():
            known = sums.get(name, TenantUse())
            sums[name] = TenantUse(known.today.plus(use.today), known.month.plus(use.month))
    return sums


def read_uses(spelled: dict[str, Any]) -> dict[str, TenantUse]:
    """As another process sent them. Raises ValueError or TypeError where they are something else."""
    return {
        str(name): TenantUse(Used(*map(int, today)), Used(*map(int, month))) for name, (today, month) in spelled.items()
    }


def _add(event: RequestStats, counted: list[int]) -> None:
    """Add one request to the figures of `Used`."""
    counted[0] += 1
    if event.ending != "ok" and event.level != "info":
        counted[1] += 1
    usage = event.usage
    if usage is not None:
        counted[2] += usage.output
        counted[3] += min(usage.reasoning or 0, usage.output)
    counted[4] += event.cost or 0
