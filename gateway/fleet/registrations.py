"""Registrations: nodes that write a record to Redis, renewed by heartbeats (docs/registration.md)."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from gateway.core.fleet.registration import RegisteredNode, RegistrationTrust, UntrustedRegistration, read_registration
from gateway.fleet.fleet import Fleet
from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import Drain, NodeSpec
from gateway.redis.client import RedisClient, RedisUnavailable, ScriptFailed

log = structlog.get_logger("fleetgate.discovery")

INDEX_KEY = "fleetgate:nodes"
KEY_PREFIX = "fleetgate:node:"
"""The names of docs/registration.md, the same in every version of the gateway."""

FORGET_SECONDS = 12.0
"""Seconds for which a node without a record stays: two heartbeats and a little, so that a Redis that came back empty
removes no node. A node that was stopped accepts no connections meanwhile, which is noticed at once."""

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
        self._seen: dict[str, tuple[RegisteredNode, float]] = {}
        self._refused: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._draining: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Poll, for ever."""
        while True:
            try:
                await self.poll()
            except Exception:
                log.exception("registration_refresh_failed")
            await asyncio.sleep(self._rules.interval)

    async def poll(self) -> None:
        """Read all records once."""
        try:
            records = await self._read(time.time())
        except RedisUnavailable:
            return
        now = asyncio.get_running_loop().time()
        for node_id, record in self._trusted(records).items():
            self._seen[node_id] = record, now
        self._seen = {name: seen for name, seen in self._seen.items() if now - seen[1] <= FORGET_SECONDS}
        known = [record for record, _ in self._seen.values()]
        self._sources.update(SOURCE, [self._spec(record) for record in known if record.state in ("ready", "draining")])
        self._update_nodes({record.url: record for record in known}, now)

    async def _read(self, now: float) -> dict[str, bytes]:
        ids = await self._redis.command("ZRANGEBYSCORE", INDEX_KEY, now - self._rules.trust.skew, "+inf")
        names = [node_id.decode(errors="replace") for node_id in ids]
        found = await asyncio.gather(*[self._record(name) for name in names])
        return {name: text for name, text in zip(names, found, strict=True) if text is not None}

    async def _record(self, name: str) -> bytes | None:
        """None where there is none, or a key of another type: that must not cost other nodes."""
        try:
            text: bytes | None = await self._redis.command("GET", KEY_PREFIX + name)
        except ScriptFailed:
            return None
        return text

    def _trusted(self, records: Mapping[str, bytes]) -> dict[str, RegisteredNode]:
        trusted, refused = {}, {}
        for node_id, text in records.items():
            try:
                record = read_registration(text, self._rules.trust, time.time())
                if record.node_id != node_id:
                    raise UntrustedRegistration(f"its key does not match its node_id {record.node_id!r}")
                trusted[node_id] = record
            except UntrustedRegistration as reason:
                refused[node_id] = str(reason)
                if node_id not in self._refused:
                    log.warning("registration_rejected", node_id=node_id, reason=str(reason))
        self._refused = refused
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
        """Drain the nodes whose records say so, and note which have started anew, how all were started, and what their
        GPUs do.
        """
        for node in self._fleet.nodes:
            record = records.get(node.spec.url)
            if record is None:
                node.drain_for(REGISTERED, None, now)
                node.launch = None
                node.gpus = ()
                continue
            node.launch = record.launch
            if self._started.get(record.url, record.started_at) != record.started_at:
                node.cold_since = now
            self._started[record.url] = record.started_at
            node.gpus = record.gpus
            node.drain_for(REGISTERED, self._drain(record, now) if record.state == "draining" else None, now)
        self._draining = {name: drain for name, drain in self._draining.items() if name in records}

    def _drain(self, record: RegisteredNode, now: float) -> Drain:
        """Its drain in loop time, since it was first seen here."""
        since, _ = self._draining.get(record.url, (now, None))
        until = math.inf if record.drain_deadline is None else record.drain_deadline + now - time.time()
        self._draining[record.url] = since, until
        return Drain(since, until)
