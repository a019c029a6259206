"""Candidates among the nodes of a large model: where each node stands is kept as it changes, and a request sees a few.

what changes                                  who tells
ready, drained, full, warming up, its models  the fleet, as probes, requests and orders tell it (`Fleet.on_change`)
requests and pending prompts of this process  its leases (`Node.on_load`)
those of other gateways                       `PeerLoads`, a few times a second, and Redis where it says that all of
                                              a sample are full (`found_full`)
a node is busy by its own word no more        time: looked at with each sample
"""

import heapq
import itertools
import random
from collections.abc import Collection, Mapping
from math import inf
from typing import Protocol

from gateway.core.errors import FleetFull
from gateway.core.routing.node_sample import (
    BUSY,
    DRAINED,
    DRAWN,
    FREE,
    FULL,
    LEAST,
    OUT,
    OUT_FULL,
    ROOMY,
    WHOLE,
    NodeSample,
)
from gateway.core.routing.selection import EXPECTED_WAIT, PrefillBacklog, usual_pace
from gateway.fleet.fleet import Fleet, second_choice
from gateway.fleet.node import ROOMY as ROOMY_PLACES
from gateway.fleet.node import Node

PACE_SECONDS = 1.0
"""Seconds between two looks at how fast the nodes of a model are."""

AMONG = 8
"""The part of a model's nodes that the least loaded are drawn from while other gateways have requests on them: what is
known of those is a moment old, and all gateways would rush the same few."""

SECOND = (ROOMY, BUSY, FULL, OUT, OUT_FULL)
"""Standings of those that are asked for where none is free."""

MOST_MODELS = 16
"""Models of one node, adapters included, up to which they are sampled: a request on it has each of them kept up."""

TURNS = 32
"""Nodes that are passed over in search of the one whose turn it is."""


class RoutingView(Protocol):
    """What the router has: its rules by model, and this process's pending prompts."""

    def policy(self, model: str | None) -> str: ...
    @property
    def pending(self) -> Mapping[str, PrefillBacklog]: ...
    @property
    def load_penalty(self) -> float: ...


class SampledModel:
    """The nodes of one model. `usual`: seconds per prompt token of its usual node."""

    __slots__ = ("name", "nodes", "usual", "usual_until")

    def __init__(self, name: str, guess: float) -> None:
        self.name = name
        self.nodes: NodeSample[Node] = NodeSample()
        self.usual = guess
        self.usual_until = -inf


class CandidateSampler:
    """The models that have more than `WHOLE` nodes, none of which serves more than `MOST_MODELS` models."""

    def __init__(self, fleet: Fleet, view: RoutingView, guessed_pace: float) -> None:
        self.models: dict[str, SampledModel] = {}
        self.others: dict[Node, int] = {}
        """Requests that other gateways have on each node, as far as is known."""
        self.tokens: dict[Node, int] = {}
        """Prompt tokens of theirs that are pending there."""
        self._fleet = fleet
        self._view = view
        self._guess = guessed_pace
        self._of: dict[Node, tuple[SampledModel, ...]] = {}
        self._crowded: dict[Node, tuple[str, ...]] = {}
        """The models of each node that serves more than `MOST_MODELS`: none of them is sampled."""
        self._busy: list[tuple[float, int, Node]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        fleet.on_change = self._changed
        for node in fleet.nodes:
            self._changed(node)

    # Candidates

    def candidates(
        self,
        model: str,
        last: str | None,
        conversation: bytes,
        turn: int,
        now: float,
        tried: Collection[Node] = (),
        moves: bool = False,
        every: bool = False,
    ) -> list[Node]:
        """As `Fleet.candidates`, of one of `models`: a few of them, or with `every` all that are free, the least
        loaded first. `last`: the name of the node of the conversation's last turn; `turn` counts up by one a
        request."""
        found = self.models[model]
        self._wake(now)
        nodes = found.nodes
        if every:
            free = [node for node in nodes.free.least(len(nodes), 0.0) if node not in tried]
        else:
            free = self._sample(found, last, conversation, turn, tried)
        return [node for node in free if node.has_place(now)] or self._second_choice(found, now, tried, moves)

    def _sample(
        self, model: SampledModel, last: str | None, conversation: bytes, turn: int, tried: Collection[Node]
    ) -> list[Node]:
        nodes, draws = model.nodes, (random.random(), random.random())
        match self._view.policy(model.name):
            case "affinity":
                found = nodes.homes(conversation, tried)
            case "power_of_two":
                found = [*nodes.spread.some(1, draws[0]), *nodes.spread.some(1, draws[1])]
            case "least_loaded":
                found = nodes.free.least(LEAST, draws[0])
            case "round_robin":
                found = self._in_turn(model, turn)
            case _:
                found = []
        found = [node for node in dict.fromkeys(found) if node not in tried]
        if found:
            return found
        home = None if last is None else self._fleet.by_name(last)
        among = len(nodes) // AMONG if self.others or self.tokens else 0
        return nodes.sample(home, conversation, draws, tried, among)

    def _in_turn(self, model: SampledModel, turn: int) -> list[Node]:
        nodes = self._fleet.nodes_of(model.name)
        for step in range(min(TURNS, len(nodes))):
            node = nodes[(turn + step) % len(nodes)]
            if node in model.nodes.spread:
                return [node]
        return []

    def _second_choice(self, model: SampledModel, now: float, tried: Collection[Node], moves: bool) -> list[Node]:
        """No node is free. Some of each standing, drawn so that no few get it all, say as much as all; only whether a
        node that is full takes one more request that `moves` is each one's own."""
        nodes, count, draw = model.nodes, LEAST + DRAWN + len(tried), random.random()
        for most in (count, len(nodes)):
            some = [node for standing in SECOND for node in nodes.some(standing, most, draw)]
            try:
                return list(second_choice([node for node in some if node not in tried], model.name, now, moves))
            except FleetFull:
                if not moves or most == len(nodes):
                    raise
        raise AssertionError("the last round returns or raises")

    # What other gateways have

    def has_room(self, model: str) -> bool:
        """Whether a node seems to have a place, as all gateways count; of a model that is not sampled any may."""
        found = self.models.get(model)
        return found is None or found.nodes.free.has_room

    def found_full(self, nodes: Collection[Node]) -> None:
        """All gateways together have as much on `nodes` as those can take."""
        for node in nodes:
            most = node.max_concurrency
            if most is not None and node in self._of:
                self.others[node] = max(self.others.get(node, 0), most - node.in_flight)
                self._put(node)

    def heard(self, others: Mapping[Node, int], tokens: Mapping[Node, int]) -> None:
        """What other gateways have on nodes; nothing on those that are not named."""
        changed = [node for node in {**self.others, **others} if self.others.get(node, 0) != others.get(node, 0)]
        changed += [node for node in {**self.tokens, **tokens} if self.tokens.get(node, 0) != tokens.get(node, 0)]
        self.others, self.tokens = dict(others), dict(tokens)
        for node in changed:
            self._put(node)

    # Where nodes stand

    def reweigh(self) -> None:
        """The rules by which loads are compared have changed."""
        for node in self._of:
            self._put(node)

    def _changed(self, node: Node) -> None:
        """The fleet was told something of `node`."""
        for model in self._crowded.pop(node, ()):
            if node.left or model not in node.cards:  # it may have been the only one that was in the way
                self._resize(model)
        if node.left:
            self._leave(node, self._of.pop(node, ()))
            node.on_load = None
            self.others.pop(node, None)
            self.tokens.pop(node, None)
            for model in tuple(self.models):
                if self._fleet.count_of(model) <= WHOLE:
                    self._resize(model)
            return
        before, is_crowded = self._of.get(node, ()), len(node.cards) > MOST_MODELS
        if is_crowded:
            self._crowded[node] = tuple(node.cards)
        for model in node.cards:
            if (model in self.models) is is_crowded:
                self._resize(model)
        of = tuple([self.models[model] for model in node.cards if model in self.models])
        if of or before:
            self._join(node, of, before)

    def _join(self, node: Node, of: tuple[SampledModel, ...], before: tuple[SampledModel, ...]) -> None:
        left = [model for model in before if model not in of]
        self._leave(node, tuple(left))
        if of:
            self._of[node] = of
            node.on_load = self._put
        else:
            self._of.pop(node, None)
            node.on_load = None
        for model in of:
            model.nodes.join(node, node.name, node.spec.weight)
        if node.busy_until > self._now:
            heapq.heappush(self._busy, (node.busy_until, next(self._numbers), node))
        self._put(node)
        for model in left:
            self._resize(model.name)

    def _leave(self, node: Node, of: tuple[SampledModel, ...]) -> None:
        for model in of:
            model.nodes.leave(node)

    def _resize(self, name: str) -> None:
        """Begin to sample a model that has become large, or stop."""
        model = self.models.get(name)
        if not self._is_sampled(name):
            if model is not None:
                del self.models[name]
                for node in self._fleet.nodes_of(name):
                    before = self._of.get(node, ())
                    self._join(node, tuple([each for each in before if each is not model]), before)
        elif model is None:
            model = self.models[name] = SampledModel(name, self._guess)
            for node in self._fleet.nodes_of(name):
                before = self._of.get(node, ())
                self._join(node, (*before, model), before)

    def _is_sampled(self, name: str) -> bool:
        """Whether the model has many nodes, none of which serves very many models."""
        fleet = self._fleet
        return fleet.count_of(name) > WHOLE and all(len(node.cards) <= MOST_MODELS for node in fleet.nodes_of(name))

    def _put(self, node: Node) -> None:
        of = self._of.get(node)
        if of is None:
            return
        standing = self._standing(node)
        for model in of:
            model.nodes.put(node, standing, self._load(node, model) if standing == FREE else 0.0)

    def _standing(self, node: Node) -> int:
        if node.ready:
            is_busy = node.busy_until > self._now
            if node.in_flight < node.places and not is_busy:
                return FREE
            if node.in_flight >= node.bound:
                return FULL
            return BUSY if is_busy else ROOMY
        if node.drain is not None:
            return DRAINED
        return OUT if node.in_flight < node.bound else OUT_FULL

    def _load(self, node: Node, model: SampledModel) -> float:
        """Seconds by which a request waits longer there than on an idle node; infinite on one that is full."""
        requests, tokens, view = node.in_flight, 0, self._view
        if node.shared and (self.others or self.tokens):
            others, tokens = self.others.get(node, 0), self.tokens.get(node, 0)
            requests += others
            if others and node.bounded and requests >= node.bound:
                return inf
        places = node.places
        crowd = requests / (ROOMY_PLACES if places > ROOMY_PLACES and not node.bounded else places)
        if view.policy(model.name) != EXPECTED_WAIT:
            return crowd / node.spec.weight
        pending = view.pending.get(node.name)
        ahead = tokens if pending is None else pending.ahead + tokens
        if not ahead:
            return crowd * view.load_penalty
        return ahead * (node.speed.pace or model.usual) / node.spec.weight + crowd * view.load_penalty

    # Time

    def _wake(self, now: float) -> None:
        self._now = now
        while self._busy and self._busy[0][0] <= now:
            self._put(heapq.heappop(self._busy)[2])

    def usual_pace(self, model: str, now: float) -> float:
        """Seconds per prompt token of the model's usual node, as measured lately."""
        found = self.models[model]
        if now >= found.usual_until:
            found.usual_until = now + PACE_SECONDS
            found.usual = usual_pace([node.speed.pace for node in self._fleet.nodes_of(model)], self._guess)
        return found.usual
