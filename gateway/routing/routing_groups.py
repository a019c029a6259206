"""Groups of models whose routing facts lie together in Redis: in a cluster, each group in a slot of its own.

A model is in the group that its `routing_group` names, and else in the one without a name, with all facts of a gateway
that names none. `core/routing/grouping.py` says when groups are gone by.

    a request                     asks the group of its model for a node, by that group's facts
    its place                     is counted there, and in each other group that its node serves models of: those are
                                  told a moment later, so its bound is kept but for requests that are chosen meanwhile
    a node serves other models    its leases are counted where they belong, `LOOK` seconds later at the most
    a change of all gateways      likewise
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from gateway.core.routing.grouping import LOOK, STEP, TOGETHER, GroupPhase, fingerprint, may_begin, phase_of
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.redis.client import RedisClient, RedisUnavailable, Script
from gateway.routing.places import Places
from gateway.routing.shared_placement import SharedPlacement

log = structlog.get_logger("fleetgate.routing")


def _agreed(reply: Any, command: Sequence[Any]) -> bool:
    """As agree.lua says."""
    return type(reply) is list and len(reply) == 3 and [type(each) for each in reply] == [bytes, bytes, int]


UNNAMED = "(unnamed)"
"""What operators are shown in place of the name of the group that has none."""

UNKNOWN = "?"
"""In place of a fingerprint."""

LONGEST_START = 6 * STEP
"""Seconds for which a gateway waits at its start for others with other groups. They take a third of it."""

MOST_SHOWN = 16
"""Models of a node that are logged."""

AGREE = Script.read(Path(__file__).parent / "lua" / "agree.lua", fits=_agreed)


class RoutingGroup:
    """The facts of one group: `placement` asks for nodes, `places` counts what they have."""

    __slots__ = ("name", "placement", "places")

    def __init__(self, name: str, placement: SharedPlacement, places: Places) -> None:
        self.name = name
        self.placement = placement
        self.places = places


class _Home:
    """Those that count a node's requests, as it served `cards`."""

    __slots__ = ("cards", "places")

    def __init__(self, cards: Mapping[str, Mapping[str, Any]], places: tuple[Places, ...]) -> None:
        self.cards = cards
        self.places = places


class RoutingGroups:
    """All groups of one gateway. `common` is that of models that name none, and of all models until gateways agree."""

    def __init__(
        self,
        redis: RedisClient,
        fleet: Fleet,
        gateway: bytes,
        next_name: Callable[[], bytes],
        affinity_ttl: float,
        load_penalty: float,
        named: Mapping[str, str],
    ) -> None:
        """`gateway`: this process's name. `named`: the group of each model that names one. `affinity_ttl` and
        `load_penalty` as in `Placement`."""
        self._redis = redis
        self._fleet = fleet
        self._own = fingerprint(named)
        gateway = b"%b.%b" % (gateway, self._own.encode()) if self._own else gateway

        def group(name: str) -> RoutingGroup:
            placement = SharedPlacement(redis, gateway, affinity_ttl, load_penalty, name)
            return RoutingGroup(name, placement, Places(redis, fleet, gateway, next_name, self._known_changed, name))

        self.common = group("")
        apart = {name: group(name) for name in sorted(set(named.values()))}
        self.all: tuple[RoutingGroup, ...] = (self.common, *apart.values())
        self.phase: GroupPhase = TOGETHER
        self._held = UNKNOWN
        """The fingerprint that held at the last look."""
        self._offered: frozenset[str] = frozenset()
        self._apart = {model: apart[name] for model, name in named.items()}
        self._chosen: Mapping[str, RoutingGroup] = {}
        """The groups of models that are chosen by now, where it is not the common one."""
        self._homes: dict[Node, _Home] = {}
        self._mixed: dict[str, tuple[str, ...]] = {}
        """Nodes that serve models of several groups, as was logged."""
        self._task: asyncio.Task[None] | None = None
        if apart:
            for each in self.all:
                each.places.homes = self._homes_of
                each.places.others = [other.places for other in self.all if other is not each]
        fleet.on_bounds = self._forgotten

    def of(self, model: str | None) -> RoutingGroup:
        """The group by whose facts a node is chosen for `model` now."""
        if not self._chosen or model is None:
            return self.common
        return self._chosen.get(model, self.common)

    def configure(self, affinity_ttl: float, load_penalty: float, offered: frozenset[str]) -> None:
        """`offered`: the models that clients may ask for, empty for all: a node's others are in no group."""
        self._offered = offered
        for each in self.all:
            each.placement.affinity_ttl, each.placement.load_penalty = affinity_ttl, load_penalty

    async def start(self) -> None:
        """Returns when the others count where this gateway will choose."""
        await self.common.places.start()
        await self._begin()
        if self._apart:
            for each in self.all[1:]:
                await each.places.start()
            self._task = asyncio.create_task(self._run(), name="routing groups")

    async def stop(self) -> None:
        """Give all places back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for each in self.all:
            await each.places.stop()

    def _known_changed(self) -> None:
        """A node's whole bound is this process's to use only while all groups count it."""
        known = all(each.places.known for each in self.all)
        if known != self._fleet.shared:
            self._fleet.share_places(known, asyncio.get_running_loop().time())

    def _forgotten(self) -> None:
        for each in self.all:
            each.places.forgotten()

    # What all gateways agree on

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._agree()
                self._count_anew()
            except Exception:
                log.exception("background_task_failed", task="routing groups")

    async def _begin(self) -> None:
        """The others look for new gateways every `LOOK` seconds: this one is among them already."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_START
        waits = False
        with contextlib.suppress(RedisUnavailable):
            while not may_begin(self._own, *(held := await self._look())) and loop.time() < end:
                if not waits:
                    log.info("routing_groups_awaited", seconds=LONGEST_START)
                    waits = True
                await asyncio.sleep(LOOK / 2)
            self._enter(phase_of(self._own, *held))

    async def _agree(self) -> None:
        """Where Redis does not answer, what was agreed on last stands."""
        with contextlib.suppress(RedisUnavailable):
            self._enter(phase_of(self._own, *await self._look()))

    async def _look(self) -> tuple[str, str, float]:
        """The fingerprint that held, the one that holds, and for how many seconds it has. Raises RedisUnavailable."""
        base = self._redis.schema.routing("")
        keys = [f"{base}:{name}" for name in ("gateways", "grouping")]
        before, now, milliseconds = await self._redis.run(AGREE, keys, (self._own, round(2000 * STEP), self._held))
        self._held = now.decode()
        return before.decode(), self._held, milliseconds / 1000

    def _enter(self, phase: GroupPhase) -> None:
        if phase == self.phase:
            return
        self.phase = phase
        self._chosen = self._apart if phase.apart else {}
        log.info("routing_groups_changed", apart=phase.apart, counted_in_both=phase.both)

    # Where leases are counted

    def _homes_of(self, node: Node) -> tuple[Places, ...]:
        """Those that count the requests of `node`, at least one."""
        home = self._homes.get(node)
        return self._find_homes(node) if home is None or home.cards is not node.cards else home.places

    def _find_homes(self, node: Node) -> tuple[Places, ...]:
        """The same, by what `node` serves now. Where that has changed, its leases are counted anew."""
        common, phase, offered = self.common, self.phase, self._offered
        asked_for = [model for model in node.cards if not offered or model in offered]
        groups = dict.fromkeys([self._apart.get(model, common) for model in asked_for] or [common])
        found = groups if phase.apart or phase.both else {common: None}
        if phase.both:
            found = {**found, common: None}
        before, homes = self._homes.get(node), tuple([each.places for each in found])
        self._homes[node] = _Home(node.cards, homes)
        self._note_mixed(node, tuple(sorted([each.name for each in groups])))
        if before is not None and before.places != homes:
            self._move(node, homes)
        return homes

    def _note_mixed(self, node: Node, names: tuple[str, ...]) -> None:
        if len(names) < 2:
            self._mixed.pop(node.name, None)
        elif self._mixed.get(node.name) != names:
            self._mixed[node.name] = names
            shown = [name or UNNAMED for name in names]
            log.warning("node_in_several_groups", node=node.name, groups=shown, models=sorted(node.cards)[:MOST_SHOWN])

    def _count_anew(self) -> None:
        """Count the leases of all nodes where they belong now."""
        nodes = self._fleet.nodes
        for node in nodes:
            self._find_homes(node)
        if len(self._homes) > len(nodes):
            self._homes = {node: self._homes[node] for node in nodes}
            names = {node.name for node in nodes}
            self._mixed = {name: groups for name, groups in self._mixed.items() if name in names}

    def _move(self, node: Node, homes: Sequence[Places]) -> None:
        for lease in node.leases:
            name = lease.name
            if name is None:
                continue
            for places in homes:
                places.count(lease, name)
            for each in self.all:
                if each.places not in homes:
                    each.places.discount(name)
