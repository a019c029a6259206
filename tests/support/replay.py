"""A trace replayed through the gateway's own placement, against an oracle that sees every cache and every queue.

Nodes are what a routing policy can see of a vLLM: a serial prefill server with a rate, and a prefix cache of blocks
from which the least recently used leaves go first. A trace has the format of the Mooncake project: the time in
milliseconds, prompt and answer lengths in tokens, and a hash for each block of 512 prompt tokens, which stands for
everything up to its end.
"""

import heapq
import json
import os
import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.routing.placement import Placement
from gateway.core.routing.prefill_speed import PrefillSpeed
from gateway.core.routing.selection import (
    EXPECTED_WAIT,
    NOTHING,
    Candidate,
    NodeScore,
    PlacedPrompt,
    PrefillBacklog,
    RandomDraw,
    level,
)
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import NodeSpec
from gateway.routing.candidate_sampler import CandidateSampler
from gateway.routing.peer_loads import SECONDS as PEER_SECONDS

BLOCK = 512
ITL = 0.02
"""Seconds between two tokens of an answer."""

MODEL = "m"
GUESSED_PACE = 1 / 5000
PLACES = 64


class Turn(NamedTuple):
    """One request: seconds, tokens of its prompt and answer, and the hashes of its blocks."""

    at: float
    prompt: int
    answer: int
    blocks: tuple[int, ...]

    @property
    def conversation(self) -> bytes:
        """The second block is the first that tells conversations of one application apart."""
        return self.blocks[min(1, len(self.blocks) - 1)].to_bytes(8, "big")


def find_trace() -> Path | None:
    """The real trace, which is not a part of this repository: ROUTING_TRACE, or where it lies beside a checkout."""
    beside = Path(__file__).parents[2].parent / "shared" / "traces" / "mooncake_conversation.jsonl"
    given = Path(os.environ.get("ROUTING_TRACE", beside))
    return given if given.is_file() else None


def read_trace(path: Path) -> list[Turn]:
    turns = []
    with path.open() as lines:
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            blocks = tuple(told["hash_ids"])
            turns.append(Turn(told["timestamp"] / 1000, told["input_length"], told["output_length"], blocks))
    return turns


def made_trace(requests: int = 2500, seconds: float = 900.0, seed: int = 7) -> list[Turn]:
    """Conversations that grow from turn to turn, of three applications with system prompts of their own."""
    dice, fresh = random.Random(seed), iter(range(1000, 10**9))
    turns: list[Turn] = []
    while len(turns) < requests:
        at = dice.random() * seconds
        blocks = [dice.randrange(3), *(next(fresh) for _ in range(1 + int(dice.expovariate(1 / 12))))]
        for _ in range(1 + int(dice.expovariate(1 / 3))):
            turns.append(Turn(at, len(blocks) * BLOCK, int(dice.expovariate(1 / 350)) + 1, tuple(blocks)))
            at += 20 + dice.expovariate(1 / 40)
            blocks += [next(fresh) for _ in range(1 + int(dice.expovariate(1 / 3)))]
    return sorted(turns[:requests])


@dataclass(slots=True)
class ReplayedNode:
    """A prefix cache of `capacity` blocks, and the time at which the prefill server is free."""

    name: str
    rate: float
    capacity: int
    free: float = 0.0
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    served: int = 0

    def hit(self, blocks: tuple[int, ...]) -> int:
        for count, block in enumerate(blocks):
            if block not in self.cache:
                return count
        return len(blocks)

    def uncached(self, turn: Turn) -> int:
        return max(turn.prompt - self.hit(turn.blocks) * BLOCK, 0)

    def wait(self, turn: Turn) -> float:
        """Seconds until the first byte, if the turn came here: what the oracle sees."""
        return max(0.0, self.free - turn.at) + self.uncached(turn) / self.rate

    def serve(self, turn: Turn) -> float:
        """The time of the first byte."""
        self.free = turn.at + self.wait(turn)
        for block in reversed(turn.blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) > self.capacity:
            self.cache.popitem(last=False)
        self.served += 1
        return self.free


class Outcome(NamedTuple):
    """TTFT in seconds, the share of prompt blocks found in caches, and the requests that each node served."""

    p50: float
    p99: float
    hit_rate: float
    served: dict[str, int]


@dataclass(slots=True)
class ReplayedGateway:
    """One gateway: its placement (shared with others where they share facts), its own counts and its own speeds."""

    placement: Placement
    policy: str
    places: float
    in_flight: dict[str, int] = field(default_factory=dict)
    speeds: dict[str, PrefillSpeed] = field(default_factory=dict)
    turn: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(5))

    def place(self, nodes: Iterable[ReplayedNode], turn: Turn) -> NodeScore:
        self.turn += 1
        prompt = PlacedPrompt(turn.prompt, turn.conversation)
        candidates = self._candidates([node.name for node in nodes])
        chance = RandomDraw(self.turn, self.dice.random())
        choice = self.placement.choose(self.policy, candidates, prompt, chance, turn.at)
        self.placement.add(choice, prompt, turn.at)
        self.in_flight[choice.node] = self.in_flight.get(choice.node, 0) + 1
        return choice

    def first_byte(self, choice: NodeScore, uncached: int, seconds: float) -> None:
        """It came `seconds` after the request was sent; `uncached`: tokens that the node had to compute."""
        self.placement.prefilled(choice)
        self.speeds[choice.node].learn(choice.ahead, uncached, seconds)

    def ended(self, choice: NodeScore) -> None:
        self.in_flight[choice.node] -= 1

    def _candidates(self, names: list[str], usual: float | None = None) -> list[Candidate]:
        speeds = [self.speeds.setdefault(name, PrefillSpeed()).pace for name in names]
        paces = level(speeds, GUESSED_PACE, usual)
        return [
            Candidate(name, pace, self.in_flight.get(name, 0) / self.places)
            for name, pace in zip(names, paces, strict=True)
        ]


@dataclass(slots=True)
class OwnView:
    """What a sampler asks its router for."""

    load_penalty: float = 1.0
    pending: dict[str, PrefillBacklog] = field(default_factory=dict)

    def policy(self, model: str | None) -> str:
        return EXPECTED_WAIT


@dataclass(slots=True)
class SampledGateway(ReplayedGateway):
    """One that looks at a sample of the nodes: the gateway's own sampler, on nodes of its own. What other gateways have
    it hears with the delay of `PeerLoads`; what it judges the sample by is exact, as in Redis."""

    names: tuple[str, ...] = ()
    view: OwnView = field(default_factory=OwnView)
    fleet: Fleet = field(default_factory=Fleet)
    leases: dict[int, Lease] = field(default_factory=dict)
    sampler: CandidateSampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = CandidateSampler(self.fleet, self.view, GUESSED_PACE)
        self.fleet.update([NodeSpec(f"http://{name}") for name in self.names])
        for node in self.fleet.nodes:
            node.shared = True
            node.probe_succeeded({MODEL: {}})

    def place(self, nodes: Iterable[ReplayedNode], turn: Turn) -> NodeScore:
        self.turn += 1
        prompt = PlacedPrompt(turn.prompt, turn.conversation)
        left = self.placement.left(turn.conversation, turn.at)
        last = None if left is None else left.node
        ring = blake2b(turn.conversation, digest_size=16).digest()
        sample = self.sampler.candidates(MODEL, last, ring, self.turn, turn.at)
        usual = self.sampler.usual_pace(MODEL, turn.at)
        candidates = self._candidates([node.name for node in sample], usual)
        choice = self.placement.choose(self.policy, candidates, prompt, RandomDraw(self.turn, 0.0), turn.at)
        self.placement.add(choice, prompt, turn.at)
        before = self.view.pending.get(choice.node, NOTHING)
        self.view.pending[choice.node] = PrefillBacklog(before.tokens + choice.work, before.prompts + 1)
        node = self.fleet.by_name(choice.node)
        assert node is not None
        self.in_flight[choice.node] = self.in_flight.get(choice.node, 0) + 1
        self.leases[id(choice)] = Lease(node)
        return choice

    def first_byte(self, choice: NodeScore, uncached: int, seconds: float) -> None:
        before = self.view.pending[choice.node]
        self.view.pending[choice.node] = PrefillBacklog(before.tokens - choice.work, before.prompts - 1)
        node = self.leases[id(choice)].node
        node.speed.learn(choice.ahead, uncached, seconds)
        self.sampler._put(node)
        super(SampledGateway, self).first_byte(choice, uncached, seconds)

    def ended(self, choice: NodeScore) -> None:
        super(SampledGateway, self).ended(choice)
        self.leases.pop(id(choice)).release()

    def hear(self, team: "Sequence[SampledGateway]") -> None:
        """What the others of the team have now."""
        others: dict[Node, int] = {}
        tokens: dict[Node, int] = {}
        for other in team:
            if other is self:
                continue
            for name, count in other.in_flight.items():
                if count:
                    node = self.fleet.by_name(name)
                    assert node is not None
                    others[node] = others.get(node, 0) + count
            for name, backlog in other.view.pending.items():
                if backlog.tokens:
                    node = self.fleet.by_name(name)
                    assert node is not None
                    tokens[node] = tokens.get(node, 0) + backlog.tokens
        self.sampler.heard(others, tokens)


def superposed(trace: Sequence[Turn], copies: int, seconds: float) -> list[Turn]:
    """As many times the load: copies of the trace, each of other conversations and begun at another time, of which the
    first `seconds` are kept."""
    whole = max(turn.at for turn in trace) + 1.0
    most = max(max(turn.blocks) for turn in trace) + 1
    turns: list[Turn] = []
    for copy in range(copies):
        shift = whole * copy / copies
        for turn in trace:
            at = (turn.at + shift) % whole
            if at < seconds:
                turns.append(turn._replace(at=at, blocks=tuple([block + copy * most for block in turn.blocks])))
    return sorted(turns)


def replay(
    trace: list[Turn],
    policy: str = EXPECTED_WAIT,
    gateways: int = 1,
    shared: bool = True,
    nodes: int = 8,
    rate: float = 8000.0,
    capacity: int = 4000,
    sampled: bool = False,
) -> Outcome:
    """Deal the trace's requests to `gateways` in turn. `shared`: all see the same facts, as through Redis.

    `sampled`: gateways look at a sample of the nodes, not at all.
    `policy` `oracle` sends each request where its first byte will come soonest, knowing everything.
    """
    fleet = {f"node-{i}": ReplayedNode(f"node-{i}", rate, capacity) for i in range(nodes)}
    one = Placement()
    names = tuple(fleet)
    team: list[ReplayedGateway] = []
    samplers: list[SampledGateway] = []
    for _ in range(gateways):
        placement = one if shared else Placement()
        if sampled:
            samplers.append(SampledGateway(placement, policy, PLACES / gateways, names=names))
            team.append(samplers[-1])
        else:
            team.append(ReplayedGateway(placement, policy, PLACES / gateways))
    heard_at = 0.0
    ahead: list[tuple[float, int, ReplayedGateway, NodeScore, float, int]] = []
    running: list[tuple[float, int, ReplayedGateway, NodeScore]] = []
    ttft, hits, blocks = [], 0, 0
    for number, turn in enumerate(trace):
        while ahead and ahead[0][0] <= turn.at:
            at, _, gateway, choice, sent, uncached = heapq.heappop(ahead)
            gateway.first_byte(choice, uncached, at - sent)
        while running and running[0][0] <= turn.at:
            _, _, gateway, choice = heapq.heappop(running)
            gateway.ended(choice)
        if len(samplers) > 1 and turn.at >= heard_at + PEER_SECONDS:
            heard_at = turn.at
            for each in samplers:
                each.hear(samplers)
        if policy == "oracle":
            node = min(fleet.values(), key=lambda node: node.wait(turn))
        else:
            gateway = team[number % gateways]
            choice = gateway.place(fleet.values(), turn)
            node = fleet[choice.node]
        hits, uncached = hits + node.hit(turn.blocks), node.uncached(turn)
        blocks += len(turn.blocks)
        first = node.serve(turn)
        ttft.append(first - turn.at)
        if policy != "oracle":
            heapq.heappush(ahead, (first, number, gateway, choice, turn.at, uncached))
            heapq.heappush(running, (first + turn.answer * ITL, number, gateway, choice))
    ttft.sort()
    served = {node.name: node.served for node in fleet.values()}
    return Outcome(ttft[len(ttft) // 2], ttft[int(0.99 * len(ttft))], hits / blocks, served)
