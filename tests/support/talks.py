"""Agents that talk in turns while the fleet changes, on a simulated clock: `loadtest/agents.py` in milliseconds.

Nodes are what routing can see of a vLLM: a serial prefill server, and a prefix cache that is large enough. All agents
share one system prompt. Halfway a node is taken away and another one, which is cold, is added. The policies beside the
gateway's own are those of vllm-router, as far as this load meets them: its `cache_aware` remembers sessions and sends
those that it does not know where the longest prefix is, so the node that saw the first system prompt gets them all.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import EXPECTED_WAIT, Candidate, NodeScore, PlacedPrompt, RandomDraw, rendezvous

BLOCK = 64
RATE = 8000.0
"""Prompt tokens a second."""
PLACES = 32
SESSIONS, TURNS = 32, 8
SYSTEM, USER, ANSWER = 2000, 505, 65
"""Tokens, with those of the chat template around them."""
ANSWER_SECONDS, PAUSE = 1.0, 2.0


@dataclass(slots=True)
class TalkNode:
    name: str
    free: float = 0.0
    running: int = 0
    answered: int = 0
    cache: set[tuple[int, int]] = field(default_factory=set)


class Policy(Protocol):
    """Chooses among nodes for a session's prompt of `tokens`."""

    def choose(self, nodes: Sequence[TalkNode], session: int, tokens: int, now: float) -> str: ...
    def prefilled(self, session: int) -> None:
        """The first byte came of what was chosen last for the session."""


class ExpectedWait:
    """The gateway's own functions. A conversation has one request at a time here."""

    def __init__(self) -> None:
        self._placement = Placement()
        self._placed: dict[int, NodeScore] = {}
        self.moved = 0
        """Turns that went elsewhere although the conversation's last node was there."""

    def choose(self, nodes: Sequence[TalkNode], session: int, tokens: int, now: float) -> str:
        prompt = PlacedPrompt(tokens, b"%d" % session)
        left = self._placement.left(prompt.conversation, now)
        candidates = [Candidate(node.name, 1 / RATE, node.running / PLACES) for node in nodes]
        placed = self._placement.choose(EXPECTED_WAIT, candidates, prompt, RandomDraw(0, 0.0), now)
        self._placement.add(placed, prompt, now)
        self._placed[session] = placed
        self.moved += placed.reason == "moved" and left is not None and left.node in {node.name for node in nodes}
        return placed.node

    def prefilled(self, session: int) -> None:
        self._placement.prefilled(self._placed[session])


class ConsistentHash:
    def choose(self, nodes: Sequence[TalkNode], session: int, tokens: int, now: float) -> str:
        return rendezvous([Candidate(node.name, 1.0) for node in nodes], b"%d" % session)[0].name

    def prefilled(self, session: int) -> None: ...


class PowerOfTwo:
    def __init__(self) -> None:
        self._dice = random.Random(3)

    def choose(self, nodes: Sequence[TalkNode], session: int, tokens: int, now: float) -> str:
        return min(self._dice.sample(list(nodes), 2), key=lambda node: node.running).name

    def prefilled(self, session: int) -> None: ...


class CacheAware:
    def __init__(self) -> None:
        self._sessions: dict[int, str] = {}
        self._opening: str | None = None

    def choose(self, nodes: Sequence[TalkNode], session: int, tokens: int, now: float) -> str:
        there = {node.name for node in nodes}
        if self._opening not in there:
            self._opening = min(nodes, key=lambda node: node.running).name
        known = self._sessions.get(session)
        self._sessions[session] = known if known in there and known is not None else self._opening
        return self._sessions[session]

    def prefilled(self, session: int) -> None: ...


@dataclass(slots=True)
class Talked:
    """TTFT of every request in seconds, prompt tokens and those of them that were cached, and the answers of the node
    that was added."""

    ttft: list[float] = field(default_factory=list)
    prompt: int = 0
    cached: int = 0
    by_new_node: int = 0

    def quantile(self, share: float) -> float:
        waits = sorted(self.ttft)
        return waits[min(int(share * len(waits)), len(waits) - 1)]


class Talks:
    """All conversations of one run."""

    def __init__(self, policy: Policy, seed: int, leaves: int) -> None:
        """Of the four nodes that there are in the beginning the one numbered `leaves` is taken away."""
        self._policy = policy
        self._seed = seed
        self._nodes = [TalkNode(f"10.0.0.{number}:8000") for number in range(4)]
        self._leaves, self._comes = self._nodes[leaves], TalkNode("10.0.0.4:8000")
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._turns = itertools.count(1)
        self._talked = Talked()

    def run(self) -> Talked:
        for session in range(SESSIONS):
            dice = random.Random(self._seed * 1000 + session)
            self._at(dice.random() * PAUSE * 2, lambda now, s=session, d=dice: self._ask(now, s, d, 0))  # type: ignore[misc]
        while self._due:
            now, _, what = heapq.heappop(self._due)
            what(now)
        self._talked.by_new_node = self._comes.answered
        return self._talked

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), what))

    def _ask(self, now: float, session: int, dice: random.Random, turn: int) -> None:
        tokens = SYSTEM + USER + turn * (USER + ANSWER)
        name = self._policy.choose(self._nodes, session, tokens, now)
        node = next(node for node in self._nodes if node.name == name)
        blocks = [(-1 if at < SYSTEM // BLOCK else session, at) for at in range((tokens - 1) // BLOCK)]
        cached = BLOCK * sum(1 for _ in itertools.takewhile(node.cache.__contains__, blocks))
        node.free = max(now, node.free) + (tokens - cached) / RATE
        node.running += 1
        self._talked.ttft.append(node.free - now)
        self._talked.prompt += tokens
        self._talked.cached += cached

        def begun(now: float) -> None:
            node.cache.update(blocks)
            self._policy.prefilled(session)
            self._at(now + ANSWER_SECONDS, ended)

        def ended(now: float) -> None:
            node.running -= 1
            node.answered += 1
            if next(self._turns) == SESSIONS * TURNS // 2:
                self._nodes.remove(self._leaves)
                self._nodes.append(self._comes)
            if turn + 1 < TURNS:
                pause = dice.expovariate(1 / PAUSE)
                self._at(now + pause, lambda now: self._ask(now, session, dice, turn + 1))

        self._at(node.free, begun)
