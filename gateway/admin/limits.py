"""The admin route that shows what is left of a tenant's limits."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.admin.problems import unknown_tenant
from gateway.core.access.tenants import Identity, Tenant
from gateway.core.limits.rules import Measure, Rule
from gateway.core.limits.words import limit_name
from gateway.core.usage.cost import NANO
from gateway.limits.limiter import Limiter


class LimitView(BaseModel):
    """One limit. `limit` is its name as the log has it, `model` the one that it is for, null for all. `of` is the most
    that can be left (of a limit by the minute: what its bucket holds), `left` what is left now, both in the limit's
    unit: requests, tokens, places or US dollars. `left` is below 0 where requests used more than was planned."""

    limit: str
    model: str | None
    of: float
    left: float


class LimitRoutes:
    """`find` returns a tenant of the file or of Redis by its name, `limiter` None while nothing is limited."""

    tag: ClassVar[str] = "limits"
    about: ClassVar[str] = "What is left of a tenant's limits."

    def __init__(self, find: Callable[[str], Awaitable[Tenant | None]], limiter: Callable[[], Limiter | None]) -> None:
        self._find = find
        self._limiter = limiter

    def add_to(self, router: APIRouter) -> None:
        router.get("/limits/{name:path}")(self.show_limits)

    async def show_limits(self, name: str) -> list[LimitView]:
        """What is left of a tenant's limits and of those of its use of single models, as all gateways count it. The
        limits of its keys are not shown."""
        tenant = await self._find(name)
        if tenant is None:
            raise unknown_tenant(name)
        limiter = self._limiter()
        if limiter is None:
            return []
        who = Identity(tenant)
        found: dict[tuple[str, str], LimitView] = {}
        for model in ("", *tenant.model_limits):
            levels = await limiter.levels(who, model)
            if levels is not None:
                rules, left = levels
                found |= {(rule.scope, rule.name): _view(rule, each) for rule, each in zip(rules, left, strict=True)}
        return list(found.values())


def _view(rule: Rule, left: int) -> LimitView:
    unit = NANO if rule.measure is Measure.COST else rule.unit
    model = rule.scope.partition(":")[2] or None
    return LimitView(limit=limit_name(rule), model=model, of=rule.capacity / unit, left=left / unit)
