"""Which nodes get no new work, as operators said, in every process of every gateway.

A drain is an order about a node's name; it stays until it is taken back, over restarts of the node and also while the
node is not in the fleet. Every process keeps all orders, taken back ones too; one file among the worker processes of a
gateway and one hash in Redis among gateways are how they meet. Of two orders about a node the later one holds, and who
finds an older one, or none, in either place writes it there: so nothing is lost where Redis was away or came back
empty. Times are wall time, since processes on several machines share them.
"""

import asyncio
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Drain, Node
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.drains")

LOOK_SECONDS = 0.5
"""How often each process looks for new orders, and for deadlines that have passed."""

ORDERED = "ordered"
"""Under this name a node keeps what this module says of it; a registration's own draining has another."""


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Given at `since`: no new work, or (not `drained`) work again. What still runs at `until` is ended (None: it may
    finish). Seconds since 1970."""

    since: float
    until: float | None = None
    drained: bool = True


Orders = dict[str, DrainOrder]


class Drains:
    """The orders as this process knows them, applied to the fleet. Others may be given, here and elsewhere, whenever
    Redis is waited for."""

    def __init__(
        self, fleet: Fleet, redis: RedisClient | None, shared: Path | None, end: Callable[[Node], None]
    ) -> None:
        """`shared`: the directory of this gateway's worker processes, None where there is one only; `end(node)` ends
        what still runs on it."""
        self._fleet = fleet
        self._redis = redis
        self._file = shared / "drains.json" if shared is not None else None
        self._end = end
        self._orders: Orders = {}
        self._told: Orders = {}
        """What Redis has, as far as is known."""
        self._answered = True

    @property
    def synced(self) -> bool:
        """Whether the other gateways know of all orders."""
        return self._redis is None or (self._answered and self._told.items() >= self._orders.items())

    async def drain(self, name: str, seconds: float | None) -> None:
        """No new work for the node called `name`, here at once and everywhere within a second or two; what runs may
        finish, at most for `seconds`."""
        now = time.time()
        await self._give(name, DrainOrder(now, None if seconds is None else now + seconds))

    async def undrain(self, name: str) -> None:
        """Work may go there again."""
        await self._give(name, DrainOrder(time.time(), drained=False))

    async def run(self) -> None:
        """Look for orders and deadlines, for ever."""
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("looking_for_drains_failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def _give(self, name: str, order: DrainOrder) -> None:
        before = self._orders.get(name)
        if before is not None and before.since >= order.since:  # another machine's clock is ahead
            order = replace(order, since=before.since + 0.001)
        self._orders[name] = order
        self._apply()  # here at once, whatever Redis does
        await self._look()

    async def _look(self) -> None:
        """Bring this process, the file and Redis to the same orders."""
        if self._file is not None:
            self._orders = _exchange(self._file, self._orders)
        if self._redis is not None:
            await self._exchange_with(self._redis)
        self._apply()

    async def _exchange_with(self, redis: RedisClient) -> None:
        try:
            self._told = _parse(pairs_of(await redis.command("HGETALL", self._key)))
            self._orders = _later(self._orders, self._told)
            for name in tuple(self._orders):
                order = self._orders[name]  # the latest one by now
                if self._told.get(name) != order:
                    await redis.command("HSET", self._key, name, json.dumps(asdict(order)))
                    self._told[name] = order
            self._answered = True
        except RedisUnavailable:
            self._answered = False  # what is known here stays, and is told when Redis is back

    def _apply(self) -> None:
        loop_now, now = asyncio.get_running_loop().time(), time.time()
        for node in self._fleet.nodes:
            order = self._orders.get(node.name)
            drain = None if order is None or not order.drained else _drain(order, loop_now - now)
            node.drain_for(ORDERED, drain, loop_now)
            if node.drain is not None and node.drain.until <= loop_now and node.leases:
                log.warning("drain_deadline", node=node.name, ended=len(node.leases))
                self._end(node)

    @property
    def _key(self) -> str:
        assert self._redis is not None
        return f"{self._redis.schema.records}:drains"


def _drain(order: DrainOrder, offset: float) -> Drain:
    """`offset` turns seconds since 1970 into loop time."""
    return Drain(order.since + offset, math.inf if order.until is None else order.until + offset)


def _later(ours: Mapping[str, DrainOrder], theirs: Mapping[str, DrainOrder]) -> Orders:
    """Of every node the order that was given last."""
    later = dict(ours)
    for name, order in theirs.items():
        if name not in later or order.since > later[name].since:
            later[name] = order
    return later


def _parse(found: Mapping[bytes, bytes]) -> Orders:
    orders = {name.decode(errors="replace"): _order(value) for name, value in found.items()}
    return {name: order for name, order in orders.items() if order is not None}


def _order(value: bytes) -> DrainOrder | None:
    """An order of a newer gateway without what is not known here; None for what is none."""
    try:
        told = json.loads(value)
        until = told.get("until")
        return DrainOrder(
            float(told["since"]), None if until is None else float(until), bool(told.get("drained", True))
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _exchange(file: Path, ours: Orders) -> Orders:
    """Bring `ours` and the file's to the same, as one step among processes."""
    theirs = _read(file)
    orders = _later(ours, theirs)
    if orders != theirs:
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            orders = _later(orders, _read(file))
            fresh = file.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps({name: asdict(order) for name, order in orders.items()}))
            fresh.replace(file)
    return orders


def _read(file: Path) -> Orders:
    try:
        return {name: DrainOrder(**order) for name, order in json.loads(file.read_text()).items()}
    except FileNotFoundError:
        return {}
