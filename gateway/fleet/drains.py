"""Drains: operators' orders to give a node no new work, the same in every process of every gateway.

An order names a node. It stays until it is revoked: over restarts of the node, and while the node is not in the fleet.
Every process keeps all orders, revoked ones too, and syncs them with a file that the worker processes of a gateway
share and with a hash in Redis that gateways share. Of two orders about a node the later one holds; a process that finds
an older one or none in the file or the hash writes the later one there. So no order is lost where Redis was down or has
come back empty. Times are wall time, since processes on several machines compare them.
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
from gateway.fleet.node import Node
from gateway.fleet.node_spec import Drain
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.drains")

SYNC_SECONDS = 0.5
"""Seconds between two syncs."""

ORDERED = "ordered"
"""The source of these drains, for `Node.drain_for`; a node's registration is another."""


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Given at `since`: no new work, or (not `drained`) work again. Requests that still run at `until` are ended; None
    lets them finish. Seconds since 1970."""

    since: float
    until: float | None = None
    drained: bool = True


Orders = dict[str, DrainOrder]


class Drains:
    """The orders that this process knows, applied to its fleet. Orders may be given, here and elsewhere, during every
    await."""

    def __init__(
        self, fleet: Fleet, redis: RedisClient | None, shared: Path | None, follow: Callable[[Node], None]
    ) -> None:
        """`shared`: the directory of this gateway's worker processes, None where there is one only; `follow(node)` is
        told of each node's drain, or that there is none, with each sync: it moves and ends what runs there."""
        self._fleet = fleet
        self._redis = redis
        self._file = shared / "drains.json" if shared is not None else None
        self._follow = follow
        self._orders: Orders = {}
        self._synced: Orders = {}
        """The orders in Redis, when they were last read or written."""
        self._redis_answered = True
        self._followed: set[Node] = set()
        """The nodes that had a drain at the last sync."""

    @property
    def synced(self) -> bool:
        """Whether Redis has all orders, so that the other gateways read them."""
        return self._redis is None or (self._redis_answered and self._synced.items() >= self._orders.items())

    async def drain(self, name: str, seconds: float | None) -> None:
        """Give the node `name` no new work: here at once, in other processes within two seconds. Running requests may
        finish, for `seconds` at the most."""
        now = time.time()
        await self._add(name, DrainOrder(now, None if seconds is None else now + seconds))

    async def undrain(self, name: str) -> None:
        """Give it work again."""
        await self._add(name, DrainOrder(time.time(), drained=False))

    async def run(self) -> None:
        """Sync orders, for ever."""
        while True:
            try:
                await self._sync()
            except Exception:
                log.exception("drain_refresh_failed")
            await asyncio.sleep(SYNC_SECONDS)

    async def _add(self, name: str, order: DrainOrder) -> None:
        before = self._orders.get(name)
        if before is not None and before.since >= order.since:  # another machine's clock is ahead
            order = replace(order, since=before.since + 0.001)
        self._orders[name] = order
        self._apply()  # at once, also while Redis is down
        await self._sync()

    async def _sync(self) -> None:
        """Give this process, the file and Redis the same orders, and apply them."""
        if self._file is not None:
            self._orders = _sync_file(self._file, self._orders)
        if self._redis is not None:
            await self._sync_redis(self._redis)
        self._apply()

    async def _sync_redis(self, redis: RedisClient) -> None:
        try:
            self._synced = _parse(pairs_of(await redis.command("HGETALL", self._key)))
            self._orders = _later(self._orders, self._synced)
            for name in tuple(self._orders):
                order = self._orders[name]  # it may have been replaced during the last await
                if self._synced.get(name) != order:
                    await redis.command("HSET", self._key, name, json.dumps(asdict(order)))
                    self._synced[name] = order
            self._redis_answered = True
        except RedisUnavailable:
            self._redis_answered = False  # the orders stay, and are written when Redis is back

    def _apply(self) -> None:
        loop_now, now = asyncio.get_running_loop().time(), time.time()
        for node in self._fleet.nodes:
            order = self._orders.get(node.name)
            if order is None and node.drain is None and node not in self._followed:
                continue
            drain = None if order is None or not order.drained else _drain(order, loop_now - now)
            node.drain_for(ORDERED, drain, loop_now)
            self._follow(node)
            if node.drain is None:
                self._followed.discard(node)
            else:
                self._followed.add(node)
        self._followed.intersection_update(self._fleet.nodes)

    @property
    def _key(self) -> str:
        assert self._redis is not None
        return f"{self._redis.schema.records}:drains"


def _drain(order: DrainOrder, offset: float) -> Drain:
    """`offset`: loop time less seconds since 1970."""
    return Drain(order.since + offset, math.inf if order.until is None else order.until + offset)


def _later(ours: Mapping[str, DrainOrder], theirs: Mapping[str, DrainOrder]) -> Orders:
    """The later order for each node."""
    later = dict(ours)
    for name, order in theirs.items():
        if name not in later or order.since > later[name].since:
            later[name] = order
    return later


def _parse(found: Mapping[bytes, bytes]) -> Orders:
    orders = {name.decode(errors="replace"): _order(value) for name, value in found.items()}
    return {name: order for name, order in orders.items() if order is not None}


def _order(value: bytes) -> DrainOrder | None:
    """Fields of newer gateways are ignored; None for a value that is no order."""
    try:
        fields = json.loads(value)
        until = fields.get("until")
        return DrainOrder(
            float(fields["since"]), None if until is None else float(until), bool(fields.get("drained", True))
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _sync_file(file: Path, ours: Orders) -> Orders:
    """Merge `ours` with the file's, in one step among processes."""
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
