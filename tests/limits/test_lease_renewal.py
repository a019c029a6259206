"""Leases of running requests never run out, whatever length a reload gives them."""

import asyncio
from types import SimpleNamespace
from typing import Any

from gateway.limits.lease_renewal import LeaseRenewal


async def test_leases_of_another_length_are_renewed_at_once() -> None:
    """Else a lease of a minute would next be renewed in twenty: young ones would run out as well as old ones."""
    live: dict[str, Any] = {
        name: SimpleNamespace(id=name, tenant="acme", old=name == "old") for name in ("old", "young")
    }
    renewed: asyncio.Queue[list[str]] = asyncio.Queue()

    async def renew(tenant: str, ids: list[str]) -> None:
        renewed.put_nowait(ids)

    renewal = LeaseRenewal(live, renew, None, 60.0)
    renewal.start()
    try:
        renewal.configure(60.0)
        assert renewed.empty()
        renewal.configure(3600.0)
        assert await asyncio.wait_for(renewed.get(), 30) == ["old", "young"]
    finally:
        await renewal.stop()
