"""Admin routes for tenants and the audit. What stands in the file is shown here, and changed in the file only."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Body, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from gateway.access.audit import Audit
from gateway.access.directory import Directory
from gateway.access.records import TenantRecord
from gateway.admin.auth import Who
from gateway.admin.json_pages import answer_with
from gateway.admin.problems import AdminError, unknown_tenant
from gateway.admin.schemas import AuditLine, Deleted, NewTenant, TenantStatus, TwoNames, dump_settings, with_new_names
from gateway.config.access import Moment, TenantConfig, TenantSettings, named_models, newer_settings
from gateway.config.expectations import section_of
from gateway.config.models import ModelNames

Configured = Callable[[], tuple[TenantConfig, ...]]
"""The tenants of the config file as it is now."""

Known = Callable[[], ModelNames]
"""The models of the config file as it is now."""

Change = Annotated[
    dict[str, Any],
    Body(
        description="Settings to change, as in the config file; null resets one to its default (RFC 7396).",
        examples=[{"limits": {"requests_per_minute": 60}, "models": None}],
    ),
]


def stored(directory: Directory | None) -> Directory:
    """The directory, where this gateway has one."""
    if directory is None:
        words = "set access.stored: true and redis.url, or list them in its config file"
        raise AdminError(409, "This gateway does not manage tenants and keys at run time", words)
    return directory


def refuse_newer(name: str, fields: Iterable[str], settings: Iterable[str]) -> None:
    """A record that is written anew would lose what is not known here."""
    newer = [*fields, *settings]
    if newer:
        words = "change it through a gateway of that version"
        raise AdminError(409, f"{name} has settings of a newer gateway ({', '.join(newer)})", words)


class TenantRoutes:
    """`directory` is None where no tenants are created at run time."""

    tag: ClassVar[str] = "tenants"
    about: ClassVar[str] = (
        "Who may use the fleet, and what was changed by whom. Tenants of the config file are shown here, and changed "
        "in the file."
    )

    def __init__(self, directory: Directory | None, configured: Configured, known: Known, audit: Audit) -> None:
        self._directory = directory
        self._configured = configured
        self._known = known
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.get("/tenants", response_model=list[TenantStatus])(self.list_tenants)
        router.post("/tenants", status_code=201)(self.create_tenant)
        router.get("/tenants/{name:path}")(self.show_tenant)
        router.patch("/tenants/{name:path}")(self.set_tenant)
        router.delete("/tenants/{name:path}")(self.delete_tenant)
        router.get("/audit", response_model=list[AuditLine])(self.read_audit)

    async def list_tenants(self) -> Response:
        """All tenants, those of the config file first."""
        return await answer_with(await self._tenants())

    async def create_tenant(self, new: NewTenant, who: Who) -> TenantStatus:
        """Create a tenant with settings as in the config file. All gateways know it within two seconds."""
        directory = stored(self._directory)
        if self._in_file(new.name):
            raise AdminError(
                409, f"The tenant {new.name!r} is already in the config file", "change it there", field="name"
            )
        refuse_unknown(self._known(), named_models(new))
        return TenantStatus.of_redis(await directory.create_tenant(who, new.name, dump_settings(new, "name")), 0)

    async def show_tenant(self, name: str) -> TenantStatus:
        """One tenant: where it comes from, its settings that are not the defaults, and how many keys it has."""
        for tenant in await self._tenants():
            if tenant.name == name:
                return tenant
        raise unknown_tenant(name)

    async def set_tenant(self, name: str, change: Change, who: Who) -> TenantStatus:
        """Change some of a tenant's settings; all gateways go by them within two seconds."""
        directory = stored(self._directory)
        before = await self._kept(directory, name)
        refuse_newer(name, before.newer, newer_settings(TenantSettings, before.settings))
        try:
            change = with_new_names(change)
        except TwoNames as error:
            refuse([("value_error", ("body",), str(error))])
        refuse(_no_settings(change, TenantSettings, ("body",)))
        checked = _checked(_patched(before.settings, change))
        refuse_unknown(self._known(), [named for named in named_models(checked) if named[1][0] in change])
        settings = dump_settings(checked)
        record = await directory.set_tenant(who, before, settings, change)
        return TenantStatus.of_redis(record, len(await directory.keys(name)))

    async def delete_tenant(self, name: str, who: Who) -> Deleted:
        """Delete a tenant and all its keys. What it used stays in the usage."""
        directory = stored(self._directory)
        return Deleted(name=name, keys=await directory.delete_tenant(who, await self._kept(directory, name)))

    async def read_audit(
        self, since: Moment | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
    ) -> Response:
        """The last changes, the newest first."""
        lines = await self._audit.read(0.0 if since is None else since.timestamp(), limit)
        return await answer_with(map(AuditLine.of, lines))

    async def _tenants(self) -> Iterator[TenantStatus]:
        """All tenants, each made when it is asked for."""
        configured = self._configured()
        names = {tenant.name for tenant in configured}
        keys = [] if self._directory is None else await self._directory.keys()
        kept = [] if self._directory is None else await self._directory.tenants()
        counts = Counter([key.tenant for key in keys])

        def listed() -> Iterator[TenantStatus]:
            for tenant in configured:
                yield TenantStatus.of_file(tenant, counts[tenant.name])
            for record in kept:
                if record.name not in names:
                    yield TenantStatus.of_redis(record, counts[record.name])

        return listed()

    def _in_file(self, name: str) -> bool:
        return any(tenant.name == name for tenant in self._configured())

    async def _kept(self, directory: Directory, name: str) -> TenantRecord:
        if self._in_file(name):
            raise AdminError(409, f"The tenant {name!r} is in the config file", "change it there")
        record = await directory.tenant(name)
        if record is None:
            raise unknown_tenant(name)
        return record


def refuse_unknown(known: ModelNames, named: Iterable[tuple[str, tuple[str | int, ...]]]) -> None:
    """Who may use but a model that there is not may use none, and rules for it hold for nothing."""
    problems = [(at, known.problem(name)) for name, at in named]
    refuse([("not_there", ("body", *at), problem) for at, problem in problems if problem is not None])


_Problem = tuple[str, tuple[str | int, ...], str]
"""A kind, a path, and what is wrong there, as FastAPI tells it."""


def refuse(problems: Sequence[_Problem]) -> None:
    """Answer 422 with what is wrong, where anything is."""
    if problems:
        raise RequestValidationError([{"type": kind, "loc": loc, "msg": words} for kind, loc, words in problems])


def _no_settings(change: dict[str, Any], kind: type[BaseModel], at: tuple[str | int, ...]) -> list[_Problem]:
    """The names in a merge patch that are no settings. (Those that are set are found with their values; a null takes
    away what is not there, and would go unnoticed.)"""
    found: list[_Problem] = []
    for name, value in change.items():
        field = kind.model_fields.get(name)
        section = None if field is None else section_of(field.annotation)
        if field is None:
            found.append(("extra_forbidden", (*at, name), "is not a setting"))
        elif isinstance(value, dict) and section is not None:
            found += _no_settings(value, section, (*at, name))
    return found


def _patched(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7396)."""
    merged = dict(settings)
    for name, value in change.items():
        under = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _patched(under if isinstance(under, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def _checked(settings: dict[str, Any]) -> TenantSettings:
    try:
        return TenantSettings.model_validate(settings)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in found]) from None
