"""Admin routes for keys. A new key is in the answer that made it, and nowhere else after that."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import ClassVar

from fastapi import APIRouter, Response

from gateway.access.directory import Directory, DoesNotExist
from gateway.access.new_keys import make_key
from gateway.access.records import KeyRecord
from gateway.admin.auth import Who
from gateway.admin.json_pages import answer_with
from gateway.admin.problems import AdminError
from gateway.admin.schemas import KeyStatus, MadeKey, NewKey, Rotation, dump_settings, id_of
from gateway.admin.tenants import Configured, Known, refuse, refuse_newer, refuse_unknown, stored
from gateway.config.access import KeySettings, newer_settings, read_key_settings, read_tenant_settings


class KeyRoutes:
    """`directory` is None where no keys are created at run time."""

    tag: ClassVar[str] = "keys"
    about: ClassVar[str] = "The keys of tenants. A key itself is shown once, where it is made."

    def __init__(self, directory: Directory | None, configured: Configured, known: Known) -> None:
        self._directory = directory
        self._configured = configured
        self._known = known

    def add_to(self, router: APIRouter) -> None:
        router.get("/keys", response_model=list[KeyStatus])(self.list_keys)
        router.post("/keys", status_code=201)(self.create_key)
        router.delete("/keys/{id}")(self.revoke_key)
        router.post("/keys/{id}/rotate", status_code=201)(self.rotate_key)

    async def list_keys(self, tenant: str | None = None) -> Response:
        """All keys, or a tenant's; those of the config file first."""
        used = {} if self._directory is None else await self._directory.last_used()
        kept = [] if self._directory is None else await self._directory.keys(tenant)

        def listed() -> Iterator[KeyStatus]:
            for owner in self._configured():
                if tenant in (None, owner.name):
                    yield from [KeyStatus.of_file(owner.name, key) for key in owner.keys]
            for record in kept:
                yield KeyStatus.of_redis(record, used.get(record.id))

        return await answer_with(listed())

    async def create_key(self, new: NewKey, who: Who) -> MadeKey:
        """Make a key for a tenant of the file or of Redis."""
        directory = stored(self._directory)
        in_file = next((tenant for tenant in self._configured() if tenant.name == new.tenant), None)
        if new.expires is not None and new.expires <= datetime.now(UTC):
            words = "is in the past: the key would never be valid; give a later time, or leave it out for no expiry"
            refuse([("value_error", ("body", "expires"), words)])
        refuse_unknown(self._known(), [(name, ("models", at)) for at, name in enumerate(new.models)])
        if new.models:
            allowed = in_file.models if in_file is not None else await self._models_of(directory, new.tenant)
            beyond = [(at, name) for at, name in enumerate(new.models) if allowed and name not in allowed]
            words = f"is not in the tenant's models: {', '.join(allowed)}"
            refuse([("not_there", ("body", "models", at), f"{name} {words}") for at, name in beyond])
        key, digest = make_key()
        settings = dump_settings(new, "tenant")
        try:
            record = await directory.create_key(
                who, new.tenant, bytes.fromhex(digest), settings, in_file=in_file is not None
            )
        except DoesNotExist:
            raise AdminError(404, f"Unknown tenant {new.tenant!r}", "create it first", field="tenant") from None
        return MadeKey.of_redis(record, key=key)

    async def revoke_key(self, id: str, who: Who) -> KeyStatus:
        """Take a key out; every gateway refuses it within two seconds. Answers with what it was."""
        directory = stored(self._directory)
        record = await self._kept(directory, id)
        await directory.revoke_key(who, record)
        return KeyStatus.of_redis(record)

    async def rotate_key(self, id: str, who: Who, rotation: Rotation | None = None) -> MadeKey:
        """Make a key with the same settings; the old one ends after a grace in which both work."""
        directory = stored(self._directory)
        before = await self._kept(directory, id)
        refuse_newer(id, before.newer, newer_settings(KeySettings, before.settings))
        settings = read_key_settings(id, before.settings)
        if settings is None:
            raise AdminError(409, f"This gateway cannot read the settings of {id}", "revoke it, and create another")
        until = time.time() + (rotation or Rotation()).grace_seconds
        if settings.expires is not None:
            until = min(until, settings.expires.timestamp())
        old = dump_settings(settings.model_copy(update={"expires": datetime.fromtimestamp(until, UTC)}))
        key, digest = make_key()
        record = await directory.rotate_key(who, before, bytes.fromhex(digest), before.settings, old)
        return MadeKey.of_redis(record, key=key)

    async def _models_of(self, directory: Directory, tenant: str) -> tuple[str, ...]:
        """What a tenant of Redis may use; empty: all, or nobody knows."""
        record = await directory.tenant(tenant)
        settings = None if record is None else read_tenant_settings(tenant, record.settings)
        return () if settings is None else settings.models

    async def _kept(self, directory: Directory, id: str) -> KeyRecord:
        if any(id_of(key) == id for tenant in self._configured() for key in tenant.keys):
            raise AdminError(409, f"The key {id} is in the config file", "change it there")
        record = await directory.key(id)
        if record is None:
            raise AdminError(404, f"Unknown key {id!r}", "`fleetgate keys list` shows the ids")
        return record
