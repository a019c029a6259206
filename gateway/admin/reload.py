"""The admin route that reads the configuration again."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.access.audit import Audit, AuditEvent
from gateway.admin.auth import Who


class ReloadResult(BaseModel):
    """What a reload did. Where `ok` is false the old configuration stays in force and `problems` says why."""

    ok: bool
    problems: list[str] = []
    needs_restart: list[str] = []


class ReloadRoutes:
    """`reload` re-reads the configuration and takes it over."""

    def __init__(self, reload: Callable[[], Awaitable[ReloadResult]], audit: Audit) -> None:
        self._reload = reload
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.post("/reload")(self.reload)

    async def reload(self, response: Response, who: Who) -> ReloadResult:
        """Read the configuration again, in every process. Open streams are not touched."""
        result = await self._reload()
        await self._audit.note(AuditEvent(who, "config reloaded", "config", {"ok": result.ok}))
        if not result.ok:
            response.status_code = 400
        return result
