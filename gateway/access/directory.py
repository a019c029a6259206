"""The directory: creates, changes and deletes the tenants and keys in Redis.

A change is a list of edits, each with a condition. One script makes all edits or none, raises the version that every
gateway polls, and writes the audit entry. Another script deletes the keys that a deleted tenant has left; it checks in
the same step that the tenant has not been created again.
"""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from gateway.access.audit import AuditEvent, log_event
from gateway.access.records import CHANGE, DROP, LARGEST, AccessKeys, KeyRecord, TenantRecord
from gateway.core.access.api_keys import key_id
from gateway.redis.client import RedisClient, RedisUnavailable, ScriptFailed, Value
from gateway.redis.replies import pairs_of

_CHUNK = 500
"""Records that are read by one command. Redis serves nobody else meanwhile."""

Table = Literal[1, 2]
TENANTS: Table = 1
KEYS: Table = 2


class FieldEdit(NamedTuple):
    """Sets `field` to `value`, or deletes it (None), under the condition `must`: the field is absent, is present (then
    nothing is written), or holds the `same` bytes as `before`."""

    table: Table
    field: str
    must: Literal["absent", "present", "same"]
    before: bytes = b""
    value: bytes | None = None


class AlreadyExists(Exception):
    """One of that name exists."""


class DoesNotExist(Exception):
    """None of that name exists."""


class RecordTooLarge(Exception):
    """It would have more than `LARGEST` bytes."""


class KeysLeft(Exception):
    """A tenant was deleted, but not its keys, for the reason in the text. They authenticate nobody."""


class ChangedMeanwhile(Exception):
    """It was changed by another call between reading and writing."""


class Directory:
    """The records in Redis. Every method raises `RedisUnavailable` where Redis does not answer, or refuses."""

    def __init__(self, redis: RedisClient, audit_lines: int) -> None:
        self._redis = redis.reports
        self._audit_lines = audit_lines
        self._keys = AccessKeys.below(redis.schema.records)

    # Tenants

    async def tenant(self, name: str) -> TenantRecord | None:
        raw = await self._redis.command("HGET", self._keys.tenants, name)
        return None if raw is None else TenantRecord.parse(name, raw)

    async def tenants(self) -> list[TenantRecord]:
        """All of them, by name."""
        read = [TenantRecord.parse(name, raw) async for name, raw in self._scan(self._keys.tenants)]
        found = [tenant for tenant in read if tenant is not None]
        return sorted(found, key=lambda tenant: tenant.name)

    async def create_tenant(self, who: str, name: str, settings: dict[str, Any]) -> TenantRecord:
        """Raises `AlreadyExists`. Deletes keys first that an earlier tenant of that name has left, where a process died
        between deleting the tenant and its keys."""
        await self._drop_keys(name)
        now = time.time()
        record = TenantRecord(name, settings, now, now)
        await self._change(
            AuditEvent(who, "tenant created", name, settings), FieldEdit(TENANTS, name, "absent", value=record.dump())
        )
        return record

    async def set_tenant(
        self, who: str, before: TenantRecord, settings: dict[str, Any], changed: dict[str, Any]
    ) -> TenantRecord:
        """Give `before` new `settings`; `changed` is the part of them that the audit shows."""
        record = TenantRecord(before.name, settings, before.created, time.time())
        edit = FieldEdit(TENANTS, before.name, "same", before.raw, record.dump())
        await self._change(AuditEvent(who, "tenant changed", before.name, changed), edit)
        return record

    async def delete_tenant(self, who: str, before: TenantRecord) -> int:
        """Delete a tenant, then its keys, which authenticate nobody from the first step on. Returns how many keys."""
        event = AuditEvent(who, "tenant deleted", before.name, {})
        await self._change(event, FieldEdit(TENANTS, before.name, "same", before.raw))
        try:
            return await self._drop_keys(before.name)
        except (RedisUnavailable, ScriptFailed) as error:
            raise KeysLeft(str(error)) from None

    # Keys

    async def key(self, id: str) -> KeyRecord | None:
        raw = await self._redis.command("HGET", self._keys.keys, id)
        return None if raw is None else KeyRecord.parse(id, raw)

    async def keys(self, tenant: str | None = None) -> list[KeyRecord]:
        """All keys, or those of a tenant; the oldest first."""
        read = [KeyRecord.parse(id, raw) async for id, raw in self._scan(self._keys.keys)]
        found = [key for key in read if key is not None and tenant in (None, key.tenant)]
        return sorted(found, key=lambda key: key.created)

    async def last_used(self) -> dict[str, float]:
        """Key id to the hour in which it was last used, in seconds since 1970."""
        return {id: int(raw) async for id, raw in self._scan(self._keys.used) if raw.isdigit()}

    async def create_key(
        self, who: str, tenant: str, digest: bytes, settings: dict[str, Any], in_file: bool
    ) -> KeyRecord:
        """A key for `tenant`. `in_file`: the tenant is in the configuration file, not in Redis."""
        record = KeyRecord(key_id(digest), digest.hex(), tenant, settings, time.time())
        edits = [FieldEdit(KEYS, record.id, "absent", value=record.dump())]
        if not in_file:
            edits.insert(0, FieldEdit(TENANTS, tenant, "present"))
        await self._change(AuditEvent(who, "key created", record.id, {"tenant": tenant, **settings}), *edits)
        return record

    async def revoke_key(self, who: str, before: KeyRecord) -> None:
        event = AuditEvent(who, "key revoked", before.id, {"tenant": before.tenant})
        await self._change(event, FieldEdit(KEYS, before.id, "same", before.raw))
        with contextlib.suppress(RedisUnavailable, ScriptFailed):  # the key is revoked all the same
            await self._redis.command("HDEL", self._keys.used, before.id)

    async def rotate_key(
        self, who: str, before: KeyRecord, digest: bytes, settings: dict[str, Any], old: dict[str, Any]
    ) -> KeyRecord:
        """A new key with `settings` in the place of `before`, which keeps working with `old` ones."""
        record = KeyRecord(key_id(digest), digest.hex(), before.tenant, settings, time.time(), before.id)
        ending = KeyRecord(before.id, before.digest, before.tenant, old, before.created, before.replaces)
        event = AuditEvent(who, "key rotated", before.id, {"tenant": before.tenant, "new": record.id, "old": old})
        await self._change(
            event,
            FieldEdit(KEYS, before.id, "same", before.raw, ending.dump()),
            FieldEdit(KEYS, record.id, "absent", value=record.dump()),
        )
        return record

    # Export and import

    def raw_tenants(self) -> AsyncIterator[tuple[str, bytes]]:
        """Every tenant's name and record as it is kept, also one that cannot be read here."""
        return self._scan(self._keys.tenants)

    def raw_keys(self) -> AsyncIterator[tuple[str, bytes]]:
        """The same of keys, by their ids."""
        return self._scan(self._keys.keys)

    async def kept_tenants(self, names: Sequence[str]) -> dict[str, TenantRecord]:
        """Those of `names` that exist and can be read."""
        return _by_name(names, await self._raw(self._keys.tenants, names), TenantRecord.parse)

    async def kept_keys(self, ids: Sequence[str]) -> dict[str, KeyRecord]:
        """The same of keys."""
        return _by_name(ids, await self._raw(self._keys.keys, ids), KeyRecord.parse)

    async def import_records(
        self,
        who: str,
        tenants: Iterable[tuple[TenantRecord, TenantRecord | None]],
        keys: Iterable[tuple[KeyRecord, KeyRecord | None]],
        needed: Collection[str],
        detail: Mapping[str, Any],
    ) -> None:
        """Write records in one step, each in the place of what stood there; None: nothing. `needed`: tenants of Redis
        that have to exist besides. Deletes keys first that an earlier tenant of a name which is new here has left."""
        tenants, keys = list(tenants), list(keys)
        added = {record.name for record, before in tenants if before is None}
        if added:
            left = defaultdict(list)
            for key in await self.keys():
                if key.tenant in added:
                    left[key.tenant].append(key)
            for tenant, orphans in left.items():
                await self._drop(tenant, orphans)
        edits = [FieldEdit(TENANTS, name, "present") for name in sorted(needed)]
        edits += [_edit(TENANTS, record.name, record, before) for record, before in tenants]
        edits += [_edit(KEYS, record.id, record, before) for record, before in keys]
        names = [*(record.name for record, _ in tenants), *(record.id for record, _ in keys)]
        await self._change(AuditEvent(who, "records imported", ", ".join(names[:5]), dict(detail)), *edits)

    async def _raw(self, hash: str, names: Sequence[str]) -> list[bytes | None]:
        return await self._redis.command("HMGET", hash, *names) if names else []

    async def _drop_keys(self, tenant: str) -> int:
        """Delete the keys of a tenant that does not exist; none where it exists (again)."""
        return await self._drop(tenant, await self.keys(tenant))

    async def _drop(self, tenant: str, keys: Sequence[KeyRecord]) -> int:
        """The same of `keys`, which are its."""
        names = [self._keys.tenants, self._keys.keys, self._keys.used]
        dropped = 0
        for start in range(0, len(keys), _CHUNK):
            pairs = [word for key in keys[start : start + _CHUNK] for word in (key.id, key.raw)]
            gone = await self._redis.run(DROP, names, [tenant, *pairs])
            if gone < 0:
                break
            dropped += gone
        return dropped

    async def _change(self, event: AuditEvent, *edits: FieldEdit) -> None:
        keys = self._keys
        mark = keys.changes + os.urandom(12).hex()
        args: list[Value] = [self._audit_lines, event.dump()]
        for edit in edits:
            if edit.value is not None and len(edit.value) > LARGEST:
                raise RecordTooLarge(edit.field)
            args += [edit.table, edit.field, edit.must, edit.before, edit.value or b""]
        names = [keys.tenants, keys.keys, keys.version, keys.audit, mark]
        failed = await self._redis.run(CHANGE, names, args)
        if failed:
            edit = edits[failed - 1]
            kind = {"absent": AlreadyExists, "present": DoesNotExist, "same": ChangedMeanwhile}[edit.must]
            raise kind(edit.field)
        log_event(event)

    async def _scan(self, hash: str) -> AsyncIterator[tuple[str, bytes]]:
        cursor: Any = 0
        seen: set[bytes] = set()
        while True:
            cursor, entries = await self._redis.command("HSCAN", hash, cursor, "COUNT", _CHUNK)
            for field, value in pairs_of(entries).items():
                if field not in seen:  # HSCAN may return a field twice while the hash grows
                    seen.add(field)
                    yield field.decode(errors="replace"), value
            if int(cursor) == 0:
                return


_Record = TypeVar("_Record", TenantRecord, KeyRecord)


def _by_name(
    names: Sequence[str], found: Sequence[bytes | None], parse: Callable[[str, bytes], _Record | None]
) -> dict[str, _Record]:
    read = [(name, parse(name, raw)) for name, raw in zip(names, found, strict=True) if raw is not None]
    return {name: record for name, record in read if record is not None}


def _edit(
    table: Table, field: str, record: TenantRecord | KeyRecord, before: TenantRecord | KeyRecord | None
) -> FieldEdit:
    if before is None:
        return FieldEdit(table, field, "absent", value=record.dump())
    return FieldEdit(table, field, "same", before.raw, record.dump())
