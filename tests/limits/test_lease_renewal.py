"""Leases of running requests never run out, whatever length a reload gives them."""

import asyncio

from gateway.limits.lease_renewal import LeaseRenewal
from gateway.limits.reservation import Reservation


def reserved(id: str, old: bool) -> Reservation:
    """A reservation, as far as its renewal looks at it."""
    held = Reservation.__new__(Reservation)
    held.id, held.tenant, held.old = id, "acme", old
    return held


async def test_leases_of_another_length_are_renewed_at_once() -> None:
    """Else a lease of a minute would next be renewed in twenty: young ones would run out as well as old ones."""
    live = {name: reserved(name, old=name == "old") for name in ("old", "young")}
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
