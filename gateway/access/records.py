"""The records of tenants and keys in Redis: two hashes of JSON, a version, and the audit's stream.

    fg1:{access}:tenants   name -> {"settings": {...}, "created": s, "changed": s}
    fg1:{access}:keys      id   -> {"digest": hex, "tenant": name, "settings": {...}, "created": s, "replaces": id}
    fg1:{access}:used      id   -> the hour in which a key was last used, in seconds since 1970
    fg1:{access}:version   the time of the last change, in microseconds
    fg1:{access}:audit     stream of {"line": JSON}; an entry's id is its time

`settings` is what stands under a tenant or a key in the configuration file. A setting that was renamed since is written
under its old name, which older gateways know, and read under both (`core.setting_names`). All of it lies in one slot of
a cluster, so that a change is one step. Times are seconds since 1970.

A newer gateway may write fields that this version does not know. They are ignored where a record is read (`newer`), and
a record that has some is not changed, so that none of them is lost. A value that is no record is skipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import structlog

from gateway.core.setting_names import RENAMED_IN_TENANT, use_new_names, use_stored_names
from gateway.redis.client import Script
from gateway.redis.replies import integer

_LUA = Path(__file__).parent / "lua"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)

LARGEST = 900_000
"""Bytes of a record that is written: as a line of an export it is read again (`core.access.export_format`)."""

log = structlog.get_logger("fleetgate.access")


def _look_up_shape(reply: Any, command: Sequence[Any]) -> bool:
    """The version, the record of a key and that of its tenant (None for a missing one), and which are blocked."""
    if type(reply) is not list or len(reply) != 4 or type(reply[0]) is not int or type(reply[3]) is not list:
        return False
    return set(map(type, reply[1:3])) <= {bytes, type(None)} and set(map(type, reply[3])) <= {bytes}


def _change_shape(reply: Any, command: Sequence[Any]) -> bool:
    """0, or the number of an edit. An edit is five arguments, after five keys and two other arguments."""
    return type(reply) is int and 0 <= reply <= (len(command) - 3 - 5 - 2) // 5


CHANGE = Script.read(_LUA / "change.lua", fits=_change_shape)
DROP = Script.read(_LUA / "drop.lua", fits=integer)
LOOK_UP = Script.read(_LUA / "look_up.lua", fits=_look_up_shape)


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """The names of the keys in Redis."""

    tenants: str
    keys: str
    used: str
    version: str
    audit: str
    changes: str
    blocked: str

    @classmethod
    def below(cls, prefix: str) -> Self:
        base = f"{prefix}:{{access}}:"
        return cls(*(base + name for name in ("tenants", "keys", "used", "version", "audit", "change:", "blocked")))


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    settings = record["settings"]
    if not isinstance(settings, dict):
        raise TypeError("settings is not an object")
    return use_new_names(settings, RENAMED_IN_TENANT).data


def _log_unreadable(kind: str, name: str, error: Exception) -> None:
    log.error("record_invalid", kind=kind, of=name, reason=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant that was created at run time."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    changed: float = 0.0
    raw: bytes = b""
    """The bytes that were read; empty for a record that is about to be written."""
    newer: tuple[str, ...] = ()
    """Fields that this version does not know."""

    @classmethod
    def parse(cls, name: str, raw: bytes) -> Self | None:
        """None where it cannot be read, which is logged."""
        try:
            record = orjson.loads(raw)
            newer = tuple(sorted(record.keys() - {"settings", "created", "changed"}))
            return cls(name, _settings(record), float(record["created"]), float(record["changed"]), raw, newer)
        except _UNREADABLE as error:
            _log_unreadable("tenant", name, error)
            return None

    def dump(self) -> bytes:
        settings = use_stored_names(self.settings)
        return orjson.dumps({"settings": settings, "created": self.created, "changed": self.changed})


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key that was created at run time; `digest` is its SHA-256 in hex, `replaces` the id of the key before it."""

    id: str
    digest: str
    tenant: str
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    replaces: str | None = None
    raw: bytes = b""
    newer: tuple[str, ...] = ()

    @classmethod
    def parse(cls, id: str, raw: bytes) -> Self | None:
        """As `TenantRecord.parse`."""
        try:
            record = orjson.loads(raw)
            digest, tenant = bytes.fromhex(record["digest"]).hex(), str(record["tenant"])
            newer = tuple(sorted(record.keys() - {"digest", "tenant", "settings", "created", "replaces"}))
            settings, created, replaces = _settings(record), float(record["created"]), record.get("replaces")
            if replaces is not None and not isinstance(replaces, str):
                raise TypeError("replaces is not a text")
            return cls(id, digest, tenant, settings, created, replaces, raw, newer)
        except _UNREADABLE as error:
            _log_unreadable("key", id, error)
            return None

    def dump(self) -> bytes:
        return orjson.dumps(
            {
                "digest": self.digest,
                "tenant": self.tenant,
                "settings": use_stored_names(self.settings),
                "created": self.created,
                "replaces": self.replaces,
            }
        )
