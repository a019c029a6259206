"""The keys of Redis that this process remembers, and how it stays right about them.

    a key is                  until
    asked for in Redis        it is found (remembered) or not (remembered as unknown, for `UNKNOWN_SECONDS`)
    remembered                Redis says otherwise: the version there is looked at every `LOOK_SECONDS`, and all that is
                              remembered is read again where it has changed, and every `REFRESH_SECONDS` anyhow
    still good                Redis has not answered for `outage` seconds; then nobody knows who it is

So a revocation is known to every gateway within `LOOK_SECONDS` and the time of reading again, while Redis answers, and
within `outage` whatever it does. The version that is noted is one that was read before all that is remembered: a change
while that is being read, or a reading that fails, leaves a version that the next look finds to be an old one.

A version is polled rather than a channel subscribed to, since a poll that fails is noticed and a message that got
lost is not.
"""

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.access.records import LOOK_UP, AccessKeys, KeyRecord, TenantRecord
from gateway.core.access.api_keys import key_id, selector
from gateway.core.access.tenants import Identity, KeyGrant, Tenant, Tenants, identity_of
from gateway.core.errors import KeysUnknown
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.keys")

LOOK_SECONDS = 0.5
REFRESH_SECONDS = 60.0
UNKNOWN_SECONDS = 10.0
UNKNOWN_KEYS = 10_000
USED_SECONDS = 30.0
"""How often the keys that were used are noted in Redis, where their hour is a new one."""

_CHUNK = 200
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class RecordReaders:
    """What records mean to the rules. Both return None for a record that this version cannot make sense of."""

    tenant: Callable[[str, dict[str, Any]], Tenant | None]
    """From a name and its settings."""
    grant: Callable[[str, bytes, dict[str, Any]], KeyGrant | None]
    """From a tenant's name, a key's SHA-256 and its settings."""


class Keyring:
    """Keys of Redis, by the first bytes of their digests."""

    def __init__(self, redis: RedisClient, reading: RecordReaders, tenants: Tenants, bound: int, outage: float) -> None:
        """`tenants`: the configuration's, which go before Redis' own. `bound`: keys; `outage`: seconds."""
        self._redis = redis
        self._reading = reading
        self._places = AccessKeys.below(redis.schema.records)
        self._bound = bound
        self._outage = outage
        self._known: dict[bytes, tuple[KeyGrant, Identity, float]] = {}
        self._unknown: dict[bytes, float] = {}
        self._tenants: dict[str, Tenant] = {}
        self._used: set[bytes] = set()
        self._told: dict[bytes, int] = {}
        self._version = -1
        self._confirmed = self._refreshed = self._noted = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.configure(tenants)

    def configure(self, tenants: Tenants) -> None:
        """Know these tenants of the configuration from now on: they go before those of Redis."""
        self._configured = tenants
        for name, (grant, _, at) in list(self._known.items()):
            self._remember(name, grant, at)

    def start(self) -> None:
        """Begin to look at the version, and read the keys that there are, so that an outage finds them known."""
        self._task = asyncio.create_task(self._follow(), name="keyring")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._note_used()

    @property
    def size(self) -> int:
        return len(self._known)

    # Asking

    def known(self, digest: bytes) -> Identity | None:
        """Whose key has this SHA-256, as far as is known here. None where Redis has been silent for too long about it:
        it has to be asked then."""
        name = selector(digest)
        found = self._known.get(name)
        if found is None or not hmac.compare_digest(found[0].digest, digest):
            return None
        if time.monotonic() - max(self._confirmed, found[2]) > self._outage:
            return None
        self._used.add(name)
        return found[1]

    async def find(self, digest: bytes) -> Identity | None:
        """The same, asked of Redis; `KeysUnknown` where that does not answer."""
        now = time.monotonic()
        if self._unknown.get(digest, now) > now:
            return None
        try:
            found = await self._ask(digest)
        except RedisUnavailable:
            raise _unknown() from None
        if found is None:
            return None
        self._used.add(selector(digest))
        return found

    async def _ask(self, digest: bytes) -> Identity | None:
        places, id = self._places, key_id(digest)
        names = [places.tenants, places.keys, places.version]
        began = time.monotonic()
        version, key, tenant = await self._redis.run(LOOK_UP, names, [id])
        if version < self._version:  # read before the change that everything else was read again for
            began = time.monotonic()
            version, key, tenant = await self._redis.run(LOOK_UP, names, [id])
        if version != self._version:
            self._refreshed = float("-inf")  # news: what else is remembered may be old
        else:
            self._confirmed = max(self._confirmed, began)
        record = None if key is None else KeyRecord.parse(id, key)
        if record is None:
            self._note_unknown(digest, version)
            return None
        if tenant is not None:
            self._learn_tenant(record.tenant, tenant)
        identity = self._learn_key(record, began)
        return identity if identity is not None and hmac.compare_digest(bytes.fromhex(record.digest), digest) else None

    def _note_unknown(self, digest: bytes, version: int) -> None:
        """There was no such key in `version`; one that was made since must not be taken for it."""
        if version != self._version:
            return
        self._unknown[digest] = time.monotonic() + UNKNOWN_SECONDS
        if len(self._unknown) > UNKNOWN_KEYS:
            del self._unknown[next(iter(self._unknown))]

    # Remembering

    def _learn_tenant(self, name: str, raw: bytes | None) -> None:
        record = None if raw is None else TenantRecord.parse(name, raw)
        tenant = None if record is None else self._reading.tenant(name, record.settings)
        if tenant is None:
            self._tenants.pop(name, None)
        else:
            self._tenants[name] = tenant

    def _learn_key(self, record: KeyRecord, at: float) -> Identity | None:
        """`at`: when it was so at the earliest."""
        digest = bytes.fromhex(record.digest)
        grant = self._reading.grant(record.tenant, digest, record.settings)
        name = selector(digest)
        if grant is None:
            self._known.pop(name, None)
            return None
        return self._remember(name, grant, at)

    def _remember(self, name: bytes, grant: KeyGrant, at: float) -> Identity | None:
        tenant = self._configured.by_name.get(grant.tenant) or self._tenants.get(grant.tenant)
        if tenant is None:
            self._known.pop(name, None)
            return None
        identity = identity_of(tenant, grant)
        self._known[name] = (grant, identity, at)
        if len(self._known) > self._bound:
            del self._known[next(iter(self._known))]
        return identity

    # Staying right

    async def _follow(self) -> None:
        while True:
            try:
                await self.refresh()
            except RedisUnavailable:
                pass  # the link has said so; what is known stays good for a while
            except Exception:
                log.exception("keys_not_refreshed")
            await asyncio.sleep(LOOK_SECONDS)

    async def refresh(self) -> None:
        """Look at the version, and read again what has to be."""
        began = time.monotonic()
        told = await self._redis.command("GET", self._places.version) or b"0"
        if not told.isdigit():
            raise self._redis.refusals.misshapen("GET", self._places.version, told)
        version = int(told)
        if version != self._version or began - self._refreshed > REFRESH_SECONDS:
            await self._refresh(began)
            self._version, self._refreshed = version, began
            self._unknown.clear()
        self._confirmed = max(self._confirmed, began)
        if began - self._noted > USED_SECONDS:
            self._noted = began
            await self._note_used()

    async def _refresh(self, began: float) -> None:
        """Read again all that is remembered; at the first time, what there is to be remembered."""
        ids = await self._all_ids() if self._version < 0 else []
        ids += {key_id(grant.digest) for grant, _, _ in self._known.values()} - set(ids)
        records = dict(zip(ids, await self._many(self._places.keys, ids), strict=True))
        read = {id: KeyRecord.parse(id, raw) for id, raw in records.items() if raw is not None}
        keys = [key for key in read.values() if key is not None]
        names = sorted({key.tenant for key in keys})
        for name, raw in zip(names, await self._many(self._places.tenants, names), strict=True):
            self._learn_tenant(name, raw)
        for id in records:
            if read.get(id) is None:
                self._known.pop(bytes.fromhex(id.removeprefix("key_")), None)
        for key in keys:
            self._learn_key(key, began)

    async def _all_ids(self) -> list[str]:
        ids: dict[str, None] = {}
        cursor: Any = 0  # bytes or an integer, as redis-py has it
        while True:
            cursor, entries = await self._redis.command("HSCAN", self._places.keys, cursor, "COUNT", _CHUNK)
            ids.update(dict.fromkeys(field.decode(errors="replace") for field in pairs_of(entries)))
            if int(cursor) == 0 or len(ids) >= self._bound:
                return list(ids)[: self._bound]

    async def _many(self, hash: str, fields: list[str]) -> list[bytes | None]:
        values: list[bytes | None] = []
        for start in range(0, len(fields), _CHUNK):
            values += await self._redis.command("HMGET", hash, *fields[start : start + _CHUNK])
        return values

    async def _note_used(self) -> None:
        """Tell Redis which keys were used in this hour; once an hour for each is enough."""
        hour = int(time.time()) // _HOUR * _HOUR
        used, self._used = self._used, set()
        fresh = [name for name in used if self._told.get(name) != hour and name in self._known]
        for start in range(0, len(fresh), _CHUNK):
            chunk = fresh[start : start + _CHUNK]
            pairs = [part for name in chunk for part in ("key_" + name.hex(), hour)]
            try:
                await self._redis.command("HSET", self._places.used, *pairs)
            except BaseException as error:  # also where this is cancelled: `stop` notes them then
                self._used.update(fresh[start:])
                if isinstance(error, RedisUnavailable):
                    return
                raise
            self._told.update(dict.fromkeys(chunk, hour))
        if len(self._told) > self._bound:
            self._told.clear()


def _unknown() -> KeysUnknown:
    return KeysUnknown("Your API key cannot be looked up now: send the request again.", retry_after=1.0)
