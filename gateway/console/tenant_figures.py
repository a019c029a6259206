"""What tenants use: costs by the usage ledger (without one, by what the processes saw), limits by the limiter.

figure                       read
which tenants there are      every `LIST_SECONDS`
today's use                  every `TODAY_SECONDS`
the days of the month before once a day, and when the first console is opened
limits                       a few tenants with each tick, those with requests under way first
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from gateway.core.access.tenants import Identity, Tenant
from gateway.core.console.tenant_sums import TenantUse, Used
from gateway.core.limits.rules import Measure
from gateway.core.limits.words import limit_name
from gateway.core.usage.cost import NANO
from gateway.core.usage.ledger import DAY
from gateway.limits.limiter import Limiter
from gateway.redis.client import RedisUnavailable
from gateway.usage.report import ReportRow, TooManyRows, UsageReport

LIST_SECONDS = 10.0
TODAY_SECONDS = 10.0
LIMITS_AT_A_TIME = 20
"""Tenants whose limits are read with one tick."""

MODELS_AT_MOST = 4
"""Models with limits of their own that are read of one tenant."""

COLUMNS = (
    *("name", "running", "waiting", "used", "tightest", "limits", "cost", "month", "requests", "errors"),
    *("output", "thinking", "share", "blocked", "class"),
)
"""`used`: percent of the limit that has the least left, whose name is `tightest`; `limits`: name, model, size and what
is left. `cost` (today) and `month` in US dollars, null where no model has a price. `requests`, `errors`, `output` and
`thinking` are today's, `share` the percentage of the output that is thinking."""

ListTenants = Callable[[], Awaitable[Mapping[str, Tenant]]]


class TenantFigures:
    """`report` is None where no usage is stored."""

    def __init__(
        self,
        list_tenants: ListTenants,
        limiter: Callable[[], Limiter | None],
        blocked: Callable[[], frozenset[str]],
        report: UsageReport | None,
        priced: Callable[[], bool],
    ) -> None:
        """`priced`: whether a model has a price."""
        self._list_tenants = list_tenants
        self._limiter = limiter
        self._blocked = blocked
        self._report = report
        self._priced = priced
        self._tenants: Mapping[str, Tenant] = {}
        self._limits: dict[str, list[list[Any]]] = {}
        self._turn = 0
        self._listed_at = self._today_at = 0.0
        self._before_of: tuple[int, frozenset[str]] = (-1, frozenset())
        self._today: dict[str, Used] = {}
        self._before: dict[str, Used] = {}

    @property
    def stored(self) -> bool:
        """Whether the figures are all gateways', and outlive these processes."""
        return self._report is not None

    async def refresh(self, running: Mapping[str, int], waiting: Mapping[str, int]) -> None:
        """Read what is due. What cannot be read now stays as it was."""
        with suppress(RedisUnavailable, TooManyRows):
            await self._refresh_list()
            await self._refresh_use()
            await self._refresh_limits([*waiting, *running])

    def rows(
        self, running: Mapping[str, int], waiting: Mapping[str, int], seen: Mapping[str, TenantUse]
    ) -> list[list[Any]]:
        """One for each tenant. `seen`: their use as the processes saw it."""
        names = dict.fromkeys((*self._tenants, *running, *waiting, *seen, *self._today))
        blocked, priced = self._blocked(), self._priced()
        return [self._row(name, running, waiting, seen, blocked, priced) for name in names]

    def _row(
        self,
        name: str,
        running: Mapping[str, int],
        waiting: Mapping[str, int],
        seen: Mapping[str, TenantUse],
        blocked: frozenset[str],
        priced: bool,
    ) -> list[Any]:
        limits = self._limits.get(name, [])
        tightest = min(limits, key=lambda limit: limit[3] / limit[2] if limit[2] else 0, default=None)
        if self._report is None:
            use = seen.get(name, TenantUse())
            today, month = use.today, use.month
        else:
            today = self._today.get(name, Used())
            month = self._before.get(name, Used()).plus(today)
        tenant = self._tenants.get(name)
        return [
            name,
            running.get(name, 0),
            waiting.get(name, 0),
            None if tightest is None else round(100 * (1 - tightest[3] / tightest[2])) if tightest[2] else 100,
            None if tightest is None else tightest[0],
            limits,
            round(today.cost / NANO, 4) if priced else None,
            round(month.cost / NANO, 4) if priced else None,
            today.requests,
            today.errors,
            today.output,
            today.thinking,
            round(100 * today.thinking / today.output) if today.output else None,
            f"tenant:{name}" in blocked,
            None if tenant is None else tenant.service_class,
        ]

    async def _refresh_list(self) -> None:
        now = time.monotonic()
        if now >= self._listed_at + LIST_SECONDS or not self._listed_at:
            self._listed_at = now
            self._tenants = await self._list_tenants()
            self._limits = {name: found for name, found in self._limits.items() if name in self._tenants}

    async def _refresh_use(self) -> None:
        report, now = self._report, time.monotonic()
        if report is None or (self._today_at and now < self._today_at + TODAY_SECONDS):
            return
        self._today_at = now
        wall = time.time()
        today = int(wall) // DAY
        names = await report.tenants()
        if self._before_of != (today, frozenset(names)):
            first = datetime.fromtimestamp(wall, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            start = first.timestamp()
            by = frozenset({"tenant"})
            rows = await report.rows(names, start, today * DAY, DAY, by) if start < today * DAY else []
            self._before = _by_tenant(rows)
            self._before_of = (today, frozenset(names))
        self._today = _by_tenant(await report.rows(names, today * DAY, wall, DAY, frozenset({"tenant"})))

    async def _refresh_limits(self, active: Iterable[str]) -> None:
        limiter = self._limiter()
        if limiter is None:
            self._limits = {}
            return
        names = list(self._tenants)
        if not names:
            return
        first = [name for name in islice(dict.fromkeys(active), LIMITS_AT_A_TIME // 2) if name in self._tenants]
        turns = [names[(self._turn + at) % len(names)] for at in range(min(LIMITS_AT_A_TIME, len(names)))]
        self._turn = (self._turn + len(turns)) % len(names)
        for name in dict.fromkeys((*first, *turns)):
            self._limits[name] = await _limits_of(limiter, self._tenants[name])


async def _limits_of(limiter: Limiter, tenant: Tenant) -> list[list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for model in ("", *islice(tenant.model_limits, MODELS_AT_MOST)):
        levels = await limiter.levels(Identity(tenant), model)
        if levels is None:
            continue
        for rule, left in zip(*levels, strict=True):
            unit = NANO if rule.measure is Measure.COST else rule.unit
            about = rule.scope.partition(":")[2] or None
            found[rule.scope, rule.name] = [limit_name(rule), about, rule.capacity / unit, round(left / unit, 2)]
    return list(found.values())


def _by_tenant(rows: Iterable[ReportRow]) -> dict[str, Used]:
    return {
        row.tenant: Used(row.sums.requests, row.sums.errors, row.sums.output, row.sums.reasoning_tokens, row.sums.cost)
        for row in rows
    }
