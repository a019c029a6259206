"""Leases of running requests never run out, whatever length a reload gives them."""

import asyncio

from gateway.core.access.tenants import Identity, Tenant
from gateway.core.dialects import DIALECTS
from gateway.core.limits.metering import Meters
from gateway.core.limits.rules import Limits
from gateway.core.plan import make_plan
from gateway.limits.lease_renewal import LeaseRenewal
from gateway.limits.limiter import Limiter, LimiterSettings
from gateway.limits.reservation import Reservation
from gateway.redis.presence import Presence

ACME = Identity(Tenant("acme", limits=Limits(concurrent_requests=9)))
CHAT = next(dialect for dialect in DIALECTS if dialect.name == "chat")
PLAN = make_plan(CHAT.read(b'{"model": "m", "messages": []}'), CHAT, "m", None, None)


def reserved(limiter: Limiter, old: bool) -> Reservation:
    """A reservation that has lived through a round of renewals, or not."""
    reservation = limiter.begin(ACME, PLAN)
    assert reservation is not None
    reservation.old = old
    return reservation


async def test_leases_of_another_length_are_renewed_at_once() -> None:
    """Else a lease of a minute would next be renewed in twenty: young ones would run out as well as old ones."""
    limiter = Limiter(LimiterSettings(), Meters(), None, Presence(None))
    live = {each.id: each for each in (reserved(limiter, old=True), reserved(limiter, old=False))}
    renewed: asyncio.Queue[list[str]] = asyncio.Queue()

    async def renew(tenant: str, ids: list[str]) -> None:
        renewed.put_nowait(ids)

    renewal = LeaseRenewal(live, renew, None, 60.0)
    renewal.start()
    try:
        renewal.configure(60.0)
        assert renewed.empty()
        renewal.configure(3600.0)
        assert await asyncio.wait_for(renewed.get(), 30) == [*live]
    finally:
        await renewal.stop()
