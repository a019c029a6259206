"""The keyring: a cache of the keys in Redis, and how it is kept up to date.

    a key is          from                          until
    cached            its first lookup, or start    the version in Redis has changed, or `REFRESH_SECONDS` have passed:
                                                    then all cached keys are read again
    cached unknown    a lookup that found none      `UNKNOWN_SECONDS` have passed, or the version has changed
    not answered for  `outage` seconds without      Redis answers again
                      an answer of Redis

The version is polled every `POLL_SECONDS`. So a revocation takes effect in every gateway within `POLL_SECONDS` and the
time of one refresh while Redis answers, and within `outage` otherwise. The version that is kept was read before the
cached keys were: after a change during a refresh, or a refresh that failed, the next poll finds a newer one.

A version is polled instead of a channel being subscribed to, since a failed poll is noticed and a lost message is not.
"""

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.access.key_usage import KeyUsage
from gateway.access.records import LOOK_UP, AccessKeys, KeyRecord, TenantRecord
from gateway.core.access.api_keys import key_id, selector
from gateway.core.access.tenants import Identity, KeyGrant, Tenant, Tenants, identity_of
from gateway.core.errors import KeysUnknown
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.keys")

POLL_SECONDS = 0.5
REFRESH_SECONDS = 60.0
UNKNOWN_SECONDS = 10.0
UNKNOWN_KEYS = 10_000

_CHUNK = 200


@dataclass(frozen=True, slots=True)
class RecordReaders:
    """Turn the settings of records into what the rules take. Both return None where this version cannot read them."""

    tenant: Callable[[str, dict[str, Any]], Tenant | None]
    """From a name and its settings."""
    grant: Callable[[str, bytes, dict[str, Any]], KeyGrant | None]
    """From a tenant's name, a key's SHA-256 and its settings."""


class Keyring:
    """Cached keys, by the first bytes of their digests."""

    def __init__(
        self,
        redis: RedisClient,
        reading: RecordReaders,
        tenants: Tenants,
        bound: int,
        outage: float,
        on_blocked: Callable[[str], object] | None = None,
    ) -> None:
        """`tenants`: those of the configuration, which win over those of Redis. `bound`: of keys; `outage`: seconds.
        `on_blocked` is told of a tenant or a key that is blocked (as in `blocks`) where a lookup has found it so."""
        self._redis = redis
        self._reading = reading
        self._keys = AccessKeys.below(redis.schema.records)
        self._bound = bound
        self._outage = outage
        self._on_blocked = on_blocked
        self._known: dict[bytes, tuple[KeyGrant, Identity, float]] = {}
        self._unknown: dict[bytes, float] = {}
        self._tenants: dict[str, Tenant] = {}
        self._usage = KeyUsage(redis, self._keys.used, self._known, bound)
        self._version = -1
        self._confirmed = self._refreshed = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.configure(tenants)

    def configure(self, tenants: Tenants) -> None:
        """Know these tenants of the configuration from now on."""
        self._configured = tenants
        for name, (grant, _, at) in list(self._known.items()):
            self._cache(name, grant, at)

    def start(self) -> None:
        """Begin to poll the version. The first poll caches the keys that exist, so that an outage finds them cached."""
        self._task = asyncio.create_task(self._run(), name="keyring")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._usage.flush()

    # Lookups

    def known(self, digest: bytes) -> Identity | None:
        """The caller whose key has this SHA-256; None where it is not cached, or was not confirmed within `outage`."""
        name = selector(digest)
        found = self._known.get(name)
        if found is None or not hmac.compare_digest(found[0].digest, digest):
            return None
        if time.monotonic() - max(self._confirmed, found[2]) > self._outage:
            return None
        self._usage.add(name)
        return found[1]

    async def find(self, digest: bytes) -> Identity | None:
        """The same, looked up in Redis; raises `KeysUnknown` where Redis does not answer."""
        now = time.monotonic()
        if self._unknown.get(digest, now) > now:
            return None
        try:
            found = await self._look_up(digest)
        except RedisUnavailable:
            raise _unknown() from None
        if found is None:
            return None
        self._usage.add(selector(digest))
        return found

    async def _look_up(self, digest: bytes) -> Identity | None:
        id = key_id(digest)
        names = [self._keys.tenants, self._keys.keys, self._keys.version, self._keys.blocked]
        began = time.monotonic()
        version, key, tenant, blocked = await self._redis.run(LOOK_UP, names, [id])
        if version < self._version:  # read before a change that the cache has: read again
            began = time.monotonic()
            version, key, tenant, blocked = await self._redis.run(LOOK_UP, names, [id])
        if self._on_blocked is not None:
            for subject in blocked:  # an import writes a block and its key within less than a poll of blocks
                self._on_blocked(subject.decode(errors="replace"))
        if version != self._version:
            self._refreshed = float("-inf")  # the other cached keys may have changed
        else:
            self._confirmed = max(self._confirmed, began)
        record = None if key is None else KeyRecord.parse(id, key)
        if record is None:
            self._cache_unknown(digest, version)
            return None
        if tenant is not None:
            self._cache_tenant(record.tenant, tenant)
        identity = self._cache_key(record, began)
        return identity if identity is not None and hmac.compare_digest(bytes.fromhex(record.digest), digest) else None

    def _cache_unknown(self, digest: bytes, version: int) -> None:
        """Cache that `version` has no such key, unless the cache is of another version: the key may exist by now."""
        if version != self._version:
            return
        self._unknown[digest] = time.monotonic() + UNKNOWN_SECONDS
        if len(self._unknown) > UNKNOWN_KEYS:
            del self._unknown[next(iter(self._unknown))]

    # The cache

    def _cache_tenant(self, name: str, raw: bytes | None) -> None:
        record = None if raw is None else TenantRecord.parse(name, raw)
        tenant = None if record is None else self._reading.tenant(name, record.settings)
        if tenant is None:
            self._tenants.pop(name, None)
        else:
            self._tenants[name] = tenant

    def _cache_key(self, record: KeyRecord, at: float) -> Identity | None:
        """`at`: the monotonic time before the record was read."""
        digest = bytes.fromhex(record.digest)
        grant = self._reading.grant(record.tenant, digest, record.settings)
        name = selector(digest)
        if grant is None:
            self._known.pop(name, None)
            return None
        return self._cache(name, grant, at)

    def _cache(self, name: bytes, grant: KeyGrant, at: float) -> Identity | None:
        tenant = self._configured.by_name.get(grant.tenant) or self._tenants.get(grant.tenant)
        if tenant is None:
            self._known.pop(name, None)
            return None
        identity = identity_of(tenant, grant)
        self._known[name] = (grant, identity, at)
        if len(self._known) > self._bound:
            del self._known[next(iter(self._known))]
        return identity

    # Refreshing

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
            except RedisUnavailable:
                pass  # the client has logged it; cached keys are good for `outage`
            except Exception:
                log.exception("key_refresh_failed")
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Poll the version once, and read the cached keys again where they may have changed."""
        began = time.monotonic()
        reply = await self._redis.command("GET", self._keys.version) or b"0"
        if not reply.isdigit():
            raise self._redis.refusals.misshapen("GET", self._keys.version, reply)
        version = int(reply)
        if version != self._version or began - self._refreshed > REFRESH_SECONDS:
            await self._read_again(began)
            self._version, self._refreshed = version, began
            self._unknown.clear()
        self._confirmed = max(self._confirmed, began)
        await self._usage.flush_if_due(began)

    async def _read_again(self, began: float) -> None:
        """Read all cached keys again; the first time, the keys that exist, up to the bound."""
        ids = await self._all_ids() if self._version < 0 else []
        ids += {key_id(grant.digest) for grant, _, _ in self._known.values()} - set(ids)
        records = dict(zip(ids, await self._many(self._keys.keys, ids), strict=True))
        read = {id: KeyRecord.parse(id, raw) for id, raw in records.items() if raw is not None}
        keys = [key for key in read.values() if key is not None]
        names = sorted({key.tenant for key in keys})
        for name, raw in zip(names, await self._many(self._keys.tenants, names), strict=True):
            self._cache_tenant(name, raw)
        for id in records:
            if read.get(id) is None:
                self._known.pop(bytes.fromhex(id.removeprefix("key_")), None)
        for key in keys:
            self._cache_key(key, began)

    async def _all_ids(self) -> list[str]:
        ids: dict[str, None] = {}
        cursor: Any = 0  # bytes or an integer, as redis-py has it
        while True:
            cursor, entries = await self._redis.command("HSCAN", self._keys.keys, cursor, "COUNT", _CHUNK)
            ids.update(dict.fromkeys(field.decode(errors="replace") for field in pairs_of(entries)))
            if int(cursor) == 0 or len(ids) >= self._bound:
                return list(ids)[: self._bound]

    async def _many(self, hash: str, fields: list[str]) -> list[bytes | None]:
        values: list[bytes | None] = []
        for start in range(0, len(fields), _CHUNK):
            values += await self._redis.command("HMGET", hash, *fields[start : start + _CHUNK])
        return values


def _unknown() -> KeysUnknown:
    return KeysUnknown("The API key cannot be verified at the moment; retry in 1 s.", retry_after=1.0)
