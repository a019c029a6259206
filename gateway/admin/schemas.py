"""What the admin routes for tenants and keys take and give, and how it is made of what stands in file and Redis."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.access.audit import AuditRecord
from gateway.access.records import KeyRecord, TenantRecord
from gateway.config.access import KeyConfig, KeySettings, TenantConfig, TenantSettings, read_key_settings
from gateway.config.document import spell
from gateway.config.types import Name
from gateway.core.access.api_keys import key_id
from gateway.core.setting_names import RENAMED_IN_TENANT, use_new_names

log = structlog.get_logger("fleetgate.admin")

Origin = Literal["file", "redis"]


class TwoNames(ValueError):
    """A setting under its old and its new name."""


def with_new_names(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` of a tenant or a key with every old name replaced; the log tells which. Raises `TwoNames`."""
    renaming = use_new_names(settings, RENAMED_IN_TENANT)
    for new in renaming.twice:
        raise TwoNames(f"{spell(renaming.written[new])} is the deprecated name of {spell(new)}: give the new one only")
    for new, old in renaming.written.items():
        log.warning("setting_deprecated", setting=spell(old), where="admin API", use=spell(new))
    return renaming.data


class _OldNamesAllowed(BaseModel):
    """Reads settings under their old names, too."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        return with_new_names(given) if isinstance(given, dict) else given


class NewTenant(_OldNamesAllowed, TenantSettings):
    """A tenant to be created, with its settings."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "acme", "models": [], "limits": {"requests_per_minute": 60}}]}
    )

    name: Name


class TenantStatus(BaseModel):
    """A tenant: where it comes from, and its settings where they are not the defaults."""

    name: str
    origin: Origin
    settings: dict[str, Any]
    keys: int
    created: datetime | None = None
    changed: datetime | None = None

    @classmethod
    def of_file(cls, tenant: TenantConfig, keys: int) -> Self:
        """`keys`: how many it has in Redis besides."""
        settings = dump_settings(tenant, "name", "keys")
        return cls(name=tenant.name, origin="file", settings=settings, keys=len(tenant.keys) + keys)

    @classmethod
    def of_redis(cls, record: TenantRecord, keys: int) -> Self:
        return cls(
            name=record.name,
            origin="redis",
            settings=record.settings,
            keys=keys,
            created=moment(record.created),
            changed=moment(record.changed),
        )


class Deleted(BaseModel):
    """A tenant that is gone, and how many keys went with it."""

    name: str
    keys: int


class NewKey(_OldNamesAllowed, KeySettings):
    """A key to be created, with its settings."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tenant": "acme", "label": "ci of acme", "expires": "2027-01-31"}]}
    )

    tenant: Name


class KeyStatus(BaseModel):
    """A key, but not the key itself. One that is `unreadable` opens nothing here. `last_used` is the hour in which it
    was; None: not yet, or not known."""

    id: str
    tenant: str
    origin: Origin
    label: str
    state: Literal["active", "expired", "unreadable"]
    models: list[str]
    settings: dict[str, Any]
    expires: datetime | None
    created: datetime | None = None
    last_used: datetime | None = None
    replaces: str | None = None

    @classmethod
    def of_file(cls, tenant: str, key: KeyConfig) -> Self:
        return cls(**_key_fields(key, dump_settings(key, "sha256")), id=id_of(key), tenant=tenant, origin="file")

    @classmethod
    def of_redis(cls, record: KeyRecord, last_used: float | None = None, **more: Any) -> Self:
        return cls(
            **_key_fields(read_key_settings(record.id, record.settings), record.settings),
            **more,
            id=record.id,
            tenant=record.tenant,
            origin="redis",
            created=moment(record.created),
            last_used=None if last_used is None else moment(last_used),
            replaces=record.replaces,
        )


class MadeKey(KeyStatus):
    """A new key. `key` is shown this once: only its SHA-256 is kept."""

    key: str


class Rotation(BaseModel):
    """How long the old key goes on working beside the new one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_seconds": 3600}]})

    grace_seconds: Annotated[float, Field(ge=0, le=366 * 86_400)] = 86_400.0


class AuditLine(BaseModel):
    """Who did what to what, and when."""

    at: datetime
    who: str
    what: str
    subject: str
    detail: dict[str, Any]

    @classmethod
    def of(cls, line: AuditRecord) -> Self:
        event = line.event
        return cls(at=moment(line.at), who=event.who, what=event.what, subject=event.subject, detail=event.detail)


def dump_settings(settings: TenantSettings | KeySettings, *beside: str) -> dict[str, Any]:
    """The settings that are not the defaults, as JSON carries them, without the fields `beside` them."""
    return settings.model_dump(mode="json", exclude_defaults=True, exclude=set(beside))


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC; the first or last that there is for one beyond them."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return (datetime.min if seconds < 0 else datetime.max).replace(tzinfo=UTC)


def id_of(key: KeyConfig) -> str:
    """The id of a key that stands in the file."""
    return key_id(bytes.fromhex(key.sha256))


def _key_fields(key: KeySettings | None, settings: dict[str, Any]) -> dict[str, Any]:
    if key is None:
        return {"label": "", "state": "unreadable", "models": [], "settings": settings, "expires": None}
    ended = key.expires is not None and key.expires <= datetime.now(UTC)
    return {
        "label": key.label,
        "state": "expired" if ended else "active",
        "models": list(key.models),
        "settings": settings,
        "expires": key.expires,
    }
