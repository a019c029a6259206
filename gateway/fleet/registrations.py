"""Registrations: nodes that write a record to Redis, renewed by heartbeats (docs/registration.md)."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from gateway.core.fleet.registration import KnownRegistrations, RegisteredNode, RegistrationTrust, UntrustedRegistration
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import Drain, NodeSpec
from gateway.redis.client import RedisClient, RedisUnavailable, ScriptFailed
from gateway.redis.replies import texts

log = structlog.get_logger("fleetgate.discovery")

INDEX_KEY = "fleetgate:nodes"
KEY_PREFIX = "fleetgate:node:"
"""The names of docs/registration.md, the same in every version of the gateway."""

FORGET_SECONDS = 12.0
"""Seconds for which a node without a record stays: two heartbeats and a little, so that a Redis that came back empty
removes no node. A node that was stopped accepts no connections meanwhile, which is noticed at once."""

READ_AGAIN_SECONDS = 6.0
"""Records are renewed every 5 s: one that was not is read again."""

AT_ONCE = 128
"""Records that are read in one go: requests wait behind them."""

REGISTERED = "registered"
"""The source of drains in records, for `Node.drain_for`."""

SOURCE = "registrations"


@dataclass(frozen=True, slots=True)
class RegistrationRules:
    """Which records are trusted, seconds between two polls, and the key and CA of all registered nodes."""

    trust: RegistrationTrust
    interval: float = 1.0
    api_key: str | None = None
    ca_file: str | None = None


class Registrations:
    """Gives the nodes of the records to `NodeSources`. While Redis does not answer, the last ones stay."""

    def __init__(self, redis: RedisClient, rules: RegistrationRules, sources: NodeSources, fleet: Fleet) -> None:
        self._redis = redis
        self._rules = rules
        self._sources = sources
        self._fleet = fleet
        self._known = KnownRegistrations()
        self._records: dict[str, RegisteredNode] = {}
        self._specs: dict[str, NodeSpec] = {}
        self._seen: dict[str, float] = {}
        """When each of them was last there, in loop time."""
        self._read_at: dict[str, tuple[bytes, float]] = {}
        """The score under which each record was read, and when, by a monotonic clock."""
        self._refused: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._draining: dict[str, tuple[float, float]] = {}
        self._unread: set[str] = set()
        self._not_updated: set[str] = set()
        """The records, and the nodes, of which a fault of our own was logged and is not over."""

    async def run(self) -> None:
        """Poll, for ever."""
        while True:
            try:
                await self.poll()
            except Exception:
                log.exception("registration_refresh_failed")
            await asyncio.sleep(self._rules.interval)

    async def poll(self) -> None:
        """Read the records that have changed since the last poll."""
        try:
            present, changed = await self._read(time.time())
        except RedisUnavailable:
            return
        now = asyncio.get_running_loop().time()
        try:
            self._apply(present, changed, now)
        except BaseException:  # they are read again by the next poll
            self._read_again(changed)
            raise

    def _apply(self, present: set[str], changed: Mapping[str, bytes], now: float) -> None:
        """Give the nodes of the records on: of all that are `present`, and of those whose text has `changed`."""
        self._unread &= present
        for node_id, record in self._trusted(changed).items():
            if self._records.get(node_id) is record:
                continue
            spec, known = self._spec(record), self._specs.get(node_id)
            self._records[node_id] = record
            self._specs[node_id] = spec if spec != known or known is None else known  # the same one is compared faster
        self._seen.update((name, now) for name in present if name in self._records and name not in self._refused)
        for name in [name for name, at in self._seen.items() if now - at > FORGET_SECONDS]:
            del self._seen[name], self._records[name], self._specs[name]
        serving = [name for name in self._seen if self._records[name].state in ("ready", "draining")]
        self._sources.update(SOURCE, [self._specs[name] for name in serving])
        self._update_nodes({self._records[name].url: self._records[name] for name in self._seen}, now)

    async def _read(self, now: float) -> tuple[set[str], dict[str, bytes]]:
        """The nodes that have a record, and the records that may have changed: a renewed one has another score."""
        since, skew = time.monotonic(), self._rules.trust.skew
        found = await self._redis.submit(("ZRANGEBYSCORE", INDEX_KEY, now - skew, "+inf", "WITHSCORES"))
        if not texts(found, ()) or len(found) % 2:
            raise RedisUnavailable("the index of nodes is no sorted set")
        scores = {name.decode(errors="replace"): score for name, score in zip(found[::2], found[1::2], strict=True)}
        self._read_at = {name: read for name, read in self._read_at.items() if name in scores}
        due = [name for name, score in scores.items() if self._is_due(name, score, since)]
        read: dict[str, bytes] = {}
        for first in range(0, len(due), AT_ONCE):
            asked = [(name, self._redis.submit(("GET", KEY_PREFIX + name))) for name in due[first : first + AT_ONCE]]
            for name, reply in asked:
                with contextlib.suppress(ScriptFailed):  # a key of another type must not cost other nodes
                    text = await reply
                    if type(text) is bytes:
                        read[name] = text
        for name in due:
            self._read_at.pop(name, None)
        self._read_at.update((name, (scores[name], since)) for name in read)
        return set(self._read_at), read

    def _is_due(self, name: str, score: bytes, since: float) -> bool:
        known = self._read_at.get(name)
        return known is None or known[0] != score or since - known[1] > READ_AGAIN_SECONDS

    def _read_again(self, names: Iterable[str]) -> None:
        for name in names:
            self._read_at.pop(name, None)

    def _trusted(self, records: Mapping[str, bytes]) -> dict[str, RegisteredNode]:
        trusted = {}
        self._refused = {name: reason for name, reason in self._refused.items() if name in self._read_at}
        self._known.keep(self._read_at)
        for node_id, text in records.items():
            try:
                record = self._known.read(node_id, text, self._rules.trust, time.time())
                if record.node_id != node_id:
                    raise UntrustedRegistration(f"its key does not match its node_id {record.node_id!r}")
                trusted[node_id] = record
                self._refused.pop(node_id, None)
                self._unread.discard(node_id)
            except UntrustedRegistration as reason:
                if node_id not in self._refused:
                    log.warning("registration_rejected", node_id=node_id, reason=str(reason))
                self._refused[node_id] = str(reason)
            except Exception as error:  # noqa: BLE001 - logged there
                _log_once(self._unread, node_id, error)
                self._read_again([node_id])
        return trusted

    def _spec(self, record: RegisteredNode) -> NodeSpec:
        return NodeSpec(
            url=record.url,
            api_key=self._rules.api_key,
            ca_file=self._rules.ca_file,
            max_concurrency=record.max_concurrency,
            weight=record.weight,
            price=record.price,
            labels=record.labels,
            models=record.models,
        )

    def _update_nodes(self, records: Mapping[str, RegisteredNode], now: float) -> None:
        for node in self._fleet.nodes:
            try:
                self._update_node(node, records.get(node.spec.url), now)
            except Exception as error:  # noqa: BLE001 - logged there
                _log_once(self._not_updated, node.name, error)
            else:
                self._not_updated.discard(node.name)
        self._draining = {name: drain for name, drain in self._draining.items() if name in records}

    def _update_node(self, node: Node, record: RegisteredNode | None, now: float) -> None:
        """Drain the node if its record says so, and note whether it has started anew, how it was started, and what its
        GPUs do.
        """
        if record is None:
            node.drain_for(REGISTERED, None, now)
            node.launch = None
            node.gpus = ()
            return
        node.launch = record.launch
        if self._started.get(record.url, record.started_at) != record.started_at:
            node.cold_since = now
        self._started[record.url] = record.started_at
        node.gpus = record.gpus
        node.drain_for(REGISTERED, self._drain(record, now) if record.state == "draining" else None, now)

    def _drain(self, record: RegisteredNode, now: float) -> Drain:
        """Its drain in loop time, since it was first seen here."""
        since, _ = self._draining.get(record.url, (now, None))
        until = math.inf if record.drain_deadline is None else record.drain_deadline + now - time.time()
        self._draining[record.url] = since, until
        return Drain(since, until)


def _log_once(logged: set[str], name: str, error: Exception) -> None:
    """Log a fault of our own with one record or node: it must not cost the others. The next poll tries again."""
    if name not in logged:
        logged.add(name)
        log.error("registration_refresh_failed", node=name, exc_info=error)
