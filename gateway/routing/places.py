"""The requests that this gateway has on nodes, as all gateways know them: no node gets more than it can take.

Redis holds one hash of leases for each gateway, and how many a node has in all (`lua/places.lua`). This process's own
leases are the truth about its part:

    event                                    what Redis is told
    a choice (`SharedPlacement.choose`)      the call that chose has taken a place already
    a lease that was made without asking     `occupy`
    the end of a lease                       `release`, together with its pending work
    every `BEAT` seconds                     this gateway lives; corrections of virtual counters
    Redis is back, did not know this         all leases, and the ends of others
    gateway, or did not do a `release`
    every `AUDIT` seconds                    `release` of what it has and this process does not, as a Redis that was
                                             frozen may carry out calls that were given up; `occupy` of what it lacks

A gateway that dies gives its places back after `FORGOTTEN` seconds. A call may arrive twice, so each changes nothing
the second time: leases have names, and corrections numbers.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from gateway.aio.inline_future import InlineFuture
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.redis.client import RedisClient, RedisUnavailable, Script, Value
from gateway.redis.replies import integer, pairs_of
from gateway.redis.script import COUNT_UNTIL
from gateway.routing.shared_placement import SharedTurn

log = structlog.get_logger("fleetgate.routing")

BEAT = 1.0
FORGOTTEN = 10.0
"""Seconds between two signs of life, and after the last one until this gateway's places are given back."""

AUDIT = 2.0
"""Seconds between two looks at what Redis has of this gateway."""

OWED = 4096
"""Requests, the latest, whose end Redis is told when it is back; pending work of others runs out."""

SOON = 0.2
"""Seconds until corrections are sent."""

AT_ONCE = 256
"""Leases told in one call: a script stops everybody else."""

MAX_CORRECTED = 1024
"""Counters that are corrected in one call."""

_LUA = Path(__file__).parent / "lua"
_SHARED = (_LUA / "pending.lua", _LUA / "places.lua")
RELEASE = Script.read(*_SHARED, _LUA / "release.lua", fits=integer)
CANCEL = replace(Script.read(*_SHARED, _LUA / "cancel.lua", fits=integer), name=RELEASE.name)
"""Of one name, so that what Redis refused of the one counts as mended once the other, which is called more often, is
answered."""
OCCUPY = Script.read(*_SHARED, _LUA / "occupy.lua", fits=integer)
PRESENT = Script.read(COUNT_UNTIL, *_SHARED, _LUA / "present.lua", fits=integer)


class Places:
    """The leases of this process that all gateways know, in one group of models (`RoutingGroups`). `known`: whether
    Redis counts them."""

    def __init__(
        self,
        redis: RedisClient,
        fleet: Fleet,
        gateway: bytes,
        next_name: Callable[[], bytes],
        on_known: Callable[[], None],
        group: str = "",
    ) -> None:
        """`on_known` is called when `known` has changed."""
        self.known = False
        self.group = group
        self.others: Sequence[Places] = ()
        """Those of all other groups."""
        self.homes: Callable[[Node], Sequence[Places]] | None = None
        """Where the leases of a node are counted; None where there is one group."""
        self._on_known = on_known
        self.leases: dict[bytes, Lease] = {}
        self.asked: set[bytes] = set()
        """The names of choices that Redis has not answered."""
        self._redis = redis
        self._fleet = fleet
        self._gateway = gateway
        self._next_name = next_name
        base = redis.schema.routing(group)
        self._base = base
        self._keys = [f"{base}:{name}" for name in ("pending", "entries", "expiry", "places", "gateways")]
        self._corrections: dict[tuple[str, str], int] = {}
        self._number = 0
        self._under_way: tuple[int, dict[tuple[str, str], int]] | None = None
        """Corrections that were sent, and not answered: they go again, under their number."""
        self._stale = True
        """Whether Redis has to be told of all leases anew."""
        self._owed: dict[bytes, None] = {}
        """Requests that Redis has yet to hear the end of."""
        self._audit_at = 0.0
        self._unknown: set[bytes] = set()
        """Leases that Redis had at the last look, and this process did not."""
        self._lacking: set[bytes] = set()
        """The reverse."""
        self._wanted = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        redis.on_change(self._changed)

    # Leases

    def add(self, lease: Lease, name: bytes) -> None:
        """A choice took the place of `lease` under this name."""
        lease.name, lease.places = name, self
        self.leases[name] = lease
        if self.homes is not None:
            for other in self.homes(lease.node):
                other.count(lease, name)

    def count(self, lease: Lease, name: bytes) -> None:
        """Count here, too, a lease that another group has under this name."""
        if name not in self.leases:
            self.leases[name] = lease
            if self._redis.up and self.known:
                self._occupy(name, lease.node.name)

    def discount(self, name: bytes) -> None:
        """The lease of this name is not counted here any more, if it was."""
        if self.leases.pop(name, None) is not None:
            self.give_back(name)

    def adopt(self, lease: Lease) -> None:
        """`lease` was made without asking: the others are told."""
        name = self._next_name()
        self.add(lease, name)
        if self._redis.up and self.known:
            self._occupy(name, lease.node.name)

    def release(self, lease: Lease) -> None:
        name = lease.name
        if name is not None:
            self.discount(name)
            for other in self.others:
                other.discount(name)

    def cancel(self, name: bytes, shared: SharedTurn) -> None:
        """The choice of this name is not wanted any more: it has no place, and is charged nothing."""
        if not self._redis.up:
            self._owe((name,))
            return
        turn = shared.turn
        keys = (*self._keys, f"{self._base}:turns:{shared.model}")
        charges = (turn.service_class, turn.member, turn.of_class, turn.of_tenant)
        command: tuple[Value, ...] = ("EVALSHA", CANCEL.sha, 6, *keys, self._gateway, name, *charges)
        self._redis.submit(command, CANCEL).add_done_callback(partial(self._released, (name,)))

    def give_back(self, name: bytes) -> None:
        """The request of this name has no place any more, or is not to get one."""
        self._release((name,))

    def _release(self, names: tuple[bytes, ...]) -> None:
        """Nobody waits for it; Redis hears of it, if later."""
        if self._redis.up:
            reply = self._redis.submit(("EVALSHA", RELEASE.sha, 5, *self._keys, self._gateway, *names), RELEASE)
            reply.add_done_callback(partial(self._released, names))
        else:
            self._owe(names)

    def _released(self, names: tuple[bytes, ...], reply: InlineFuture[Any]) -> None:
        if reply.exception() is not None:
            self._owe(names)

    def _owe(self, names: tuple[bytes, ...]) -> None:
        self._stale = True
        self._owed.update(dict.fromkeys(names))
        while len(self._owed) > OWED:
            del self._owed[next(iter(self._owed))]

    def correct(self, model: str, counter: str, change: int) -> None:
        """Add `change` to a virtual counter of `model`, with the next sign of life."""
        if change and (len(self._corrections) < MAX_CORRECTED or (model, counter) in self._corrections):
            self._corrections[model, counter] = self._corrections.get((model, counter), 0) + change
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SOON, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._wanted.set()

    def forgotten(self) -> None:
        """Tell Redis all anew: it has said that it does not know this gateway, or a node has a bound now."""
        self._stale = True
        self._wanted.set()

    def _occupy(self, *pairs: bytes | str) -> None:
        reply = self._redis.submit(("EVALSHA", OCCUPY.sha, 5, *self._keys, self._gateway, *pairs), OCCUPY)
        reply.add_done_callback(self._sent)

    def _sent(self, reply: InlineFuture[Any]) -> None:
        if reply.exception() is not None:
            self._stale = True

    # Signs of life

    async def start(self) -> None:
        await self._beat()
        self._task = asyncio.create_task(self._run(), name="places")

    async def stop(self) -> None:
        """Give all places back."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._set_known(False)
        with contextlib.suppress(RedisUnavailable):
            await self._present(0)

    def _changed(self, up: bool) -> None:
        """Redis went, or is back."""
        self._stale = True
        if up:
            self._wanted.set()
        else:
            self._set_known(False)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._beat()
            except Exception:
                log.exception("background_task_failed", task="places")

    async def _beat(self) -> None:
        if not self._redis.up:
            return
        try:
            if not await self._present(round(FORGOTTEN * 1000)) or self._stale:
                self._tell_all()
            self._set_known(True)
            now = asyncio.get_running_loop().time()
            if now >= self._audit_at:
                self._audit_at = now + AUDIT
                await self._audit()
        except RedisUnavailable:
            self._stale = True
            self._set_known(False)

    async def _audit(self) -> None:
        """Give back what Redis has had twice of this gateway and this process has not, and tell it what it lacks."""
        key = f"{self._base}:gateways:{self._gateway.decode()}"
        held = pairs_of(await self._redis.submit(("HGETALL", key)))
        unknown = held.keys() - self.leases.keys() - self.asked - {b"#"}
        for name in unknown & self._unknown:
            self.give_back(name)
        self._unknown = unknown
        lacking = self.leases.keys() - held.keys()
        for name in lacking & self._lacking:
            self._occupy(name, self.leases[name].node.name)
        self._lacking = lacking

    def _tell_all(self) -> None:
        """Tell Redis of all leases anew. What it has beside them is given back by the audit."""
        self._stale = False
        for node in self._fleet.nodes:
            if node.bounded and (self.homes is None or self in self.homes(node)):
                for lease in node.leases:
                    if lease.name is None:
                        self.add(lease, self._next_name())
        told = [(name, lease.node.name) for name, lease in self.leases.items()]
        for start in range(0, len(told), AT_ONCE):
            self._occupy(*(word for pair in told[start : start + AT_ONCE] for word in pair))
        owed, self._owed = tuple(self._owed), {}
        for start in range(0, len(owed), AT_ONCE):
            self._release(owed[start : start + AT_ONCE])

    async def _present(self, milliseconds: int) -> bool:
        """Whether this gateway's requests have counted until now."""
        if self._under_way is None and self._corrections:
            self._number += 1
            self._under_way = self._number, self._corrections
            self._corrections = {}
        number, corrections = self._under_way or (0, {})
        known = await self._redis.submit(self._sign_of_life(milliseconds, number, corrections), PRESENT)
        self._under_way = None
        return bool(known == 1)

    def _sign_of_life(
        self, milliseconds: int, number: int, corrections: dict[tuple[str, str], int]
    ) -> tuple[bytes | str | int, ...]:
        models = list(dict.fromkeys(model for model, _ in corrections))
        turns = [f"{self._base}:turns:{model}" for model in models]
        corrected = f"{self._base}:corrected:{self._gateway.decode()}"
        keys = (*self._keys, corrected, *turns)
        args: list[bytes | str | int] = [self._gateway, milliseconds, number]
        for (model, counter), change in corrections.items():
            args += (models.index(model) + 1, counter, change)
        return ("EVALSHA", PRESENT.sha, len(keys), *keys, *args)

    def _set_known(self, known: bool) -> None:
        if known != self.known:
            self.known = known
            self._on_known()
