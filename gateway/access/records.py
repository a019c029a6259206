"""Tenants and keys as they stand in Redis: two hashes of JSON records, a version, and the audit's stream.

    fg1:{access}:tenants   name -> {"settings": {...}, "created": s, "changed": s}
    fg1:{access}:keys      id   -> {"digest": hex, "tenant": name, "settings": {...}, "created": s, "replaces": id}
    fg1:{access}:used      id   -> the hour in which a key was last used, in seconds since 1970
    fg1:{access}:version   the time of the last change, in microseconds: whoever has seen it has seen them all
    fg1:{access}:audit     stream of {"line": JSON}; an entry's id is its time

`settings` is what stands under a tenant or a key in the configuration file, word for word. All of it lies in one
slot of a cluster, so that a change is one step. Times are seconds since 1970.

A newer gateway may write more fields than are known here. They are left out where a record is read, and a record that
has some is not changed (`newer`): nothing is lost that somebody else understands. What is no record at all is skipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import structlog

from gateway.redis.client import Script
from gateway.redis.replies import integer

_LUA = Path(__file__).parent / "lua"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)

log = structlog.get_logger("fleetgate.access")


def _looked_up(reply: Any, command: Sequence[Any]) -> bool:
    """The version, a key's record and its tenant's, None for each that there is not."""
    if type(reply) is not list or len(reply) != 3 or type(reply[0]) is not int:
        return False
    return set(map(type, reply[1:])) <= {bytes, type(None)}


def _changed(reply: Any, command: Sequence[Any]) -> bool:
    """0, or the number of an edit: each is five arguments, after five keys and two others."""
    return type(reply) is int and 0 <= reply <= (len(command) - 3 - 5 - 2) // 5


CHANGE = Script.read(_LUA / "change.lua", fits=_changed)
DROP = Script.read(_LUA / "drop.lua", fits=integer)
LOOK_UP = Script.read(_LUA / "look_up.lua", fits=_looked_up)


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """The names of the keys in Redis."""

    tenants: str
    keys: str
    used: str
    version: str
    audit: str
    changes: str

    @classmethod
    def below(cls, prefix: str) -> Self:
        base = f"{prefix}:{{access}}:"
        return cls(*(base + name for name in ("tenants", "keys", "used", "version", "audit", "change:")))


def _settings(told: dict[str, Any]) -> dict[str, Any]:
    settings = told["settings"]
    if not isinstance(settings, dict):
        raise TypeError("settings is no object")
    return settings


def _tell(kind: str, name: str, error: Exception) -> None:
    log.error("record_not_understood", kind=kind, of=name, reason=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant that was created at run time."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    changed: float = 0.0
    raw: bytes = b""
    """As it was read; empty for one that is about to be written."""
    newer: tuple[str, ...] = ()
    """Fields that this version does not know."""

    @classmethod
    def parse(cls, name: str, raw: bytes) -> Self | None:
        """None for what cannot be read; the log says so."""
        try:
            told = orjson.loads(raw)
            newer = tuple(sorted(told.keys() - {"settings", "created", "changed"}))
            return cls(name, _settings(told), float(told["created"]), float(told["changed"]), raw, newer)
        except _UNREADABLE as error:
            _tell("tenant", name, error)
            return None

    def dump(self) -> bytes:
        return orjson.dumps({"settings": self.settings, "created": self.created, "changed": self.changed})


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
        """As a tenant's."""
        try:
            told = orjson.loads(raw)
            digest, tenant = bytes.fromhex(told["digest"]).hex(), str(told["tenant"])
            newer = tuple(sorted(told.keys() - {"digest", "tenant", "settings", "created", "replaces"}))
            settings, created, replaces = _settings(told), float(told["created"]), told.get("replaces")
            return cls(id, digest, tenant, settings, created, replaces, raw, newer)
        except _UNREADABLE as error:
            _tell("key", id, error)
            return None

    def dump(self) -> bytes:
        return orjson.dumps(
            {
                "digest": self.digest,
                "tenant": self.tenant,
                "settings": self.settings,
                "created": self.created,
                "replaces": self.replaces,
            }
        )
