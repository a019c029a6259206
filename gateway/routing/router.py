"""What the choices of nodes share: the rules, both views of the fleet, and what the policies see of a node."""

import asyncio
import itertools
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
)
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import ROOMY, Node
from gateway.redis.client import RedisClient
from gateway.routing.candidate_sampler import CandidateSampler
from gateway.routing.peer_loads import PeerLoads
from gateway.routing.routing_groups import RoutingGroups
from gateway.routing.shared_placement import SharedTurn

GUESSED_PACE = 1 / 8000
"""Seconds per prompt token before anything was measured: an 8x H200 node with a 55B-active model."""


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """What the config says: the policy for all models, those of single ones, what names a conversation; `affinity_ttl`
    and `load_penalty` as in `Placement`. `groups`: the routing group of each model that names one, read at start;
    `offered`: all models that the config lists, empty where it lists none."""

    policy: str = EXPECTED_WAIT
    policies: Mapping[str, str] = field(default_factory=dict)
    naming: ConversationNaming = field(default_factory=ConversationNaming)
    affinity_ttl: float = 3600.0
    load_penalty: float = 1.0
    groups: Mapping[str, str] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()


class Router:
    """What nodes are chosen by. `placement` is this process's view; `groups` all gateways', and what they know of this
    one's requests: None without Redis."""

    def __init__(
        self, fleet: Fleet, rules: RoutingRules, placement: Placement, redis: RedisClient | None = None
    ) -> None:
        self.fleet = fleet
        self.placement = placement
        self.groups: RoutingGroups | None = None
        self._turns = itertools.count()
        self.samples = itertools.count()
        self._own_name = os.urandom(6).hex().encode()
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        if redis is not None:
            self.groups = RoutingGroups(
                redis, fleet, self._own_name, self.next_name, rules.affinity_ttl, rules.load_penalty, rules.groups
            )
        self.rules = rules
        self.sampler = CandidateSampler(fleet, self, GUESSED_PACE)
        self.peer_loads: PeerLoads | None = None
        if redis is not None and self.groups is not None:
            self.peer_loads = PeerLoads(redis, fleet, self.sampler, self, self.groups)
        self.configure(rules)

    def configure(self, rules: RoutingRules) -> None:
        """Choose by `rules` from now on."""
        self.rules = rules
        self.placement.affinity_ttl, self.placement.load_penalty = rules.affinity_ttl, rules.load_penalty
        self.sampler.reweigh()
        if self.groups is not None:
            self.groups.configure(rules.affinity_ttl, rules.load_penalty, rules.offered)

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
