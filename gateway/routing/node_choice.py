"""The choice of a node for one request, from the candidates to the lease.

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
    more wait elsewhere than it has  asked again, once, with the least loaded nodes, until they have places for those,
    places                           too: the places of a sample are few of those that are free
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.core.admission.fair_order import Turn
from gateway.core.admission.peers import PeerQueues
from gateway.core.errors import FleetFull
from gateway.core.plan import Plan
from gateway.core.routing.selection import EXPECTED_WAIT, Candidate, NodeScore, PlacedPrompt, rendezvous
from gateway.fleet.fleet import all_full
from gateway.fleet.node import Lease, Node
from gateway.redis.client import RedisUnavailable
from gateway.routing.pending_prefill import PendingPrefill
from gateway.routing.router import Router, candidates_of
from gateway.routing.routing_groups import RoutingGroup
from gateway.routing.shared_placement import SharedChoice, SharedTurn, forget

NO_TURN = Turn("standard", "", 1.0, 1.0, 0.0)
"""That of a request which is charged to nobody."""

MOST_ASKED = 3
"""Times that Redis is asked for one choice: what it chose may have left meanwhile."""

MOST_SAMPLED = 5
"""The same where its candidates are a sample."""

MOST_CANDIDATES = 1024
"""Nodes of one question, at the most."""


class NodeChoice:
    """The choice of a node for one request: `lease` it, or `cancel` it. `answer` is what Redis said last."""

    __slots__ = (
        "_asked",
        "_group",
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
        "_widened",
        "answer",
    )

    def __init__(
        self, router: Router, plan: Plan, tenant: str, headers: Mapping[bytes, bytes], turn: SharedTurn | None
    ) -> None:
        """Begin to choose a node for `plan`, which is charged to `turn`. Raises `NoNodeReady` at once where none serves
        it."""
        self._router = router
        self._plan = plan
        self._tenant = tenant
        self._headers = headers
        self._turn = turn
        self._prompt: PlacedPrompt | None = None
        self._asked: InlineFuture[Any] | None = None
        self._group: RoutingGroup | None = None
        """The one that was asked last."""
        self.answer: SharedChoice | None = None
        self._now = router.now()
        self._widened = False
        """Whether a sample was asked for again with more nodes, since others wait."""
        self._sampled = router.sampled(plan.model, plan.pinned_to)
        """Whether the nodes that are asked for are some of many, among which the best may not be."""
        try:
            self._nodes = self._candidates(self._now)
        except FleetFull:  # until the lease is made a place may become free
            self._nodes = ()
        if router.groups is not None:
            self._ask(self._nodes)

    def cancel(self) -> None:
        """Give back what Redis chose, or is yet to choose. Once the lease is made this changes nothing."""
        asked, self._asked = self._asked, None
        if asked is not None:
            forget(asked)
            assert self._group is not None and self._turn is not None
            self._group.places.asked.discard(self._name)
            self._group.places.cancel(self._name, self._turn)

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
                if answer is not None and self._group is not None:
                    self._group.places.forgotten()
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
            raise all_full()
        if answer.last is not None:
            now = router.now()
            last, found = router.fleet.by_name(answer.last), self._free(now)
            if last is not None and last not in found and model in last.cards and last.has_place(now):
                return [last, *found]
            return found
        if not answer.full:
            return self._widen(answer)
        if router.peer_loads is None:
            raise all_full()
        router.sampler.found_full(self._nodes)
        await router.peer_loads.refresh()
        if not router.sampler.has_room(model):
            raise all_full()
        return self._candidates(router.now(), every=number > 0)[:MOST_CANDIDATES]

    def _widen(self, answer: SharedChoice) -> Sequence[Node]:
        """Nodes with places for all that wait elsewhere and this request, the least loaded first. Twice as many as this
        process sees free: others see more of what they have. Raises `FleetFull` where there are no more of them."""
        now = self._router.now()
        peers = PeerQueues()
        peers.update(answer.others, now)
        wanted = 2.0 * (peers.waiting(now) + 1)
        found: list[Node] = []
        for node in self._candidates(now, every=True)[:MOST_CANDIDATES]:
            if wanted <= 0:
                break
            found.append(node)
            wanted -= node.bound - node.in_flight
        if self._widened or len(found) <= len(self._nodes):
            raise all_full()
        self._widened = True
        return found

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
        router, groups = self._router, self._router.groups
        if groups is None or not nodes:
            return
        group = groups.of(self._plan.model)
        shared, places = group.placement, group.places
        if not shared.up:
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
        self._group = group
        sampled = self._sampled and not with_last
        self._asked = shared.choose(self._name, self._preferred, prompt, self._turn, sampled)

    async def _read(self, asked: InlineFuture[Any]) -> SharedChoice | None:
        """What Redis chose, None where it did not answer, or refused."""
        group, prompt = self._group, self._prompt
        assert group is not None and prompt is not None and self._turn is not None
        try:
            return group.placement.read(await asked, self._preferred, prompt, self._turn)
        except RedisUnavailable:
            return None
        finally:
            group.places.asked.discard(self._name)

    def _place(self, nodes: Sequence[Node], now: float) -> Lease:
        """By this process's own view. Where there is no choice nothing is noted, but where the others were full: what
        waits looks for its conversation's node. Raises `FleetFull` where there are no `nodes`."""
        if not nodes:
            raise all_full()
        router = self._router
        if len(nodes) == 1 and not self._sampled and (not router.fleet.bounded or len(router.fleet.nodes) == 1):
            lease = Lease(nodes[0], now, self._plan.ask.stream, len(self._plan.ask.raw) >> 2)
            lease.model = self._plan.model if self._plan.dialect.output_fields else None
        else:
            prompt = self._prompt = self._prompt or router.prompt(self._plan, self._tenant, self._headers, self._turn)
            candidates = self._facts(nodes, now, prompt)
            placed = router.choose_locally(router.policy(self._plan.model), candidates, prompt, now)
            lease = self._lease_on(placed, nodes, prompt, None, now)
        if router.groups is not None and lease.node.bounded:
            router.groups.of(self._plan.model).places.adopt(lease)
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
        group = self._group if name is not None else None
        shared = None if group is None else group.placement
        lease = Lease(node, now, self._plan.ask.stream, prompt.tokens)
        lease.model = self._plan.model if self._plan.dialect.output_fields else None
        alone = self._plan.sequences == 1
        lease.prefill = PendingPrefill(router.placement, shared, placed, name, node, self._plan.ask.stream, now, alone)
        if name is not None and group is not None:
            group.places.add(lease, name)
        return lease
