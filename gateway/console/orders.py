"""Ending a request that is under way, wherever it runs: here, or by an order in the process that has it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import structlog

from gateway.console.exchange import ConsoleExchange, Told, new_order
from gateway.console.open_requests import OpenRequests, phase_of

log = structlog.get_logger("fleetgate.console")

TRIES = 20
PAUSE = 0.3
"""How often, and how many seconds apart, an order is looked at until somebody has carried it out."""

Present = Callable[[tuple[str, Any] | None], Awaitable[Told]]


class Ended(NamedTuple):
    """A request that was ended: in which phase, and the id of the process that had it."""

    tenant: str | None
    model: str | None
    node: str | None
    phase: str
    process: int


class SharedId(Exception):
    """Requests of several tenants have the id, so that it does not tell which is meant."""

    def __init__(self, tenants: Iterable[str | None]) -> None:
        self.tenants = sorted(each or "-" for each in tenants)
        super().__init__(", ".join(self.tenants))


class Orders:
    """Of one process. `present(order)` lays an order down beside this process's view."""

    def __init__(self, exchange: ConsoleExchange, requests: OpenRequests, present: Present) -> None:
        self._exchange = exchange
        self._requests = requests
        self._present = present

    async def end(self, request_id: str, person: str, tenant: str | None = None) -> Ended | None:
        """End the requests with this id, of `tenant` where it is given; None where no process has one, or none answered
        in time. Raises `SharedId`."""
        found = self._end_here(request_id, person, tenant)
        if found is not None or self._exchange.alone:
            return found
        number = new_order()
        order: tuple[str, Any] = (number, {"end": request_id, "person": person, "tenant": tenant})
        told = await self._present(order)
        for _ in range(TRIES):
            done = told.orders.get(number, {}).get("done")
            if done is not None:
                return Ended(*done)
            await asyncio.sleep(PAUSE)
            told = await self._exchange.look()
        return None

    async def carry_out(self, orders: dict[str, Any]) -> None:
        """Do what others have ordered, and tell them."""
        for number, order in orders.items():
            if order.get("done") is None and isinstance(order.get("end"), str):
                ended = None
                with suppress(SharedId):  # which is meant can be said by the tenant
                    ended = self._end_here(order["end"], str(order.get("person", "")), order.get("tenant"))
                if ended is not None:
                    await self._present((number, {**order, "done": ended}))

    def _end_here(self, request_id: str, person: str, tenant: str | None) -> Ended | None:
        found = self._requests.find(request_id, tenant)
        if not found:
            return None
        tenants = {record.stats.tenant for record in found}
        if len(tenants) > 1:
            raise SharedId(tenants)
        stats, phase = found[0].stats, phase_of(found[0])
        self._requests.end(found, person)
        log.info("request_ended_by_operator", request_id=request_id, tenant=stats.tenant, who=person)
        return Ended(stats.tenant, stats.model, stats.node, phase, os.getpid())
