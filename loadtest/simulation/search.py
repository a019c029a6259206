"""How many nodes and gateways: the fewest that keep what every team wants."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.simulation.fleet import Fleet, Outcome
from loadtest.simulation.teams import NodeFacts, SimulationError, Team

MOST_NODES = 2000


@dataclass(frozen=True, slots=True)
class GatewayCost:
    """CPU of a gateway process in seconds; defaults are of the compiled build with every policy (docs/benchmarks.md).

    `busy` is the share of a core that one process may have on average: arrivals come in crowds.
    """

    request: float = 156e-6
    event: float = 20e-6
    tokens_per_event: float = 1.0
    busy: float = 0.5

    def cores(self, requests: float, tokens: float) -> float:
        """That so many requests and tokens a second take."""
        return requests * self.request + tokens / self.tokens_per_event * self.event

    def processes(self, requests: float, tokens: float) -> int:
        """Two at least, so that one may be replaced or lost."""
        return max(2, math.ceil(self.cores(requests, tokens) / self.busy) + 1)


def misses(outcome: Outcome, teams: Sequence[Team]) -> list[str]:
    """What a fleet does not keep, on average, in words."""
    told = []
    for team in teams:
        seen = outcome.teams[team.name]
        if not seen.first_tokens:
            told.append(f"{team.name}: no turn ended")
        elif seen.first_token() > team.first_token:
            told.append(f"{team.name}: first token after {seen.first_token():.1f} s, wanted in {team.first_token:g}")
        elif seen.rate < team.rate:
            told.append(f"{team.name}: {seen.rate:.1f} tokens/s each, wanted {team.rate:g}")
    return told


def memory_nodes(teams: Sequence[Team], facts: NodeFacts) -> int:
    """Nodes whose memory has room for what all conversations hold, by the planner's figures."""
    return max(1, math.ceil(sum(team.held_gb * team.agents for team in teams) / facts.room_gb))


def fewest_nodes(teams: Sequence[Team], facts: NodeFacts, rounds: int, seed: int) -> tuple[Outcome, list[str]]:
    """The smallest fleet that keeps everything, and what one node fewer misses. Raises SimulationError."""
    least = memory_nodes(teams, facts)
    runs: dict[int, Outcome] = {}

    def keeps(nodes: int) -> bool:
        runs[nodes] = Fleet(teams, facts, nodes, seed).run(rounds)
        return not misses(runs[nodes], teams)

    low, high = least - 1, least
    while not keeps(high):
        agents = sum(team.agents for team in teams)
        if high >= min(MOST_NODES, agents):
            told = "; ".join(misses(runs[high], teams))
            raise SimulationError(f"{high} nodes do not keep it, nor would more ({agents} agents): {told}")
        low, high = high, min(2 * high, MOST_NODES, agents)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    fewer = misses(runs[low], teams) if low in runs else ["the conversations' memory does not fit"] * (low > 0)
    return runs[high], fewer
