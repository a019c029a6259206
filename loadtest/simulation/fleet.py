"""A fleet in virtual time: agents of several teams, a gateway that knows where each conversation was, a fair queue.

The choice is the gateway's (docs/routing.md): the node with the least expected wait, of which the prompt's uncached
part is one. Where all are full the teams take turns. What it leaves out is in docs/loadtest.md.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtest.simulation.node import NEVER, Node, Turn
from loadtest.simulation.teams import NodeFacts, Team

WARM_UP = 1 / 6
LOAD_PENALTY = 1.0
"""Seconds of waiting that a full node is worse by than an empty one: `routing.load_penalty`."""


@dataclass(slots=True)
class Seen:
    """What one team's agents saw behind the warm-up, in seconds."""

    first_tokens: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    at_home: int = 0

    def first_token(self, share: float | None = None) -> float:
        """On average, or a quantile."""
        return _of(self.first_tokens, share)

    def whole(self, share: float | None = None) -> float:
        """To the last token, on average or a quantile."""
        return _of(self.wholes, share)

    @property
    def rate(self) -> float:
        """Tokens a second of an answer, on average."""
        return _of(self.rates, None)


@dataclass(slots=True)
class Outcome:
    """A fleet of `nodes` over `seconds` behind the warm-up; `running` is its requests on average."""

    nodes: int
    seconds: float
    teams: dict[str, Seen]
    running: float = 0.0

    def turns_per_second(self, name: str) -> float:
        """That a team's agents complete."""
        return len(self.teams[name].first_tokens) / self.seconds


class Fleet:
    """One run: `rounds` turns of each agent or more, and at least `least` seconds."""

    def __init__(self, teams: Sequence[Team], facts: NodeFacts, nodes: int, seed: int = 1) -> None:
        self._teams = teams
        self._nodes = [Node(facts) for _ in range(nodes)]
        self._facts = facts
        self._dice = random.Random(seed)
        self._due: list[tuple[float, int, Team, int]] = []
        self._last: dict[tuple[str, int], Node] = {}
        self._left: dict[tuple[str, int], int] = {}
        self._queues: dict[str, deque[Turn]] = {team.name: deque() for team in teams}
        self._numbers = itertools.count()

    def run(self, rounds: int = 60) -> Outcome:
        """All of it, in the time of its events."""
        length = max(self._turn_seconds(team) for team in self._teams) * rounds
        warm = length * WARM_UP
        outcome = Outcome(len(self._nodes), length - warm, {team.name: Seen() for team in self._teams})
        for team in self._teams:
            for agent in range(team.agents):
                self._ask_later(team, agent, self._dice.random() * self._turn_seconds(team))
        now = 0.0
        while now < length:
            node = min(self._nodes, key=lambda each: each.next_event(now))
            then = min(node.next_event(now), self._due[0][0] if self._due else NEVER)
            if now >= warm:
                running = sum(each.running for each in self._nodes) + sum(map(len, self._queues.values()))
                outcome.running += running * (min(then, length) - now) / outcome.seconds
            now = then
            if self._due and self._due[0][0] <= now:
                _, _, team, agent = heapq.heappop(self._due)
                self._ask(team, agent, now)
                continue
            for turn in node.advance(now):
                self._note(turn, outcome, warm <= now < length)
                pause = self._dice.expovariate(1 / turn.team.pause) if turn.team.pause else 0.0
                self._ask_later(turn.team, turn.agent, now + pause)
                self._serve_queue(now)
        return outcome

    def _turn_seconds(self, team: Team) -> float:
        """Of a team's turn, at least: with no other there, or with the whole fleet at its limits."""
        alone = team.pause + team.fresh / self._facts.prefill + team.output / self._facts.rate(1)
        agents = sum(each.agents for each in self._teams)
        work = sum(each.agents * each.fresh for each in self._teams) / agents / self._facts.prefill
        return max(alone, work * agents / len(self._nodes))

    def _ask_later(self, team: Team, agent: int, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), team, agent))

    def _ask(self, team: Team, agent: int, now: float) -> None:
        """A conversation that has had its turns makes room for a new one, whose prompt nobody knows."""
        left = self._left.get((team.name, agent), 0)
        if not left:
            self._last.pop((team.name, agent), None)
            left = team.turns
        self._left[team.name, agent] = left - 1
        fresh, output = self._drawn(team.fresh, team.spread), team.output
        turn = Turn(team, agent, now, fresh, fresh + team.cached, output)
        if any(self._queues.values()) or not self._serve(turn, now):
            self._queues[team.name].append(turn)

    def _serve(self, turn: Turn, now: float) -> bool:
        free = [node for node in self._nodes if not node.is_full]
        if not free:
            return False
        key = (turn.team.name, turn.agent)
        last = self._last.get(key)
        # A conversation of one turn shares nothing with itself: its cached part is what all of the team have.
        known = turn.team.turns == 1

        def cost(node: Node) -> float:
            tokens = turn.fresh if known or node is last else turn.alone
            return node.wait(now) + tokens / self._facts.prefill + LOAD_PENALTY * node.running / self._facts.places

        best = min(free, key=cost)
        turn.home = known or best is last
        best.begin(turn, turn.fresh if turn.home else turn.alone, now)
        self._last[key] = best
        return True

    def _serve_queue(self, now: float) -> None:
        """The team with the fewest agents served of late goes first: here they simply take turns."""
        for name, queue in list(self._queues.items()):
            if queue and self._serve(queue[0], now):
                queue.popleft()
                self._queues[name] = self._queues.pop(name)  # to the end of the order
                return

    def _note(self, turn: Turn, outcome: Outcome, counts: bool) -> None:
        if not counts:
            return
        seen = outcome.teams[turn.team.name]
        seen.first_tokens.append(turn.first - turn.asked)
        seen.wholes.append(turn.ended - turn.asked)
        seen.rates.append(max(1.0, turn.output - 1) / max(1e-9, turn.ended - turn.first))
        seen.at_home += turn.home

    def _drawn(self, mean: float, spread: float) -> float:
        """A gamma number: all alike where `spread` is 0, exponential where it is 1."""
        return max(1.0, self._dice.gammavariate(1 / spread**2, mean * spread**2)) if spread else mean


def _of(values: list[float], share: float | None) -> float:
    if not values:
        return math.nan
    if share is None:
        return sum(values) / len(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
