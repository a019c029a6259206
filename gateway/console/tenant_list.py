"""All tenants, of the config file and of Redis: the settings of one are read again only where they have changed."""

import asyncio
from collections.abc import Callable, Mapping

from gateway.access.directory import Directory
from gateway.access.records import TenantRecord
from gateway.core.access.tenants import Tenant, Tenants

AT_A_TIME = 20
"""Settings that are read between two turns of the event loop."""


class TenantList:
    """`directory` is None where no tenants are created at run time; `read` makes a tenant of a record."""

    def __init__(
        self,
        configured: Callable[[], Tenants],
        directory: Directory | None,
        read: Callable[[TenantRecord], Tenant | None],
    ) -> None:
        self._configured = configured
        self._directory = directory
        self._read = read
        self._known: dict[str, tuple[TenantRecord, Tenant | None]] = {}

    async def all(self) -> Mapping[str, Tenant]:
        """By name, those of the file first. Raises `RedisUnavailable`."""
        configured = self._configured()
        found = dict(configured.by_name)
        if configured.anonymous is not None:
            found[configured.anonymous.tenant.name] = configured.anonymous.tenant
        if self._directory is None:
            return found
        known: dict[str, tuple[TenantRecord, Tenant | None]] = {}
        for number, record in enumerate(await self._directory.tenants()):
            before = self._known.get(record.name)
            if before is None or before[0].raw != record.raw:
                before = record, self._read(record)
                if number % AT_A_TIME == 0:
                    await asyncio.sleep(0)
            known[record.name] = before
            if before[1] is not None:
                found.setdefault(record.name, before[1])
        self._known = known
        return found
