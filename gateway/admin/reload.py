"""The admin route that reads the configuration again."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.admin.auth import Who
from gateway.admin.problems import AdminError
from gateway.core.http.problems import FieldProblem


class ReloadResult(BaseModel):
    """What a reload did. Where `ok` is false the old configuration stays in force, and `problems` says why.
    `changed`: the settings that differ from before, none of them a secret. `needs_restart`: those of the file that only
    a restart brings into force."""

    ok: bool
    problems: list[str] = []
    needs_restart: list[str] = []
    changed: list[str] = []


class ReloadRoutes:
    """`reload(who)` re-reads the configuration, takes it over, and audits that."""

    tag: ClassVar[str] = "configuration"
    about: ClassVar[str] = "The config file, read again."

    def __init__(self, reload: Callable[[str], Awaitable[ReloadResult]]) -> None:
        self._reload = reload

    def add_to(self, router: APIRouter) -> None:
        router.post("/reload")(self.reload)

    async def reload(self, who: Who) -> ReloadResult:
        """Read the configuration again, in every process. Open streams are not touched. Where it has mistakes it stays
        as it is: 400, with all of them."""
        result = await self._reload(who)
        if not result.ok:
            raise AdminError.of_problems(
                400,
                [FieldProblem("", each) for each in result.problems],
                "config_refused",
                "correct the file, and reload again",
            )
        return result
