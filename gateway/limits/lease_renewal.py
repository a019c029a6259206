"""The background task of limits: renews the leases of running requests, and flushes the backlog.

A lease is renewed `RENEWALS` times before it would run out. The lease of a process that died runs out by itself.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

import structlog

from gateway.limits.backlog import Backlog
from gateway.limits.reservation import Reservation
from gateway.redis.client import RedisUnavailable

log = structlog.get_logger("fleetgate.limits")

RENEWALS = 3
"""How often a lease is renewed before it would run out."""

RETRY_SECONDS = 2.0
"""Seconds until settlements that Redis refused are sent again."""

Renew = Callable[[str, list[str]], Awaitable[None]]
"""Renews the leases of a tenant's reservations, given by id."""


class LeaseRenewal:
    """One task. `live`: the reservations of running requests."""

    def __init__(self, live: Mapping[str, Reservation], renew: Renew, backlog: Backlog | None, lease: float) -> None:
        self._live = live
        self._renew = renew
        self._backlog = backlog
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._due = 0.0
        """Loop time of the next renewal."""
        self._lease = lease

    def configure(self, lease: float) -> None:
        """`lease` in seconds. Leases of another length are renewed at once: they would run out between two renewals."""
        if lease != self._lease:
            self._lease = lease
            for reservation in self._live.values():
                reservation.old = True
            self._due = 0.0
            self._wanted.set()

    def wake(self) -> None:
        """Flush the backlog now: Redis is back."""
        self._wanted.set()

    def start(self) -> None:
        self._due = asyncio.get_running_loop().time() + self._lease / RENEWALS
        self._task = asyncio.create_task(self._run(), name="leases")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(self._due, loop.time() + RETRY_SECONDS)):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                if self._backlog is not None:
                    await self._backlog.flush()
                if loop.time() >= self._due:
                    self._due = loop.time() + self._lease / RENEWALS
                    await self._renew_all()
            except Exception:
                log.exception("lease_renewal_failed")

    async def _renew_all(self) -> None:
        """One call for each tenant. A request that is younger than one round needs none yet."""
        due: defaultdict[str, list[str]] = defaultdict(list)
        for reservation in self._live.values():
            if reservation.old:
                due[reservation.tenant].append(reservation.id)
            reservation.old = True
        for tenant, ids in due.items():
            with contextlib.suppress(RedisUnavailable):
                await self._renew(tenant, ids)
