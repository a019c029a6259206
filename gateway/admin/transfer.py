"""Admin routes that write tenants, keys, blocks and usage out, and take them in again.

An import comes in pages, each of which is checked whole before anything of it is written. `fleetgate import` checks all
pages (`dry_run`) before it has the first one written.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.audit import Audit, AuditEvent
from gateway.access.blocks import Blocks
from gateway.access.directory import AlreadyExists, ChangedMeanwhile, Directory, DoesNotExist
from gateway.admin.auth import Who
from gateway.admin.export import Export
from gateway.admin.import_plan import ImportPlan, ReadRecords, RecordReader, plan_records
from gateway.admin.problems import AdminError
from gateway.admin.tenants import Configured, Known, stored
from gateway.admin.usage import not_stored
from gateway.config.access import Moment
from gateway.redis.client import RedisRefusesAll, ScriptFailed
from gateway.usage.transfer import UsageChanges, UsageTransfer

RECORDS = 200
"""Records of one request: Redis serves nobody else while it checks and writes them, about a millisecond."""


class ImportRequest(BaseModel):
    """Records of an export. `merge` adds what is not there and leaves what differs; `replace` puts the file's in its
    place. `dry_run`: say what would change, and change nothing."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "mode": "merge",
                    "dry_run": True,
                    "records": [
                        {"kind": "tenant", "name": "acme", "record": {"settings": {}, "created": 0, "changed": 0}}
                    ],
                }
            ]
        },
    )

    mode: Literal["merge", "replace"]
    dry_run: bool = True
    records: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=RECORDS)]


class ImportChange(BaseModel):
    """What happens to one record: `kept` differs from the file, and stays (merge). `fields` differ."""

    kind: Literal["block", "tenant", "key"]
    subject: str
    action: Literal["added", "changed", "kept"]
    fields: list[str]


class UsageCounts(BaseModel):
    """Sums of a tenant's model and key in one hour or day each; `expired` ones are too old to be kept."""

    added: int = 0
    changed: int = 0
    kept: int = 0
    unchanged: int = 0
    expired: int = 0


class ImportResult(BaseModel):
    """What was changed, or would be. `unchanged`: records that stand there already. `missing_tenants`: those of keys
    that do not exist, which is refused where it is no dry run."""

    dry_run: bool
    changes: list[ImportChange]
    unchanged: int
    usage: UsageCounts
    missing_tenants: list[str]


class TransferRoutes:
    """What a gateway does not keep is None."""

    tag: ClassVar[str] = "export and import"
    about: ClassVar[str] = "Tenants, keys, blocks and usage as a file: for backups, and for another Redis."

    def __init__(
        self,
        directory: Directory | None,
        blocks: Blocks | None,
        usage: UsageTransfer | None,
        configured: Configured,
        known: Known,
        audit: Audit,
    ) -> None:
        self._directory = directory
        self._blocks = blocks
        self._usage = usage
        self._configured = configured
        self._known = known
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.get("/export", response_class=StreamingResponse)(self.export_records)
        router.post("/import")(self.import_records)

    async def export_records(
        self,
        who: Who,
        usage: Annotated[bool, Query(description="Whether usage is written, too.")] = True,
        since: Annotated[Moment | None, Query(description="Usage from then on; default: all that is kept.")] = None,
    ) -> StreamingResponse:
        """All tenants, keys and blocks that are kept in Redis, and usage, as JSON Lines. Of a key only its SHA-256.
        What stands in the config file is not in it. A last line of the kind `end` says that it is whole."""
        if self._blocks is None:
            raise AdminError(
                409, "Tenants, keys and usage are kept in Redis, and this gateway has none", "set redis.url"
            )
        export = Export(self._blocks, self._directory, self._usage if usage else None)
        pages = export.pages(None if since is None else since.timestamp())
        first = await anext(pages)  # while nothing was sent, Redis may still be told as what failed
        await self._audit.note(AuditEvent(who, "data exported", "export", {"usage": usage}))
        return StreamingResponse(_chained(first, pages), media_type="application/jsonl")

    async def import_records(self, asked: ImportRequest, who: Who) -> ImportResult:
        """Write records of an export; at most 200 at a time. All are checked before one is written, and the same import
        twice changes nothing more. Nothing is ever deleted."""
        reader = RecordReader(self._configured(), self._known())
        found = reader.read(asked.records)
        if found.problems:
            raise AdminError.of_problems(
                422, found.problems, "import_refused", "correct them, or leave them out; nothing was changed"
            )
        replace = asked.mode == "replace"
        plan = await self._plan(found, reader.needs(found), replace)
        if plan.missing and not asked.dry_run:
            named = ", ".join(plan.missing[:5])
            raise AdminError(409, f"Keys belong to tenants that do not exist ({named})", "import the tenants first")
        counts = UsageChanges()
        if found.usage:
            counts = await self._usage_of().write(found.usage, replace, dry=True)
        if not asked.dry_run:
            try:
                await self._write(plan, reader.needs(found), who, asked.mode)
                if counts.added or counts.changed:
                    counts = await self._usage_of().write(found.usage, replace, dry=False)
                    detail = {"mode": asked.mode, **counts._asdict()}
                    await self._audit.note(AuditEvent(who, "usage imported", "usage", detail))
            except (AlreadyExists, DoesNotExist, ChangedMeanwhile) as error:
                raise AdminError(409, f"{error} was changed meanwhile, or cannot be read", "import again") from None
            except (RedisRefusesAll, ScriptFailed) as error:
                words = f"Redis refused a call ({error}); a part of these records may have been written"
                raise AdminError(503, words, "see the log, and import again: nothing is added twice") from None
        return ImportResult(
            dry_run=asked.dry_run,
            changes=[ImportChange.model_validate(change._asdict()) for change in plan.changes],
            unchanged=plan.unchanged,
            usage=UsageCounts(**counts._asdict()),
            missing_tenants=plan.missing,
        )

    async def _plan(self, found: ReadRecords, needs: list[str], replace: bool) -> ImportPlan:
        plan = ImportPlan()
        if found.blocks:
            blocked = {block.subject for block in await self._blocks_of().all()}
            for block in found.blocks:
                if plan.take("block", block.subject, () if block.subject in blocked else None, replace):
                    plan.blocks.append(block)
        if found.tenants or found.keys:
            await plan_records(found, needs, stored(self._directory), replace, plan)
        return plan

    async def _write(self, plan: ImportPlan, needs: list[str], who: str, mode: str) -> None:
        for block in plan.blocks:
            await self._blocks_of().add(block.who, block.subject, block.reason, block.at)
            await self._audit.note(AuditEvent(who, "blocked", block.subject, {"reason": block.reason, "import": True}))
        if plan.tenants or plan.keys:
            detail: dict[str, Any] = {"mode": mode}
            for change in plan.changes:
                if change.action != "kept" and change.kind != "block":
                    detail.setdefault(change.action, []).append(change.subject)
            await stored(self._directory).import_records(who, plan.tenants, plan.keys, needs, detail)

    def _blocks_of(self) -> Blocks:
        if self._blocks is None:
            raise AdminError(409, "Blocks are kept in Redis, and this gateway has none", "set redis.url")
        return self._blocks

    def _usage_of(self) -> UsageTransfer:
        if self._usage is None:
            raise not_stored()
        return self._usage


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for page in rest:
        yield page
