"""Tenants and keys as they stand in Redis: two hashes of JSON records, a version, and the audit's stream.

    fg1:{access}:tenants   name -> {"settings": {...}, "created": s, "changed": s}
    fg1:{access}:keys      id   -> {"digest": hex, "tenant": name, "settings": {...}, "created": s, "replaces": id}
    fg1:{access}:used      id   -> the hour in which a key was last used, in seconds since 1970
    fg1:{access}:version   the time of the last change, in microseconds: whoever has seen it has seen them all
    fg1:{access}:audit     stream of {"line": JSON}; an entry's id is its time

`settings` is what stands under a tenant or a key in the configuration file, word for word. All of it lies in one
slot of a cluster, so that a change is one step. Times are seconds since 1970.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from gateway.shared.link import Script

_LUA = Path(__file__).parent / "lua"
CHANGE = Script.read(_LUA / "change.lua")
LOOK_UP = Script.read(_LUA / "look_up.lua")


@dataclass(frozen=True, slots=True)
class Places:
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


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant that was created at run time."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    changed: float = 0.0
    raw: bytes = b""
    """As it was read; empty for one that is about to be written."""

    @classmethod
    def parse(cls, name: str, raw: bytes) -> Self:
        told = orjson.loads(raw)
        return cls(name, told["settings"], told["created"], told["changed"], raw)

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

    @classmethod
    def parse(cls, id: str, raw: bytes) -> Self:
        told = orjson.loads(raw)
        return cls(id, told["digest"], told["tenant"], told["settings"], told["created"], told.get("replaces"), raw)

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
