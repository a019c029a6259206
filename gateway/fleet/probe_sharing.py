"""Probe sharing: of several gateway processes one asks a node, and the others are told through Redis.

Each process sends what it has found since its last call, and gets what the others have sent: one script call every
eighth of an interval, however many nodes there are. Times are ages on the way, and those of batches Redis' own, so that
no clocks are compared. While Redis does not answer, or there is one process only, each asks all nodes itself.
"""

import asyncio
import json
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from gateway.core.fleet.capabilities import Capabilities
from gateway.core.fleet.found_node import FoundNode, rank, read, spell, until_next_term
from gateway.fleet.fleet import Fleet
from gateway.redis.client import RedisClient, RedisUnavailable, Script
from gateway.redis.script import COUNT_UNTIL

log = structlog.get_logger("fleetgate.prober")

CALLS = 8
"""Calls in an interval."""

SHORTEST, LONGEST = 0.05, 1.0
"""Seconds between two calls."""

TURN = 0.5
"""Intervals for which each process waits for the one before it: two calls, the jitter of both, and the probe itself."""

PRESENT_MS, KEPT_MS = 5000, 10_000
"""How long a process counts after its last call, and a batch is kept."""

PROVEN_SECONDS = 86_400
"""How long what a node has proven is kept."""

_PROVEN = ("native_budget", "native_off", "splits_reasoning", "marker_shown", "stores_responses")


def _fits(reply: Any, command: Any) -> bool:
    return (
        type(reply) is list
        and list(map(type, reply)) == [int, bytes, list, list]
        and set(map(type, (*reply[2], *reply[3]))) <= {bytes}
        and len(reply[3]) % 4 == 0
    )


_SHARE = Script.read(COUNT_UNTIL, Path(__file__).parent / "lua" / "share_probes.lua", fits=_fits)


class ProbeSharing:
    """This process among those that share what they find. `shares`: whether others are there, as of the last call."""

    def __init__(self, redis: RedisClient | None, fleet: Fleet) -> None:
        self._redis = redis
        self._fleet = fleet
        self._name = secrets.token_hex(8)
        self._names: tuple[str, ...] = ()
        self._number = 0
        self._since = ""
        self._found: dict[str, FoundNode] = {}
        """What the others have still to be told, by URL; times are loop time."""
        self._read: dict[str, int] = {}
        """The last batch that was read of each process: one whose answer was lost is sent again."""
        self._ranks: dict[str, tuple[float, int]] = {}
        """By URL: the loop time until which a rank stays, and it."""
        self._offset = 0.0
        """Redis' time less loop time, in seconds."""

    @property
    def shares(self) -> bool:
        return len(self._names) > 1 and self._redis is not None and self._redis.up

    def rank(self, url: str, now: float) -> int:
        """How many processes are to ask the node at `url` before this one, at loop time `now`."""
        if not self.shares:
            return 0
        known = self._ranks.get(url)
        if known is None or now >= known[0]:
            at = now + self._offset
            known = self._ranks[url] = now + until_next_term(url, at), rank(self._name, self._names, url, at)
        return known[1]

    def tell(self, found: FoundNode) -> None:
        """Tell the others with the next call."""
        if not self.shares:
            return
        before = self._found.get(found.url)
        if before is not None and found.load is None:
            found = found._replace(load=before.load)
        self._found[found.url] = found

    def pause(self, interval: float) -> float:
        """Seconds until the next call, with probes every `interval` seconds."""
        return min(LONGEST, max(SHORTEST, interval / CALLS))

    async def exchange(self) -> list[FoundNode]:
        """Send what was found, and return what the others have found, the latest last. Nothing where Redis does not
        answer."""
        if self._redis is None or self._fleet.gateways == 1:
            self._names = ()
            return []
        sent, now = list(self._found.values()), asyncio.get_running_loop().time()
        self._found = {}
        self._number += 1
        try:
            batches = await self._call(self._redis, PRESENT_MS, spell(sent, now) if sent else "", now)
        except RedisUnavailable:
            self._names = ()
            return []
        return list(self._new(batches, now))

    async def leave(self) -> None:
        """Have the others not wait for this process."""
        if self._redis is not None and self._names:
            self._names = ()
            try:
                await self._call(self._redis, 0, "", asyncio.get_running_loop().time())
            except RedisUnavailable:
                log.debug("probe_sharing_not_left")

    async def _call(self, redis: RedisClient, present: int, batch: str, now: float) -> list[bytes]:
        base = f"{redis.schema.live}:{{probes}}"
        time, since, names, found = await redis.run(
            _SHARE,
            [f"{base}:found", f"{base}:gateways"],
            [self._name, present, KEPT_MS, self._since, self._number, batch],
        )
        self._since = since.decode()
        self._offset = time / 1000 - now  # as of when it was asked: what is told seems older than it is, never younger
        live = tuple(name.decode(errors="replace") for name in names)
        if live != self._names or len(self._ranks) > 2 * len(self._fleet.nodes):
            self._ranks = {}
        self._names = live
        self._read = {name: number for name, number in self._read.items() if name in self._names}
        batches: list[bytes] = found
        return batches

    def _new(self, batches: list[bytes], now: float) -> Iterable[FoundNode]:
        for at in range(0, len(batches), 4):
            batch, name, number, text = batches[at : at + 4]
            try:
                sent_at = int(batch.partition(b"-")[0]) / 1000 - self._offset
                sender, count = name.decode(), int(number)
                if count <= self._read.get(sender, 0):
                    continue
                self._read[sender] = count
                yield from read(text, min(sent_at, now))
            except ValueError as error:
                log.warning("shared_probe_invalid", error=str(error))

    # What nodes have proven

    async def proven(self, url: str, started: float | None, own: Capabilities) -> Capabilities | None:
        """`own` with what a gateway process had the node at `url` prove; None where nothing is known of the one that
        began at `started` (the node's clock), or of its version."""
        if self._redis is None or started is None:
            return None
        try:
            text = await self._redis.command("GET", self._proven_key(self._redis, url))
            told = json.loads(text) if text is not None else None
        except (RedisUnavailable, ValueError):
            return None
        if not isinstance(told, dict) or told.get("started") != started:
            return None
        if told.get("version") != list(own.version or ()):
            return None
        values: dict[str, Any] = {name: told.get(name) for name in _PROVEN}
        if not all(value is None or isinstance(value, bool) for value in values.values()):
            return None
        return replace(own, **values)

    async def prove(self, url: str, started: float | None, found: Capabilities) -> None:
        """Keep what the node has proven, for the others and for the next start of this process."""
        if self._redis is None or started is None:
            return
        told = {"started": started, "version": list(found.version or ())}
        told |= {name: getattr(found, name) for name in _PROVEN}
        try:
            await self._redis.command("SET", self._proven_key(self._redis, url), json.dumps(told), "EX", PROVEN_SECONDS)
        except RedisUnavailable:
            log.debug("proven_capabilities_not_shared", url=url)

    @staticmethod
    def _proven_key(redis: RedisClient, url: str) -> str:
        return f"{redis.schema.live}:{{probes}}:proven:{url}"
