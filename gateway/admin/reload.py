"""The admin route that reads the configuration again."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.admin.auth import Who


class ReloadResult(BaseModel):
    """What a reload did. Where `ok` is false the old configuration stays in force, and `problems` says why; `detail`
    is the same in one text, as every error of this listener has it. `changed`: the settings that differ from before,
    none of them a secret. `needs_restart`: those of the file that only a restart brings into force."""

    ok: bool
    problems: list[str] = []
    needs_restart: list[str] = []
    changed: list[str] = []
    detail: str | None = None


class ReloadRoutes:
    """`reload(who)` re-reads the configuration, takes it over, and audits that."""

    tag: ClassVar[str] = "configuration"

    def __init__(self, reload: Callable[[str], Awaitable[ReloadResult]]) -> None:
        self._reload = reload

    def add_to(self, router: APIRouter) -> None:
        router.post("/reload", response_model_exclude_none=True)(self.reload)

    async def reload(self, response: Response, who: Who) -> ReloadResult:
        """Read the configuration again, in every process. Open streams are not touched."""
        result = await self._reload(who)
        if not result.ok:
            response.status_code = 400
            result.detail = "\n".join(result.problems)
        return result
