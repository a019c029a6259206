"""Which node each request goes to: gathers what the policies judge by, and makes the lease on what they choose.

Where Redis is up, the choice is asked of all gateways' facts, together with whatever else this turn of the loop asks
of Redis; else it is made on this process's own view, by the same formula:

    nodes                        policy         asked of
    several                      expected wait  Redis
    one with a bound             any            Redis: whether it has a place, that all gateways count together
    several, one with a bound    others         this process, then Redis: the first in its order that has a place
    one without a bound          any            nobody
    several without a bound      others         this process
    any, Redis is down           any            this process, within an even share of each bound

Of a model with many nodes the candidates are a sample (`CandidateSampler`), so that a choice costs the same in fleets
of all sizes. Where Redis answers to a sample:

    all of it are full               what others have is heard anew, and another sample asked for; at last all that seem
                                     free; with none that seems so, all nodes are full
    the conversation was on another  that one is asked for with the sample, where it is free
    node, which may be better
"""

import asyncio
import itertools
import os
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.core.admission.fair_order import Turn
from gateway.core.errors import FleetFull
from gateway.core.plan import Plan
from gateway.core.routing.conversations import ConversationNaming, conversation_of
from gateway.core.routing.decode_speed import answer_costs
from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import (
    EXPECTED_WAIT,
    Candidate,
    NodeScore,
    PlacedPrompt,
    PrefillBacklog,
    RandomDraw,
    in_cache,
    level,
    rendezvous,
)
from gateway.fleet.fleet import FULL_RETRY_SECONDS, Fleet
from gateway.fleet.node import ROOMY, Lease, Node
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.routing.candidate_sampler import CandidateSampler
from gateway.routing.peer_loads import PeerLoads
from gateway.routing.pending_prefill import PendingPrefill
from gateway.routing.places import Places
from gateway.routing.shared_placement import SharedChoice, SharedPlacement, SharedTurn, forget

NO_TURN = Turn("standard", "", 1.0, 1.0, 0.0)
"""That of a request which is charged to nobody."""

MOST_ASKED = 3
"""Times that Redis is asked for one choice: what it chose may have left meanwhile."""

MOST_SAMPLED = 5
"""The same where its candidates are a sample."""

MOST_CANDIDATES = 1024
"""Nodes of one question, at the most."""

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
    """Chooses nodes. `placement` is this process's view; `shared` all gateways', `places` what they know of this one's
    requests: both None without Redis."""

    def __init__(
        self, fleet: Fleet, rules: RoutingRules, placement: Placement, redis: RedisClient | None = None
    ) -> None:
        self.fleet = fleet
        self.placement = placement
        self.shared: SharedPlacement | None = None
        self.places: Places | None = None
        self._turns = itertools.count()
        self.samples = itertools.count()
        self._own_name = os.urandom(6).hex().encode()
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        if redis is not None:
            self.shared = SharedPlacement(redis, self._own_name, rules.affinity_ttl, rules.load_penalty)
            self.places = Places(redis, fleet, self._own_name, self.next_name)
        self.rules = rules
        self.sampler = CandidateSampler(fleet, self, GUESSED_PACE)
        self.peer_loads = None if redis is None else PeerLoads(redis, fleet, self.sampler, self)
        self.configure(rules)

    def configure(self, rules: RoutingRules) -> None:
        """Choose by `rules` from now on."""
        self.rules = rules
        for view in (self.placement, self.shared):
            if view is not None:
                view.affinity_ttl, view.load_penalty = rules.affinity_ttl, rules.load_penalty

    def choose(
        self, plan: Plan, tenant: str, headers: Mapping[bytes, bytes], turn: SharedTurn | None = None
    ) -> "NodeChoice":
        """Begin to choose a node for `plan`, which is charged to `turn`. Raises `NoNodeReady` at once where none serves
        it."""
        return NodeChoice(self, plan, tenant, headers, turn)

    def home(self, plan: Plan, tenant: str, headers: Mapping[bytes, bytes]) -> str | None:
        """The node that has what the conversation of `plan` left at its last turn, as far as this process knows."""
        now, prompt = self.now(), self.prompt(plan, tenant, headers)
        last = self.placement.left(prompt.conversation, now)
        node = None if last is None else self.fleet.by_name(last.node)
        if node is None or not in_cache(candidates_of([node], now)[0], prompt, last):
            return None
        return node.name

    def prompt(
        self, plan: Plan, tenant: str, headers: Mapping[bytes, bytes], turn: SharedTurn | None = None
    ) -> PlacedPrompt:
        owner = f"{plan.model}/{tenant}"
        conversation = conversation_of(plan.ask.body, headers, owner, self.rules.naming)
        return PlacedPrompt(plan.input_tokens, conversation, 0 if turn is None else turn.turn.answer)

    def now(self) -> float:
        """Loop time."""
        loop = self._loop
        if loop is None:  # once: to ask for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        return loop.time()

    @property
    def pending(self) -> Mapping[str, PrefillBacklog]:
        """Prompt tokens of this process that are pending, by node."""
        return self.placement.pending

    @property
    def load_penalty(self) -> float:
        return self.rules.load_penalty

    def sampled(self, model: str | None, pinned_to: bytes | None) -> bool:
        """Whether candidates are a sample of the model's nodes."""
        return model is not None and pinned_to is None and model in self.sampler.models

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
    """The choice of a node for one request: `lease` it, or `cancel` it. `answer` is what Redis said last."""

    __slots__ = (
        "_asked",
        "_headers",
        "_name",
        "_nodes",
        "_now",
        "_plan",
        "_preferred",
        "_prompt",
        "_router",
        "_sampled",
        "_tenant",
        "_turn",
        "answer",
    )

    def __init__(
        self, router: Router, plan: Plan, tenant: str, headers: Mapping[bytes, bytes], turn: SharedTurn | None
    ) -> None:
        self._router = router
        self._plan = plan
        self._tenant = tenant
        self._headers = headers
        self._turn = turn
        self._prompt: PlacedPrompt | None = None
        self._asked: InlineFuture[Any] | None = None
        self.answer: SharedChoice | None = None
        self._now = router.now()
        self._sampled = router.sampled(plan.model, plan.pinned_to)
        """Whether the nodes that are asked for are some of many, among which the best may not be."""
        try:
            self._nodes = self._candidates(self._now)
        except FleetFull:  # until the lease is made a place may become free
            self._nodes = ()
        if router.shared is not None:
            self._ask(self._nodes)

    def cancel(self) -> None:
        """Give back what Redis chose, or is yet to choose. Once the lease is made this changes nothing."""
        asked, self._asked = self._asked, None
        if asked is not None:
            forget(asked)
            if self._router.places is not None:
                self._router.places.asked.discard(self._name)
                assert self._turn is not None
                self._router.places.cancel(self._name, self._turn)

    @property
    def waits(self) -> bool:
        """Whether Redis is asked."""
        return self._asked is not None

    def lease_at_once(self) -> Lease:
        """The lease where nothing was awaited since the choice began, and it does not wait. Raises as `lease`."""
        return self._place(self._nodes, self._now)

    async def lease(self) -> Lease:
        """A lease on the chosen node, or on another where that one may not have the request any more: while Redis was
        asked others were admitted, and the node may be drained, full or gone.

        Raises `NoNodeReady` where no node is left, and `FleetFull` where all are at capacity, or others wait whose turn
        it is.
        """
        for number in range(MOST_SAMPLED if self._sampled else MOST_ASKED):
            asked = self._asked
            if asked is None:
                break
            self.answer = answer = await self._read(asked)
            now = self._router.now()
            if answer is None or not answer.known:
                if answer is not None and self._router.places is not None:
                    self._router.places.forgotten()
                self.cancel()  # where Redis did not answer, it may have chosen all the same
                return self._place(self._within_share(now), now)
            if answer.score is None:
                self._asked = None
                self._ask(await self._others(answer, number), with_last=answer.last is not None)
                continue
            nodes = self._free(now)
            if any(node.name == answer.score.node for node in nodes):
                self._asked = None
                assert self._prompt is not None
                return self._lease_on(answer.score, nodes, self._prompt, self._name, now)
            self.cancel()
            self._ask(nodes)
        now = self._router.now()
        return self._place(self._free(now), now)

    async def _others(self, answer: SharedChoice, number: int) -> Sequence[Node]:
        """The nodes to ask for after an answer that chose none, to the question with this number, from 0. Raises
        `FleetFull`."""
        router, model = self._router, self._plan.model
        if not self._sampled or model is None or number + 1 == MOST_SAMPLED:
            raise full()
        if answer.last is not None:
            now = router.now()
            last, found = router.fleet.by_name(answer.last), self._free(now)
            if last is not None and last not in found and model in last.cards and last.has_place(now):
                return [last, *found]
            return found
        if not answer.full or router.peer_loads is None:
            raise full()
        router.sampler.found_full(self._nodes)
        await router.peer_loads.refresh()
        if not router.sampler.has_room(model):
            raise full()
        return self._candidates(router.now(), every=number > 0)[:MOST_CANDIDATES]

    def another(self, tried: Collection[Node]) -> Lease:
        """A lease on a node that was not `tried`, by this process's own view. Raises as `lease`."""
        now = self._router.now()
        nodes = self._candidates(now, tried, moves=True)
        # Redis is not asked: within an even share no node gets too much; beyond it that is better than a lost answer.
        return self._place([node for node in nodes if node.is_within_share()] or nodes, now)

    def _free(self, now: float) -> Sequence[Node]:
        """The nodes that were candidates and still are; where none is, those that are candidates now."""
        model = self._plan.model
        free = [node for node in self._nodes if node.has_place(now) and (model is None or model in node.cards)]
        return free or self._candidates(now)

    def _candidates(
        self, now: float, tried: Collection[Node] = (), moves: bool = False, every: bool = False
    ) -> Sequence[Node]:
        """As `Fleet.candidates`; with `every` all that are free, also of a sampled model."""
        router, plan = self._router, self._plan
        if plan.model is None or not router.sampled(plan.model, plan.pinned_to):
            return router.fleet.candidates(plan.model, tried, plan.pinned_to, now, moves)
        prompt = self._prompt = self._prompt or router.prompt(plan, self._tenant, self._headers, self._turn)
        left = router.placement.left(prompt.conversation, now)
        last = None if left is None else left.node
        turn = next(router.samples)
        return router.sampler.candidates(plan.model, last, prompt.conversation, turn, now, tried, moves, every)

    def _within_share(self, now: float) -> Sequence[Node]:
        """Those that have a place within an even share of it."""
        found = [node for node in self._free(now) if node.is_within_share()]
        if found or not self._sampled:
            return found
        return [node for node in self._candidates(now, every=True) if node.is_within_share()]

    def _ask(self, nodes: Sequence[Node], with_last: bool = False) -> None:
        """Ask Redis for one of `nodes`, if it is to be asked. `with_last`: where they are a sample, the node of the
        conversation's last turn was looked for already."""
        router, shared, places = self._router, self._router.shared, self._router.places
        if shared is None or places is None or not shared.up or not nodes:
            return
        by_wait = router.policy(self._plan.model) == EXPECTED_WAIT
        if not (len(nodes) > 1 and by_wait) and not (places.known and any(node.bounded for node in nodes)):
            return
        if self._sampled:
            self._nodes = nodes
        now = router.now()
        prompt = self._prompt = self._prompt or router.prompt(self._plan, self._tenant, self._headers, self._turn)
        candidates = self._facts(nodes, now, prompt)
        # A sample has its first choice in front.
        self._preferred = candidates if self._sampled else rendezvous(candidates, prompt.conversation)
        if not by_wait:
            placed = router.choose_locally(router.policy(self._plan.model), candidates, prompt, now)
            self._preferred.sort(key=lambda each: each.name != placed.node)
            # The first one that has a place.
            self._preferred = [each._replace(pace=0.0, crowd=0.0, answer=0.0) for each in self._preferred]
        self._turn = self._turn or SharedTurn(self._plan.model or "", NO_TURN)
        self._name = router.next_name()
        places.asked.add(self._name)
        sampled = self._sampled and not with_last
        self._asked = shared.choose(self._name, self._preferred, prompt, self._turn, sampled)

    async def _read(self, asked: InlineFuture[Any]) -> SharedChoice | None:
        """What Redis chose, None where it did not answer, or refused."""
        shared, places, prompt = self._router.shared, self._router.places, self._prompt
        assert shared is not None and places is not None and prompt is not None and self._turn is not None
        try:
            return shared.read(await asked, self._preferred, prompt, self._turn)
        except RedisUnavailable:
            return None
        finally:
            places.asked.discard(self._name)

    def _place(self, nodes: Sequence[Node], now: float) -> Lease:
        """By this process's own view. Where there is no choice nothing is noted, but where the others were full: what
        waits looks for its conversation's node. Raises `FleetFull` where there are no `nodes`."""
        if not nodes:
            raise full()
        router = self._router
        if len(nodes) == 1 and not self._sampled and (not router.fleet.bounded or len(router.fleet.nodes) == 1):
            lease = Lease(nodes[0], now, self._plan.ask.stream, len(self._plan.ask.raw) >> 2)
            lease.model = self._plan.model if self._plan.dialect.output_fields else None
        else:
            prompt = self._prompt = self._prompt or router.prompt(self._plan, self._tenant, self._headers, self._turn)
            candidates = self._facts(nodes, now, prompt)
            placed = router.choose_locally(router.policy(self._plan.model), candidates, prompt, now)
            lease = self._lease_on(placed, nodes, prompt, None, now)
        if router.places is not None and lease.node.bounded:
            router.places.adopt(lease)
        return lease

    def _facts(self, nodes: Sequence[Node], now: float, prompt: PlacedPrompt) -> list[Candidate]:
        model, sampler = self._plan.model, self._router.sampler
        usual = sampler.usual_pace(model, now) if model is not None and model in sampler.models else None
        return candidates_of(nodes, now, usual, prompt.answer)

    def _lease_on(
        self, placed: NodeScore, nodes: Sequence[Node], prompt: PlacedPrompt, name: bytes | None, now: float
    ) -> Lease:
        router = self._router
        node = next(node for node in nodes if node.name == placed.node)
        router.placement.add(placed, prompt, now)
        shared = router.shared if name is not None else None
        lease = Lease(node, now, self._plan.ask.stream, prompt.tokens)
        lease.model = self._plan.model if self._plan.dialect.output_fields else None
        alone = self._plan.sequences == 1
        lease.prefill = PendingPrefill(router.placement, shared, placed, name, node, self._plan.ask.stream, now, alone)
        if name is not None and router.places is not None:
            router.places.add(lease, name)
        return lease


def full() -> FleetFull:
    return FleetFull(f"All nodes are at capacity; retry in {FULL_RETRY_SECONDS:g} s.", retry_after=FULL_RETRY_SECONDS)


def candidates_of(nodes: Sequence[Node], now: float, usual: float | None = None, answer: int = 0) -> list[Candidate]:
    """What the policies see of `nodes`. `usual` as in `level`; `answer`: tokens that are expected to be made."""
    paces = level([node.speed.pace for node in nodes], GUESSED_PACE, usual)
    answers = answer_costs([node.decode.pace for node in nodes], [node.spec.weight for node in nodes], answer)
    return [
        Candidate(
            node.name,
            pace / node.spec.weight,
            node.in_flight / (ROOMY if not node.bounded and node.places > ROOMY else node.places),
            node.spec.weight,
            now - node.cold_since,
            int(node.bound) if node.bounded else 0,
            costs,
            node.block,
            lasting(node),
        )
        for node, pace, costs in zip(nodes, paces, answers, strict=True)
    ]


def lasting(node: Node) -> int:
    """Tokens that are written into its cache until what was there is gone: all that running requests do not hold, as
    the oldest goes first. 0 where it is not known."""
    used = 0.0 if node.load is None or node.load.kv_use is None else node.load.kv_use
    return max(1, round(node.kv_tokens * (1 - used))) if node.kv_tokens else 0
