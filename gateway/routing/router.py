"""Which node each request goes to: gathers what the policies judge by, and makes the lease on what they choose.

Where Redis is up, the choice is asked of all gateways' facts, together with whatever else this turn of the loop asks
of Redis; else it is made on this process's own view, by the same formula.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.core.errors import FleetFull
from gateway.core.plan import Plan
from gateway.core.routing.conversations import ConversationNaming, conversation_of
from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import (
    EXPECTED_WAIT,
    Candidate,
    NodeScore,
    PlacedPrompt,
    RandomDraw,
    level,
    rendezvous,
)
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import ROOMY, Lease, Node
from gateway.redis.client import RedisUnavailable
from gateway.routing.pending_prefill import PendingPrefill
from gateway.routing.shared_placement import SharedPlacement, forget

GUESSED_PACE = 1 / 8000
"""Seconds per prompt token before anything was measured: an 8x H200 node with a 55B-active model."""


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """What the config says: the policy for all models, those of single ones, what names a conversation; `affinity_ttl`
    and `load_penalty` as in `Placement`."""

    policy: str = EXPECTED_WAIT
    policies: Mapping[str, str] = field(default_factory=dict)
    naming: ConversationNaming = field(default_factory=ConversationNaming)
    affinity_ttl: float = 3600.0
    load_penalty: float = 1.0


class Router:
    """Chooses nodes. `placement` is this process's view; `shared` all gateways', None without Redis."""

    def __init__(
        self, fleet: Fleet, rules: RoutingRules, placement: Placement, shared: SharedPlacement | None = None
    ) -> None:
        self.fleet = fleet
        self.placement = placement
        self.shared = shared
        self._turns = itertools.count()
        self._own_name = os.urandom(6).hex().encode()
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.configure(rules)

    def configure(self, rules: RoutingRules) -> None:
        """Choose by `rules` from now on."""
        self.rules = rules
        for view in (self.placement, self.shared):
            if view is not None:
                view.affinity_ttl, view.load_penalty = rules.affinity_ttl, rules.load_penalty

    def choose(self, plan: Plan, tenant: str, headers: Mapping[bytes, bytes]) -> "NodeChoice":
        """Begin to choose a node for `plan`. Raises `NoNodeReady` at once where none serves it."""
        return NodeChoice(self, plan, tenant, headers)

    def prompt(self, plan: Plan, tenant: str, headers: Mapping[bytes, bytes]) -> PlacedPrompt:
        owner = f"{plan.model}/{tenant}"
        return PlacedPrompt(plan.input_tokens, conversation_of(plan.ask.body, headers, owner, self.rules.naming))

    def now(self) -> float:
        """Loop time."""
        loop = self._loop
        if loop is None:  # once: to ask for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        return loop.time()

    def policy(self, model: str | None) -> str:
        return self.rules.policies.get(model or "", self.rules.policy)

    def next_name(self) -> bytes:
        return b"%b-%x" % (self._own_name, next(self._numbers))

    def choose_locally(
        self, policy: str, candidates: Sequence[Candidate], prompt: PlacedPrompt, now: float
    ) -> NodeScore:
        """By this process's own view."""
        chance = RandomDraw(next(self._turns), random.random())
        return self.placement.choose(policy, candidates, prompt, chance, now)


class NodeChoice:
    """The choice of a node for one request: `lease` it, or `cancel` it."""

    __slots__ = ("_asked", "_headers", "_name", "_nodes", "_plan", "_preferred", "_prompt", "_router", "_tenant")

    def __init__(self, router: Router, plan: Plan, tenant: str, headers: Mapping[bytes, bytes]) -> None:
        self._router = router
        self._plan = plan
        self._tenant = tenant
        self._headers = headers
        self._prompt: PlacedPrompt | None = None
        self._asked: InlineFuture[Any] | None = None
        try:
            self._nodes = router.fleet.candidates(plan.model, (), plan.pinned_to, router.now())
        except FleetFull:  # until the lease is made a place may become free
            self._nodes = ()
        if len(self._nodes) > 1 and router.shared is not None and router.shared.up:
            self._ask(router.shared)

    def cancel(self) -> None:
        """Give back what Redis chose, or is yet to choose. Once the lease is made this changes nothing."""
        asked, self._asked = self._asked, None
        if asked is not None:
            forget(asked)
            if self._router.shared is not None:
                self._router.shared.prefilled(self._name)

    async def lease(self) -> Lease:
        """A lease on the chosen node, or on another where that one may not have the request any more: while Redis was
        asked others were admitted, and the node may be drained, full or gone.

        Raises `NoNodeReady` where no node is left, and `FleetFull` where all are at capacity.
        """
        asked = self._asked
        placed = None if asked is None else await self._answer(asked)
        now = self._router.now()
        nodes = self._free(now)
        if placed is None or not any(node.name == placed.node for node in nodes):
            self.cancel()  # where Redis did not answer, it may have chosen all the same
            return self._place(nodes, now)
        self._asked = None
        assert self._prompt is not None
        return self._lease_on(placed, nodes, self._prompt, self._name, now)

    def another(self, tried: Collection[Node]) -> Lease:
        """A lease on a node that was not `tried`, by this process's own view. Raises as `lease`."""
        router, plan, now = self._router, self._plan, self._router.now()
        return self._place(router.fleet.candidates(plan.model, tried, plan.pinned_to, now), now)

    def _free(self, now: float) -> Sequence[Node]:
        """The nodes that were candidates and still are; where none is, those that are candidates now."""
        model = self._plan.model
        free = [node for node in self._nodes if node.has_place(now) and (model is None or model in node.cards)]
        return free or self._router.fleet.candidates(model, (), self._plan.pinned_to, now)

    def _ask(self, shared: SharedPlacement) -> None:
        router = self._router
        if router.policy(self._plan.model) != EXPECTED_WAIT:
            return
        self._prompt = router.prompt(self._plan, self._tenant, self._headers)
        self._preferred = rendezvous(candidates_of(self._nodes, router.now()), self._prompt.conversation)
        self._name = router.next_name()
        self._asked = shared.choose(self._name, self._preferred, self._prompt)

    async def _answer(self, asked: InlineFuture[Any]) -> NodeScore | None:
        """What Redis chose, None where it did not answer, or refused."""
        shared, prompt = self._router.shared, self._prompt
        assert shared is not None and prompt is not None
        try:
            return shared.read(await asked, self._preferred, prompt)
        except RedisUnavailable:
            return None

    def _place(self, nodes: Sequence[Node], now: float) -> Lease:
        """By this process's own view; where there is no choice, nothing is noted."""
        if len(nodes) == 1:
            return Lease(nodes[0], now, self._plan.ask.stream, len(self._plan.ask.raw) >> 2)
        router = self._router
        prompt = self._prompt = self._prompt or router.prompt(self._plan, self._tenant, self._headers)
        placed = router.choose_locally(router.policy(self._plan.model), candidates_of(nodes, now), prompt, now)
        return self._lease_on(placed, nodes, prompt, None, now)

    def _lease_on(
        self, placed: NodeScore, nodes: Sequence[Node], prompt: PlacedPrompt, name: bytes | None, now: float
    ) -> Lease:
        router = self._router
        node = next(node for node in nodes if node.name == placed.node)
        router.placement.add(placed, prompt, now)
        shared = router.shared if name is not None else None
        lease = Lease(node, now, self._plan.ask.stream, prompt.tokens)
        lease.prefill = PendingPrefill(router.placement, shared, placed, name, node, self._plan.ask.stream, now)
        return lease


def candidates_of(nodes: Sequence[Node], now: float) -> list[Candidate]:
    """What the policies see of `nodes`."""
    paces = level([node.speed.pace for node in nodes], GUESSED_PACE)
    return [
        Candidate(
            node.name,
            pace / node.spec.weight,
            node.in_flight / (ROOMY if node.spec.max_concurrency is None and node.places > ROOMY else node.places),
            node.spec.weight,
            now - node.cold_since,
        )
        for node, pace in zip(nodes, paces, strict=True)
    ]
