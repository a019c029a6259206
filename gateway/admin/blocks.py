"""Admin routes that shut tenants and keys out at once, and let them in again."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, ClassVar, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.access.audit import Audit, AuditEvent
from gateway.access.blocks import Block, Blocks
from gateway.admin.auth import Who
from gateway.admin.problems import AdminError, unknown_tenant
from gateway.admin.schemas import moment
from gateway.config.types import KEY_ID_PATTERN
from gateway.core.access.tenants import Tenant


class BlockRequest(BaseModel):
    """Which tenant, or which key by its id, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"tenant": "acme", "reason": "a key leaked"}]}
    )

    tenant: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    key: Annotated[str, Field(pattern=KEY_ID_PATTERN)] | None = None
    reason: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.tenant is None) == (self.key is None):
            raise ValueError("name one of tenant and key")
        return self

    @property
    def subject(self) -> str:
        return f"tenant:{self.tenant}" if self.tenant is not None else f"key:{self.key}"


class BlockView(BaseModel):
    """One block: `subject` is tenant:NAME or key:ID, `who` blocked it, and when."""

    subject: str
    who: str
    at: datetime
    reason: str

    @classmethod
    def of(cls, block: Block) -> Self:
        return cls(subject=block.subject, who=block.who, at=moment(block.at), reason=block.reason)


class BlockRoutes:
    """`blocks` is None without Redis; `find` returns a tenant by its name."""

    tag: ClassVar[str] = "blocks"
    about: ClassVar[str] = "Tenants and keys that are shut out at once."

    def __init__(self, blocks: Blocks | None, find: Callable[[str], Awaitable[Tenant | None]], audit: Audit) -> None:
        self._blocks = blocks
        self._find = find
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.get("/blocks")(self.show_blocks)
        router.post("/block")(self.block)
        router.post("/unblock")(self.unblock)

    async def show_blocks(self) -> list[BlockView]:
        """All tenants and keys that are blocked."""
        return [BlockView.of(block) for block in await self._shared().all()]

    async def block(self, asked: BlockRequest, who: Who) -> list[BlockView]:
        """Refuse all further requests of a tenant or a key, in every gateway, within two seconds. Those that are under
        way go on."""
        blocks = self._shared()
        if asked.tenant is not None and await self._find(asked.tenant) is None:
            raise unknown_tenant(asked.tenant)
        await blocks.add(who, asked.subject, asked.reason)
        await self._audit.note(AuditEvent(who, "blocked", asked.subject, {"reason": asked.reason}))
        return await self.show_blocks()

    async def unblock(self, asked: BlockRequest, who: Who) -> list[BlockView]:
        """Let a tenant or a key in again."""
        if not await self._shared().remove(asked.subject):
            raise AdminError(404, f"{asked.subject} is not blocked", "`fleetgate blocks` shows who is")
        await self._audit.note(AuditEvent(who, "unblocked", asked.subject, {"reason": asked.reason}))
        return await self.show_blocks()

    def _shared(self) -> Blocks:
        if self._blocks is None:
            remedy = "set redis.url, or take the tenant out of the config file"
            raise AdminError(409, "Blocks are kept in Redis, and this gateway has none", remedy)
        return self._blocks
