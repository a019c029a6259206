"""One node as this gateway process sees it."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from gateway.core.dialects.response_ids import node_tag
from gateway.core.fleet.breaker import Breaker, BreakerRules
from gateway.core.fleet.capabilities import UNKNOWN
from gateway.core.fleet.gpus import GpuFacts
from gateway.core.fleet.knee import ConcurrencyKnee
from gateway.core.fleet.launch_facts import LaunchFacts
from gateway.core.fleet.node_facts import NO_RUNS, NodeFacts
from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.core.routing.decode_speed import DecodeSpeed
from gateway.core.routing.prefill_speed import PrefillSpeed
from gateway.core.usage.token_usage import Usage
from gateway.fleet.node_spec import Drain, NodeSpec

ROOMY = 64
"""Requests at once that a node without a `max_concurrency` is warmed up to, before it is unbounded."""

PAGES = 16
"""Pages of a node's metrics that are kept: half a minute of them, over which its rates are taken."""

IDLE_SECONDS = 32.0
"""Seconds of the pages that are kept of a node without requests."""

SILENT = 1.0
"""Seconds without a token of any stream from which a node counts as silent: one that works sends some every 50 ms."""

STALE = 15.0
"""Seconds after which a page of its metrics says nothing of how much a node can take."""


class Node:
    """A node's state. Probes, requests (through leases) and drains write it; times are the event loop's.

    Read on every request, so plain attributes: `ready` (probed, breaker not open, not drained), `places` (requests at
    once it may have from this process) and `busy_until` (it has said itself that its queue is full), `doubted`
    (an answer would speak for it). `gateways`: processes that share its places, this one included. `cold_since`: when
    it was last seen without what it had in its caches before.
    """

    __slots__ = (
        "_drains",
        "_pace",
        "_told",
        "access",
        "block",
        "breaker",
        "budget_suspected",
        "busy_until",
        "canaries",
        "capabilities",
        "cards",
        "closed",
        "cold_since",
        "decode",
        "doubted",
        "drain",
        "failed_probes",
        "failing",
        "gateways",
        "gpus",
        "heard_at",
        "in_flight",
        "knee",
        "kv_tokens",
        "last_error",
        "launch",
        "leases",
        "left",
        "load",
        "loads",
        "name",
        "on_attention",
        "on_change",
        "on_free",
        "on_load",
        "places",
        "ready",
        "shared",
        "spec",
        "speed",
        "stalled_at",
        "tag",
    )

    def __init__(self, spec: NodeSpec, rules: BreakerRules | None = None, trusted: bool = True) -> None:
        """`trusted`: there since the gateway began (see `Breaker`)."""
        self.spec = spec
        self.access = spec.access
        self.name = spec.name
        self.tag = node_tag(spec.url)
        self.breaker = Breaker(rules or BreakerRules(), trusted)
        self.ready = False
        self.left = False
        """It is in the fleet no more: what it has may finish, and it gets nothing new."""
        self.closed = False
        """It has left or is drained: no new work, whoever has a place on it already."""
        self.places = math.inf
        self.busy_until = 0.0
        self.doubted = False
        self.budget_suspected = False
        self.on_attention: Callable[[Node], None] | None = None
        """The prober's: there is something to find out."""
        self.drain: Drain | None = None
        self._drains: dict[str, Drain] = {}
        self.failed_probes = 0
        self.last_error: str | None = "not probed yet"
        self.failing: str | None = None
        """Why it would be out if another node were there to go to; None where it serves, or is out."""
        self.cards: Mapping[str, Mapping[str, Any]] = {}
        self.capabilities = UNKNOWN
        self.canaries = NO_RUNS
        """Of its canary, by this process."""
        self.launch: LaunchFacts | None = None
        """As its record tells them; None where it has none."""
        self.gpus: tuple[GpuFacts, ...] = ()
        """As its record tells them; empty where it does not."""
        self.load: NodeMetrics | None = None
        self.loads: list[NodeMetrics] = []
        """Its latest pages, the last one at the end."""
        self.knee = ConcurrencyKnee()
        self.speed = PrefillSpeed()
        self.decode = DecodeSpeed()
        self.block = 1
        """Tokens of one block of its prefix cache."""
        self.kv_tokens = 0
        """Tokens that its cache has room for, 0 where it did not say."""
        self.cold_since = -math.inf
        self.gateways = 1
        self.shared = False
        """Whether all gateways count its requests together (`routing/places.py`): each may use all its places then."""
        self.on_free: Callable[[Lease], None] | None = None
        """Called when a request on it has ended."""
        self.on_change: Callable[[Node], None] | None = None
        """Called when it has been told anything: probes, failures, drains, bounds."""
        self.on_load: Callable[[Node], None] | None = None
        """Called when a lease on it begins or ends, or a prompt has come to its first byte."""
        self.in_flight = 0
        self.leases: set[Lease] = set()
        self.heard_at = 0.0
        """When a byte of any model's answer last came, or its own count of generated tokens was seen to grow; 0: never
        yet."""
        self.stalled_at = -math.inf
        """When an answer was last given up because nothing came; forgotten once the node has answered anything."""
        self._pace: float | None = None
        self._told: tuple[Any, ...] = ()

    def _call_prober(self) -> None:
        if self.on_attention is not None:
            self.on_attention(self)

    def refresh(self, now: float) -> None:
        """Bring what requests read up to date: after anything was told, and with every probe."""
        was_ready = self.ready
        self.ready = self.drain is None and not self.left and not self.breaker.is_open
        self.doubted = self.doubted or self.breaker.is_open
        if self.load is not None and now - self.load.at > STALE:
            self.knee.forget()
        self.places = self.bound
        share = self.breaker.share(now)
        if share < 1 and not self.breaker.is_open:
            self.places = max(1.0, float(math.ceil(share * min(self.places, ROOMY))))
        self._tell()
        if was_ready and self.breaker.is_open:
            self._call_prober()

    def _tell(self) -> None:
        """Most probes find a node as the last one did, which is no news."""
        told = (
            *(self.cards, self.spec, self.ready, self.failing, self.left, self.closed),
            *(self.places, self.bound, self.bounded, self.shared, self.busy_until),
        )
        if told != self._told:
            self._told = told
            if self.on_change is not None:
                self.on_change(self)

    def has_place(self, now: float) -> bool:
        """Whether it may have one more request now. True until the next await only: others ask, too."""
        return self.ready and self.in_flight < self.places and self.busy_until <= now

    def share(self, spec: NodeSpec, gateways: int) -> None:
        """Go by `spec`, with its places shared by `gateways`: fewer at once, more with the next probe."""
        self.spec = spec
        self.gateways = gateways
        self.places = min(self.places, self.bound)
        self._tell()

    def busy(self, until: float) -> None:
        """It has said itself that its queue is full, and is not asked before loop time `until`."""
        self.busy_until = until
        self._tell()

    def leave(self) -> None:
        """The fleet goes on without it."""
        self.left = self.closed = True
        self.ready = False
        self._tell()

    @property
    def max_concurrency(self) -> int | None:
        """Requests at once that it may have of all gateways: as configured, or else as found; None: any number."""
        configured = self.spec.max_concurrency
        return self.knee.limit if configured is None else configured

    @property
    def takes_priority(self) -> bool:
        """Whether it is told the priority of requests. A vLLM that schedules otherwise ignores it."""
        told = self.spec.priority_scheduling
        return self.capabilities.version is not None if told is None else told

    @property
    def bound(self) -> float:
        """Requests at once that this process may have on it at the most."""
        most = self.max_concurrency
        if most is None:
            return self.knee.trial
        return most if self.shared else max(1, most // self.gateways)

    @property
    def bounded(self) -> bool:
        return self.max_concurrency is not None

    def is_within_share(self) -> bool:
        """Whether it may have one more request within an even share of its places, whatever others have on it."""
        most = self.max_concurrency
        return most is None or self.in_flight < max(1, most // self.gateways)

    @property
    def facts(self) -> NodeFacts:
        """What metrics are told."""
        breaker = self.breaker
        return NodeFacts(
            self.name,
            self.ready,
            breaker.state.value,
            breaker.opened,
            self.drain is not None,
            self.in_flight,
            self.max_concurrency,
            self.canaries,
            self.capabilities.native_budget,
            None if self.load is None else self.load.kv_use,
            None if self.load is None else self.load.queued,
        )

    def drain_for(self, source: str, drain: Drain | None, now: float) -> None:
        """What `source` says: a drain, or none any more. Of several the one that ends first counts."""
        if drain is not None:
            self._drains[source] = drain
        else:
            self._drains.pop(source, None)
        before, self.drain = self.drain, min(self._drains.values(), key=lambda each: each.until, default=None)
        self.closed = self.left or self.drain is not None
        if (before is None) != (self.drain is None):
            self.refresh(now)

    @property
    def ready_but_for_drain(self) -> bool:
        """Whether it answers, whatever was ordered about it."""
        return not self.breaker.is_open

    # What probes tell

    def probe_succeeded(self, cards: Mapping[str, Mapping[str, Any]], now: float = 0.0) -> None:
        """`cards`: what its /v1/models lists, by model id, as the node wrote them."""
        allowed = self.spec.models
        if allowed and not all(name in allowed for name in cards):
            cards = {name: card for name, card in cards.items() if name in allowed}
        self.cards = cards
        self.probe_answered(now)

    def probe_answered(self, now: float) -> None:
        """A probe was answered, or something else showed that it lives."""
        self.failed_probes = 0
        self.breaker.probed(now)
        if not self.breaker.is_open:
            self.last_error = self.failing
        self.refresh(now)

    def probe_failed(self, error: str, failure_threshold: int, now: float = 0.0, since: float = math.inf) -> None:
        """A probe went unanswered; after more than `failure_threshold` in a row the node is not chosen any more, unless
        it has sent tokens after `since`: then it is only busy."""
        if self.heard_at > since:
            self.failed_probes = 0
            return
        self.failed_probes += 1
        self.last_error = error
        if self.failed_probes > failure_threshold:
            self.breaker.missed_probes(now)
            self.refresh(now)

    def load_told(self, load: NodeMetrics, find_knee: bool = True, sent: int = 0) -> None:
        """A page of its metrics was read; `sent`: requests that it had of this process when the page was asked for.
        Tokens that were made since the last one are a sign of life."""
        before = self.load
        self.load = load = load if before is None else load.sharing(before)
        loads = self.loads
        loads.append(load)
        if len(loads) > PAGES:
            del loads[0]
        if not (load.running or load.waiting):  # its pages are read more rarely: half a minute of them is fewer
            while len(loads) > 2 and loads[0].at < load.at - IDLE_SECONDS:
                del loads[0]
        self.block = load.block or self.block
        self.kv_tokens = load.kv_tokens or self.kv_tokens
        if find_knee and self.spec.max_concurrency is None:
            self.knee.observe(self.loads, min(sent, self.in_flight), self.gateways)
            self._tell()
        elif self.knee.is_known:
            self.knee.forget()
            self._tell()
        if before is None or before.generated is None or load.generated is None:
            return
        if load.generated != before.generated:
            self.heard_at = max(self.heard_at, load.at)
        if load.generated < before.generated:
            self.cold_since = load.at

    # What requests and probes tell

    def refused(self, error: str, now: float = 0.0) -> bool:
        """It took no connection: it is not chosen until it answers again. Whether that is news."""
        opened = self.breaker.refused(now)
        self.cold_since = now
        self.last_error = error
        self.refresh(now)
        return opened

    def is_silent(self, now: float) -> bool:
        """Whether nothing of any answer has come for `SILENT` seconds, though answers stream from it, or did until they
        were given up."""
        if now <= self.heard_at + SILENT:
            return False
        return self.stalled_at > self.heard_at or any(lease.heard for lease in self.leases)

    def stalled(self, now: float) -> None:
        """An answer was given up because nothing came."""
        self.stalled_at = now

    def doubt(self, error: str) -> None:
        """A request failed by the node's fault or its own: the prober asks the node itself, at once."""
        self.breaker.doubt()
        self.doubted = True
        self.last_error = error
        self._call_prober()

    def convict(self, error: str, failed_at: float, now: float, spare: bool) -> bool:
        """Another node answered a request that failed here at `failed_at`; whether this one is out now."""
        streaming = any(lease.heard and lease.began < failed_at for lease in self.leases)
        if streaming and self.heard_at > failed_at:
            return False  # other answers go on
        opened = self.breaker.convict(now, failed_at, spare)
        self.last_error = error
        self.refresh(now)
        return opened

    def check_failed(self, error: str, now: float, spare: bool) -> bool:
        """It was doubted, and failed the prober's own request as well; whether it is out now."""
        opened = self.breaker.check_failed(now, spare)
        self.failing = None if self.breaker.is_open else error
        self.last_error = error
        self.refresh(now)
        return opened

    def check_passed(self) -> None:
        """It was doubted, and answered the prober's own request: where it was failing, it is not any more."""
        self.stalled_at = -math.inf
        if self.failing is not None:
            self.failing = self.last_error = None
            self._tell()

    def suspect_budget(self) -> bool:
        """It overran a budget that it could have held: its canary is run again. Whether this is news."""
        if self.budget_suspected:
            return False
        self.budget_suspected = True
        self._call_prober()
        return True

    def answered(self, now: float) -> None:
        """A request was answered that might not have been."""
        self.breaker.answered(now)
        self.doubted = False
        self.stalled_at = -math.inf
        self.failing = None
        self.refresh(now)

    def fell_silent(self, now: float, spare: bool) -> bool:
        """All its answers stand still; whether that takes it out."""
        opened = self.breaker.fell_silent(now, spare)
        self.doubted = True
        self.last_error = "all its answers have stalled"
        self.failing = None if self.breaker.is_open else self.last_error
        self.refresh(now)
        return opened

    def keep_pace(self, pace: float) -> None:
        """An answer had `pace` tokens in an event of its thinking: what one has at the least is a little below that."""
        known = (
            self._pace if self._pace == self.capabilities.pace else None
        )  # else it was asked anew, and that forgotten
        lowest = max(1.0, 0.9 * pace)
        if known is None or lowest < known:
            self._pace = lowest
            self.capabilities = replace(self.capabilities, pace=lowest)

    def reconnect(self, spec: NodeSpec, trusted: bool) -> None:
        """Another key or certificate: what it serves is known until it is probed, how it does is not."""
        self.spec, self.access = spec, spec.access
        self.breaker = Breaker(self.breaker.rules, trusted)
        self.last_error = "not probed yet"
        self.failing = None
        self.ready = False
        self._tell()


class LeasedPlaces(Protocol):
    """What all gateways know of a lease (see `routing/places.py`)."""

    def release(self, lease: "Lease") -> None: ...


class PrefillTracker(Protocol):
    """What a lease's prompt adds to its node until its first byte (see `pending_prefill`)."""

    @property
    def reason(self) -> str: ...
    @property
    def cached(self) -> int: ...
    def first_byte(self, now: float) -> None: ...
    def close(self, told: bool) -> None:
        """`told`: all gateways hear of it with the end of the lease."""

    def learn(self, usage: Usage | None) -> None: ...


class Lease:
    """One unit of a node's concurrency, held until the last byte. `release` counts once however often it is called.

    `began`: loop time of its beginning. `heard`: whether a byte of a model's answer has come. `stream`: it should come
    bit by bit. `answered`: its node has answered it with 200, and the client has a byte of it. `tokens`: about the size
    of its prompt. `model`: the one that works for it, None where nothing is generated. `name`: how all gateways call
    it, None where they do not know of it; `places` are told of its end.
    """

    __slots__ = (
        "_held",
        "answered",
        "began",
        "heard",
        "model",
        "name",
        "node",
        "places",
        "prefill",
        "stream",
        "tokens",
    )

    def __init__(self, node: Node, now: float = 0.0, stream: bool = False, tokens: int = 0) -> None:
        self.node = node
        self.began = now
        self.heard = False
        self.answered = False
        self.stream = stream
        self.tokens = tokens
        self.prefill: PrefillTracker | None = None
        self.model: str | None = None
        self.name: bytes | None = None
        self.places: LeasedPlaces | None = None
        self._held = True
        node.in_flight += 1
        node.leases.add(self)
        if node.on_load is not None:
            node.on_load(node)

    def release(self) -> None:
        if self._held:
            self._held = False
            node = self.node
            node.in_flight -= 1
            node.leases.discard(self)
            if self.prefill is not None:
                self.prefill.close(self.places is not None)
            if self.places is not None:
                self.places.release(self)
            if node.on_load is not None:
                node.on_load(node)
            if node.on_free is not None:
                node.on_free(self)


AnotherLease = Callable[[Collection[Node]], Lease]
"""`another(tried)`: a lease on a node that was not tried. Raises `NoNodeReady` or `FleetFull`."""
