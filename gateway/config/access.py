"""Settings of tenants and keys, in the file and in the records of Redis."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

import structlog
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from gateway.config.limits import LimitSettings
from gateway.config.queue import ClassName, Share
from gateway.config.thinking import OnModelConfig, Ruled
from gateway.config.types import Count, Name, Seconds, Section
from gateway.core.access.api_keys import key_id
from gateway.core.access.tenants import NEVER, KeyGrant, Tenant, Tenants, cache_salt
from gateway.core.thinking.policy import PolicyLayer

log = structlog.get_logger("fleetgate.config")


def _moment(value: Any) -> datetime:
    """A time, or a day, which stands for its beginning. A number is refused: 2027 would be a time in 1970."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or outside of the years 1 to 9999 in UTC
        pass
    raise ValueError("expected a time, as 2027-01-31 or 2027-01-31T12:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A time: `2027-01-31` or `2027-01-31T12:00:00Z`; UTC where it names no zone."""


def is_digest(value: str) -> bool:
    """Whether `value` is a SHA-256 in hex."""
    return re.fullmatch("[0-9a-f]{64}", value) is not None


class TenantSettings(Ruled):
    """What a tenant may do, in the file and in Redis alike. `models` empty means all."""

    models: tuple[Name, ...] = ()
    """Models that it may use, by the nodes' names; empty: all."""
    cache_salt: bool = False
    """Whether its prompts are kept apart from others' in the nodes' prefix caches."""
    per_model: tuple[OnModelConfig, ...] = ()
    """Rules for thinking and output, and further limits, that hold on one model only."""
    limits: LimitSettings = LimitSettings()
    """What it may take; unset: `limits.default`."""
    service_class: ClassName | None = None
    """The highest class that its requests may have in the queue, and that of those that do not say."""
    share: Share = 1.0
    """Share of the tokens against other tenants that wait in the same class."""

    def rules(self) -> PolicyLayer:
        own = super().rules()
        return replace(own, per_model={each.model: each.rules() for each in self.per_model})


class KeySettings(Section):
    """What a key may do, under its tenant. `models` empty means all of the tenant's."""

    label: Annotated[str, Field(max_length=128)] = ""
    """A label for people: owner, purpose."""
    models: tuple[Name, ...] = ()
    """Models that it may use; empty: all of its tenant's."""
    expires: Moment | None = None
    """A time from which on it is refused: `2027-01-31` or `2027-01-31T12:00:00Z`. Unset: never."""
    limits: LimitSettings = LimitSettings()
    """Under the tenant's, which all its keys share."""
    service_class: ClassName | None = None
    """The class of its requests, where that is lower than the tenant's."""

    @field_validator("label")
    @classmethod
    def _printable(cls, label: str) -> str:
        if label and not label.isprintable():
            raise ValueError("a label is printable text in one line")
        return label


class KeyConfig(KeySettings):
    """A key, kept as its SHA-256 in hex (`fleetgate keys new` makes one)."""

    sha256: str
    """The key's SHA-256 in hex: `fleetgate keys new` makes both."""

    @field_validator("sha256")
    @classmethod
    def _digest(cls, value: str) -> str:
        if value.startswith("fg-"):
            raise ValueError(
                "is a key, where its SHA-256 belongs: `fleetgate keys new` makes both; "
                "take a new key, since this one stood in a file"
            )
        if not is_digest(value):
            raise ValueError("expected the SHA-256 of a key, 64 hex digits: `fleetgate keys new` makes key and line")
        return value


class TenantConfig(TenantSettings):
    """A tenant of the file."""

    name: Name
    """Its name in usage, metrics and the log."""
    keys: tuple[KeyConfig, ...] = ()
    """More than one, so that a key can be replaced without a gap."""

    @property
    def limited(self) -> bool:
        """Whether it, one of its keys or its use of a model is limited."""
        parts = (self.limits, *(each.limits for each in self.per_model), *(key.limits for key in self.keys))
        return any(part.limits is not None for part in parts)


def named_models(tenant: TenantSettings) -> list[tuple[str, tuple[str | int, ...]]]:
    """The models that a tenant's settings name, each with its path below the tenant."""
    found: list[tuple[str, tuple[str | int, ...]]] = [(name, ("models", at)) for at, name in enumerate(tenant.models)]
    found += [(each.model, ("per_model", at, "model")) for at, each in enumerate(tenant.per_model)]
    for number, key in enumerate(tenant.keys if isinstance(tenant, TenantConfig) else ()):
        found += [(name, ("keys", number, "models", at)) for at, name in enumerate(key.models)]
    return found


class Access(Section):
    """How keys are checked, and whether tenants and keys are created at run time."""

    stored: bool = False
    """Whether `fleetgate tenants` and `fleetgate keys` may create some, kept in Redis."""
    cached_keys: Count = 10_000
    """Keys of Redis that a process remembers."""
    outage: Seconds = 21_600.0
    """Seconds for which remembered keys go on working while Redis does not answer."""
    wrong_keys_per_minute: Count = 30
    """Keys that may be wrong a minute from one address (one /64 of IPv6); beyond it 429."""
    audit_lines: Count = 10_000
    """Changes by administrators that are kept in Redis."""


DEFAULT_TENANT = Tenant("default")
"""The tenant of every request where no tenants are configured."""


def tenants_of(tenants: tuple[TenantConfig, ...], stored: bool, secret: bytes) -> Tenants:
    """The file's tenants and keys. `stored`: there may be others in Redis; `secret`: what all gateways share."""
    return Tenants(
        [tenant_of(tenant.name, tenant, secret) for tenant in tenants],
        [grant_of(tenant.name, bytes.fromhex(key.sha256), key) for tenant in tenants for key in tenant.keys],
        anonymous=None if tenants or stored else DEFAULT_TENANT,
    )


def tenant_of(name: str, settings: TenantSettings, secret: bytes) -> Tenant:
    """A tenant by its settings, which mean the same in the file and in Redis."""
    salt = cache_salt(secret, name) if settings.cache_salt else None
    rules = settings.rules()
    of_models = {each.model: limits for each in settings.per_model if (limits := each.limits.limits) is not None}
    return Tenant(
        name,
        frozenset(settings.models) or None,
        salt,
        None if rules.empty else rules,
        settings.limits.limits,
        of_models,
        settings.service_class,
        settings.share,
    )


def grant_of(tenant: str, digest: bytes, settings: KeySettings) -> KeyGrant:
    """What the key with the SHA-256 `digest` opens."""
    expires = NEVER if settings.expires is None else settings.expires.timestamp()
    models = frozenset(settings.models) or None
    return KeyGrant(digest, tenant, models, expires, settings.limits.limits, settings.service_class)


def newer_settings(kind: type[Section], settings: dict[str, Any]) -> list[str]:
    """The paths in `settings` that this version does not know."""
    try:
        kind.model_validate(settings)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return [".".join(map(str, problem["loc"])) for problem in found if problem["type"] == "extra_forbidden"]
    return []


def read_key_settings(id: str, settings: dict[str, Any]) -> KeySettings | None:
    """A key's settings in Redis; None as in `read_tenant`."""
    return _understood(KeySettings, id, settings)


def read_tenant_settings(name: str, settings: dict[str, Any]) -> TenantSettings | None:
    """A tenant's settings in Redis; None as in `read_tenant`."""
    return _understood(TenantSettings, name, settings)


def read_tenant(secret: bytes, name: str, settings: dict[str, Any]) -> Tenant | None:
    """A tenant of Redis; None where this version cannot read its settings, which is logged."""
    known = _understood(TenantSettings, name, settings)
    return None if known is None else tenant_of(name, known, secret)


def read_grant(tenant: str, digest: bytes, settings: dict[str, Any]) -> KeyGrant | None:
    """A key of Redis; None as in `read_tenant`."""
    known = _understood(KeySettings, key_id(digest), settings)
    return None if known is None else grant_of(tenant, digest, known)


_Settings = TypeVar("_Settings", bound=Section)


def _understood(kind: type[_Settings], name: str, settings: dict[str, Any]) -> _Settings | None:
    """`settings` without those that only a newer gateway knows: old and new ones run side by side for a while."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    newer = [problem["loc"] for problem in problems if problem["type"] == "extra_forbidden"]
    if len(newer) < len(problems):
        log.error(
            "settings_invalid", of=name, problems=[problem["msg"].removeprefix("Value error, ") for problem in problems]
        )
        return None
    log.warning("settings_from_newer_version", of=name, left_out=[".".join(map(str, path)) for path in newer])
    return kind.model_validate(_without(settings, {tuple(path) for path in newer}))


def _without(value: Any, paths: set[tuple[str | int, ...]], at: tuple[str | int, ...] = ()) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, paths, (*at, key)) for key, item in value.items() if (*at, key) not in paths}
    if isinstance(value, list):
        return [_without(item, paths, (*at, index)) for index, item in enumerate(value)]
    return value
