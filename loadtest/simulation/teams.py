"""Teams and nodes as `fleetgate-worker plan --json` tells them: workloads, speeds, memory and prices are its own."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.stage import WORKER

PLAN_SECONDS = 120.0


class SimulationError(Exception):
    """What is asked for cannot be simulated; says why."""


@dataclass(frozen=True, slots=True)
class Team:
    """One tenant's agents: fields as `--workload` has them. `cached` is in tokens, times in seconds.

    `held_gb` is what a node's memory holds for one of its agents, of `NodeFacts.room_gb`.
    """

    name: str
    agents: int
    turns: int
    input: float
    cached: float
    output: float
    pause: float
    spread: float
    first_token: float
    rate: float
    hours: float
    held_gb: float = 0.0

    @property
    def fresh(self) -> float:
        """Prompt tokens of a turn that are computed."""
        return max(1.0, self.input - self.cached)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: prompt tokens a second, (answers at once, tokens a second of each), places, GB for sequences."""

    prefill: float
    decode: tuple[tuple[float, float], ...]
    places: int
    room_gb: float = float("inf")
    sources: tuple[str, ...] = ()
    """Where the speeds come from, for people."""

    def rate(self, users: float) -> float:
        """Tokens a second of each of `users` answers, as docs/planning.md reads the points: between two of them a
        token's time is a straight line, beyond the last one the total stays."""
        (few, fast), (many, slow) = self.decode[0], self.decode[-1]
        if users <= few:
            return fast
        if users >= many:
            return many * slow / users
        for (low, at_low), (high, at_high) in zip(self.decode, self.decode[1:], strict=False):
            if users <= high:
                share = (users - low) / (high - low)
                return 1 / ((1 - share) / at_low + share / at_high)
        return slow


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of the planner: a profile, and options that it takes (`--decode`, `--prefill-rate`, prices)."""

    profile: str
    options: tuple[str, ...] = ()


def read_teams(given: Sequence[str], asked: Asked) -> tuple[list[Team], NodeFacts]:
    """Teams from `NAME=WORKLOAD` options, and a node. Raises SimulationError.

    The planner takes the measurement that is nearest to a workload. Of several teams the slowest node counts.
    """
    teams: list[Team] = []
    nodes: list[NodeFacts] = []
    for text in given:
        name, sign, workload = text.partition("=")
        if not sign or not name or any(team.name == name for team in teams):
            raise SimulationError(f"--team: {text!r} is not NAME=WORKLOAD, each name once")
        plan = ask_planner(asked, "--workload", workload)
        teams.append(_team(name, plan))
        nodes.append(_node(plan))
    slowest = min(nodes, key=lambda node: node.rate(node.places))
    return teams, slowest


def ask_planner(asked: Asked, *more: str) -> dict[str, Any]:
    """The plan of one workload. Raises SimulationError with the planner's own words."""
    argv = [str(WORKER), "plan", asked.profile, *asked.options, *more, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PLAN_SECONDS)
    try:
        [plan] = json.loads(done.stdout)
    except ValueError:
        raise SimulationError((done.stderr or done.stdout).strip()) from None
    found: dict[str, Any] = plan
    return found


def _team(name: str, plan: dict[str, Any]) -> Team:
    workload, busiest = plan["workload"], plan["busiest_node"]
    fields = {key: workload[key] for key in ("agents", "turns", "input", "output", "pause", "spread", "hours")}
    cached = workload["cached"] * (workload["input"] if workload["cached"] <= 1 else 1)
    wanted = {key: workload[key] for key in ("first_token", "rate")}
    return Team(name, **fields, **wanted, cached=cached, held_gb=busiest["held_gb"] / busiest["agents"])


def _node(plan: dict[str, Any]) -> NodeFacts:
    speed = plan["speed"]
    points = tuple((point["users"], point["rate"]) for point in speed["decode"])
    return NodeFacts(
        speed["prefill_tokens_per_second"], points, speed["places"], plan["busiest_node"]["room_gb"], _sources(speed)
    )


def _sources(speed: dict[str, Any]) -> tuple[str, ...]:
    decode = ", ".join(f"{point['users']:g} at {point['rate']:.1f}" for point in speed["decode"])
    prefill = f"{speed['prefill_tokens_per_second']:,.0f} tokens/s: {speed['prefill_source']}"
    return f"Prefill {prefill}.", f"Decode {decode} tokens/s each: {speed['decode_source']}."
