"""What an import of records would change, found out before anything is written."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from gateway.access.blocks import Block
from gateway.access.directory import Directory
from gateway.access.records import KeyRecord, TenantRecord
from gateway.admin.problems import words_of
from gateway.admin.tenants import refuse_newer
from gateway.config.access import KeySettings, TenantConfig, TenantSettings, named_models, newer_settings
from gateway.config.models import ModelNames
from gateway.config.types import Name, Section
from gateway.core.access.api_keys import ID_PATTERN, key_id
from gateway.core.http.problems import FieldProblem
from gateway.usage.transfer import UsageEntry, read_entry

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_SUBJECT = re.compile(rf"tenant:[^\x00-\x1f\x7f]{{1,128}}|key:{ID_PATTERN}")

_IDENTITY: Mapping[str, Sequence[str]] = {
    "block": ("subject",),
    "tenant": ("name",),
    "key": ("id",),
    "usage": ("per", "at", "tenant", "model", "key"),
}
"""What tells records of a kind apart."""


@dataclass(slots=True)
class ReadRecords:
    """The records of one request, and what is wrong with them."""

    blocks: list[Block] = field(default_factory=list)
    tenants: list[TenantRecord] = field(default_factory=list)
    keys: list[KeyRecord] = field(default_factory=list)
    usage: list[UsageEntry] = field(default_factory=list)
    problems: list[FieldProblem] = field(default_factory=list)


class RecordReader:
    """Reads records strictly: what is imported has to be what a gateway of this version and this file would take."""

    def __init__(self, configured: Sequence[TenantConfig], known: ModelNames) -> None:
        self._in_file = {tenant.name for tenant in configured}
        self._ids_in_file = {key_id(bytes.fromhex(key.sha256)) for tenant in configured for key in tenant.keys}
        self._known = known

    def read(self, entries: Sequence[Mapping[str, Any]]) -> ReadRecords:
        found = ReadRecords()
        take: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
            "block": lambda entry: found.blocks.append(_block(entry)),
            "tenant": lambda entry: found.tenants.append(self._tenant(entry)),
            "key": lambda entry: found.keys.append(self._key(entry)),
            "usage": lambda entry: found.usage.append(read_entry(entry)),
        }
        seen: set[tuple[str, ...]] = set()
        for at, entry in enumerate(entries):
            kind = str(entry.get("kind"))
            try:
                if kind not in take:
                    raise ValueError(f"unknown kind {kind!r:.40}; known: {', '.join(take)}")
                take[kind](entry)
                identity = (kind, *(str(entry.get(name)) for name in _IDENTITY[kind]))
                if identity in seen:
                    raise ValueError("is there twice: which one is meant?")
                seen.add(identity)
            except ValueError as error:
                named = str(entry.get("name") or entry.get("id") or entry.get("subject") or "")[:128]
                found.problems.append(FieldProblem(f"records.{at}", f"{kind[:40]} {named}".strip() + f": {error}"))
        return found

    def _tenant(self, entry: Mapping[str, Any]) -> TenantRecord:
        name = _name(entry.get("name"))
        if name in self._in_file:
            raise ValueError("is in the config file: take it out there, or leave it out of the import")
        record = TenantRecord.parse(name, orjson.dumps(entry.get("record")))
        if record is None:
            raise ValueError("its record cannot be read")
        _refuse_newer(record.newer)
        _check_times(entry["record"], "created", "changed")
        settings = _settings(TenantSettings, record.settings)
        self._check_models([model for model, _ in named_models(settings)])
        return record

    def _key(self, entry: Mapping[str, Any]) -> KeyRecord:
        id, given = str(entry.get("id")), entry.get("record")
        replaces = given.get("replaces") if isinstance(given, dict) else None
        if replaces is not None and re.fullmatch(ID_PATTERN, str(replaces)) is None:
            raise ValueError("replaces: expected the id of a key, or null")
        record = KeyRecord.parse(id, orjson.dumps(given))
        if record is None or len(record.digest) != 64:
            raise ValueError("its record cannot be read")
        if key_id(bytes.fromhex(record.digest)) != id:
            raise ValueError("its id is not that of its digest")
        if id in self._ids_in_file:
            raise ValueError("is in the config file: take it out there, or leave it out of the import")
        _name(record.tenant)
        _refuse_newer(record.newer)
        _check_times(entry["record"], "created")
        self._check_models(_settings(KeySettings, record.settings).models)
        return record

    def _check_models(self, names: Sequence[str]) -> None:
        problems = [problem for name in names if (problem := self._known.problem(name)) is not None]
        if problems:
            raise ValueError("; ".join(problems))

    def needs(self, found: ReadRecords) -> list[str]:
        """The tenants that keys of these records belong to, and that have to be in Redis already."""
        brought = {tenant.name for tenant in found.tenants}
        return sorted({key.tenant for key in found.keys} - brought - self._in_file)


class PlannedChange(NamedTuple):
    """`fields`: the settings that differ."""

    kind: str
    subject: str
    action: str
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class ImportPlan:
    """What is to be written, each record with the one in its place, and what is to be told."""

    blocks: list[Block] = field(default_factory=list)
    tenants: list[tuple[TenantRecord, TenantRecord | None]] = field(default_factory=list)
    keys: list[tuple[KeyRecord, KeyRecord | None]] = field(default_factory=list)
    changes: list[PlannedChange] = field(default_factory=list)
    unchanged: int = 0
    missing: list[str] = field(default_factory=list)
    """Tenants of keys that do not exist."""

    def take(self, kind: str, subject: str, differs: tuple[str, ...] | None, replace: bool) -> bool:
        """Note a record; whether it is to be written. `differs`: None where nothing stands there."""
        if differs == ():
            self.unchanged += 1
            return False
        action = "added" if differs is None else "changed" if replace else "kept"
        self.changes.append(PlannedChange(kind, subject, action, differs or ()))
        return action != "kept"


async def plan_records(
    found: ReadRecords, needs: Sequence[str], directory: Directory, replace: bool, plan: ImportPlan
) -> None:
    """Compare tenants and keys with what is kept."""
    tenants = await directory.kept_tenants([record.name for record in found.tenants])
    keys = await directory.kept_keys([record.id for record in found.keys])
    plan.missing = sorted(set(needs) - (await directory.kept_tenants(needs)).keys())
    for tenant in found.tenants:
        standing = tenants.get(tenant.name)
        if plan.take("tenant", tenant.name, _tenant_differs(standing, tenant), replace):
            _refuse_to_lose(standing, TenantSettings, tenant.name)
            plan.tenants.append((tenant, standing))
    for key in found.keys:
        before = keys.get(key.id)
        if plan.take("key", key.id, _key_differs(before, key), replace):
            _refuse_to_lose(before, KeySettings, key.id)
            plan.keys.append((key, before))


def _refuse_to_lose(standing: TenantRecord | KeyRecord | None, kind: type[Section], name: str) -> None:
    """Refuse to write over what is not known here."""
    if standing is not None:
        refuse_newer(name, standing.newer, newer_settings(kind, standing.settings))


def _tenant_differs(before: TenantRecord | None, record: TenantRecord) -> tuple[str, ...] | None:
    return None if before is None else _settings_differ(before.settings, record.settings)


def _key_differs(before: KeyRecord | None, record: KeyRecord) -> tuple[str, ...] | None:
    if before is None:
        return None
    own = [name for name in ("digest", "tenant", "replaces") if getattr(before, name) != getattr(record, name)]
    return (*own, *_settings_differ(before.settings, record.settings))


def _settings_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))


def _name(name: Any) -> str:
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        raise ValueError("its tenant's name is none") from None


def _block(entry: Mapping[str, Any]) -> Block:
    subject, who, reason = (entry.get(name, "") for name in ("subject", "who", "reason"))
    if not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
        raise ValueError("subject: expected tenant:NAME or key:ID")
    if not isinstance(who, str) or len(who) > 300 or not isinstance(reason, str) or len(reason) > 200:
        raise ValueError("who and reason: expected texts of at most 300 and 200 characters")
    _check_times(entry, "at")
    return Block(subject, who, float(entry["at"]), reason)


def _check_times(entry: Mapping[str, Any], *names: str) -> None:
    """A text is no time, though Python reads numbers out of it: 'nan' would be written as null, and read no more."""
    for name in names:
        at: Any = entry.get(name)
        if type(at) not in (int, float) or not 0 <= at < 2**53:
            raise ValueError(f"{name}: expected seconds since 1970, a number")


def _refuse_newer(fields: Sequence[str]) -> None:
    if fields:
        raise ValueError(
            f"has fields of a newer gateway ({', '.join(fields)}): import through a gateway of that version"
        )


def _settings(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        words = [f"{'.'.join(map(str, each['loc']))}: {words_of(each)}" for each in found[:5]]
        raise ValueError("; ".join(words)) from None
