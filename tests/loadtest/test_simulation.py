"""The simulated fleet against the engines of fake nodes in virtual time, live behind a gateway, and against itself.

pytest -m prove -s tests/loadtest/test_simulation.py
"""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from loadtest.simulation.fleet import Fleet, Outcome
from loadtest.simulation.search import GatewayCost, fewest_nodes, misses
from loadtest.simulation.teams import Asked, NodeFacts, SimulationError, Team, read_teams
from tests.support.fleet_simulation import simulate_teams
from tests.support.live_fleet import LiveCase, play
from workers.workload.speed import DecodePoint, NodeSpeed
from workers.workload.workload import Workload

PLENTY = 10_000
ALWAYS = 1_000_000
"""Turns of a conversation that has begun before the run: its prefix is in the cache each time."""
TALK: dict[str, Any] = {"pause": 20, "input": 160, "cached": 128, "output": 100}
CASES: dict[str, tuple[list[dict[str, Any]], float, float, int]] = {
    "one team, a quarter busy": ([TALK | {"agents": 8}], 100, 20, PLENTY),
    "one team, busy": ([TALK | {"agents": 20, "pause": 10}], 50, 20, PLENTY),
    "one team, overloaded": ([TALK | {"agents": 40, "pause": 10}], 40, 20, PLENTY),
    "two teams, busy": (
        [TALK | {"agents": 10, "pause": 10}, {"agents": 6, "pause": 30, "input": 400, "cached": 320, "output": 300}],
        60, 20, PLENTY,
    ),
    "two teams, few places": (
        [TALK | {"agents": 10, "pause": 10}, {"agents": 6, "pause": 30, "input": 80, "output": 400}],
        1000, 20, 8,
    ),
}  # fmt: skip


def team(workload: Workload, name: str = "team", turns: int = ALWAYS) -> Team:
    return Team(
        name, workload.agents, turns, workload.input, workload.cached_tokens, workload.output, workload.pause,
        workload.spread, workload.first_token, workload.rate, workload.hours,
    )  # fmt: skip


def node(prefill: float, rate: float, places: int = PLENTY) -> NodeFacts:
    return NodeFacts(prefill, ((PLENTY, rate),), places)


@pytest.mark.parametrize("spread", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_it_agrees_with_the_engines_of_fake_nodes(case: str, spread: float) -> None:
    """docs/loadtest.md tells these errors. 80 ms are a thousandth of a turn with few places: few turns wait there."""
    fields, prefill, rate, places = CASES[case]
    workloads = [Workload(**each, spread=spread) for each in fields]
    teams = [team(workload, f"team{number}") for number, workload in enumerate(workloads)]
    rounds = 4000 // sum(workload.agents for workload in workloads)
    seen = simulate_teams(workloads, prefill, rate, places, nodes=1, rounds=rounds)
    outcome = Fleet(teams, node(prefill, rate, places), 1).run(rounds)
    for each, real in zip(teams, seen, strict=True):
        told = outcome.teams[each.name]
        print(
            f"{case}, spread {spread}, {each.name}: first token {told.first_token():.2f} s ({real.first_token:.2f}, "
            f"{told.first_token() / real.first_token - 1:+.1%}), turns/s {outcome.turns_per_second(each.name):.3f} "
            f"({outcome.turns_per_second(each.name) / real.turns_per_second - 1:+.1%})"
        )
        assert told.first_token() == pytest.approx(real.first_token, rel=0.12, abs=0.08)
        assert outcome.turns_per_second(each.name) == pytest.approx(real.turns_per_second, rel=0.05)
    assert outcome.running == pytest.approx(seen[0].mean_running, rel=0.08)


def test_a_nodes_rate_is_the_planners() -> None:
    """It is written twice, as neither package knows the other: here they are held together."""
    points = ((4.0, 60.0), (16.0, 45.0), (64.0, 20.0))
    planned = NodeSpeed(1.0, tuple(DecodePoint(*point) for point in points), 64, "", "")
    simulated = NodeFacts(1.0, points, 64)
    for users in (1, 4, 5, 15.5, 16, 40, 64, 200):
        assert simulated.rate(users) == pytest.approx(planned.rate(users))


def test_answers_slow_down_as_they_become_more() -> None:
    """Eight answers that begin together at 100 tokens/s shared by all: each gets an eighth."""
    facts = NodeFacts(1e9, ((1.0, 100.0),), PLENTY)
    crowd = replace(team(Workload(agents=8, input=1, output=50, pause=0, spread=0)))
    outcome = Fleet([crowd], facts, 1).run(40)
    assert outcome.teams["team"].whole() == pytest.approx(8 * 50 / 100, rel=0.02)
    assert outcome.turns_per_second("team") == pytest.approx(2.0, rel=0.02)


def test_the_fewest_nodes_keep_what_is_wanted_and_one_fewer_does_not() -> None:
    teams = [
        team(Workload(agents=60, pause=10, input=640, cached=512, output=100, first_token=1.5, rate=10), "agents"),
        team(Workload(agents=30, pause=5, input=200, output=200, first_token=2.0, rate=10), "chat"),
    ]
    outcome, fewer = fewest_nodes(teams, node(300, 20), rounds=30, seed=1)
    assert misses(outcome, teams) == [] and fewer
    assert misses(Fleet(teams, node(300, 20), outcome.nodes - 1).run(30), teams) == fewer


def test_what_no_fleet_can_keep_is_refused() -> None:
    slow = team(Workload(agents=4, input=1000, output=10, first_token=1.0, rate=1))
    with pytest.raises(SimulationError, match="4 nodes do not keep it, nor would more"):
        fewest_nodes([slow], node(100, 20), rounds=10, seed=1)


def test_memory_is_a_bound_of_its_own() -> None:
    held = replace(team(Workload(agents=10, input=10, output=10)), held_gb=3.0)
    outcome, fewer = fewest_nodes([held], replace(node(1e6, 50), room_gb=10.0), rounds=10, seed=1)
    assert (outcome.nodes, fewer) == (3, ["the conversations' memory does not fit"])


def test_a_new_conversation_finds_no_cache_and_an_old_one_goes_home() -> None:
    def at_home(turns: int) -> float:
        talks = team(Workload(agents=12, pause=10, input=640, cached=512, output=100, spread=0), turns=turns)
        outcome = Fleet([talks], node(2000, 20), 3).run(60)
        return outcome.teams["team"].at_home / len(outcome.teams["team"].first_tokens)

    assert at_home(ALWAYS) > 0.99
    assert at_home(4) == pytest.approx(0.75, abs=0.03)


def test_a_run_is_the_same_for_its_seed() -> None:
    talks = team(Workload(agents=12, **TALK))

    def waits(seed: int) -> list[float]:
        return Fleet([talks], node(100, 20), 2, seed).run(20).teams["team"].first_tokens

    assert waits(1) == waits(1) != waits(2)


def test_gateways_are_counted_by_their_cpu() -> None:
    cost = GatewayCost()
    assert cost.processes(1, 100) == 2
    assert cost.processes(100, 100_000) == 6  # 2.02 cores at half of each, and one that may be away


def test_the_command_tells_nodes_waits_and_dollars() -> None:
    argv = ["--team", "code=coding-agents,agents=20", "--team", "chat=chat,agents=30", "--rounds", "8", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.simulate", *argv, "--", "--as-of", "2026-11-30"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["misses"] == [] and told["nodes"] >= 1 and told["gateways"] >= 2
    assert {each["name"] for each in told["teams"]} == {"code", "chat"}
    assert told["mixes"][0]["steady"] == told["nodes"] and told["mixes"][0]["usd_per_month"] > 0
    assert told["mixes"][-1]["steady"] == 0 and told["mixes"][-1]["usd_per_month"] < told["mixes"][0]["usd_per_month"]


@pytest.mark.parametrize(
    ("teams", "profile", "said"),
    [
        (["chat"], "nemotron-3-ultra-8xh200-nvfp4", "is not NAME=WORKLOAD"),
        (["a=chat", "a=chat"], "nemotron-3-ultra-8xh200-nvfp4", "each name once"),
        (["a=chart"], "nemotron-3-ultra-8xh200-nvfp4", "'chart' is not a file"),
        (["a=chat"], "nemotron-9", "nemotron-9"),
    ],
)
def test_what_cannot_be_read_is_said(teams: list[str], profile: str, said: str) -> None:
    with pytest.raises(SimulationError, match=said):
        read_teams(teams, Asked(profile))


LIVE = {
    "half busy": LiveCase(agents=24, nodes=3, pause=4.0, fresh=600, shared=1200, output=100, prefill=1500, rate=50),
    "busy": LiveCase(agents=48, nodes=3, pause=4.0, fresh=600, shared=1200, output=100, prefill=1500, rate=50),
    "more than it takes": LiveCase(
        agents=48, nodes=3, pause=1.0, fresh=900, shared=1200, output=60, prefill=1500, rate=50
    ),
}


@pytest.mark.prove
@pytest.mark.parametrize("case", LIVE)
async def test_it_agrees_with_a_live_fleet(case: str) -> None:
    """A minute of agents through a gateway to three fake nodes; the prompt's lengths and cached part as they were.

    Conversations of one turn have that part wherever they go: what was seen holds all that went elsewhere already.
    """
    live = LIVE[case]
    seen = await play(live, seconds=60)
    agents = Workload(
        agents=live.agents, input=seen.input, cached=min(seen.cached, seen.input), output=live.output, pause=live.pause,
        spread=0,
    )  # fmt: skip
    outcome: Outcome = Fleet([team(agents, turns=1)], node(live.prefill, live.rate), live.nodes).run(60)
    told = outcome.teams["team"]
    print(
        f"{case}: first token {told.first_token():.2f} s ({seen.first_token:.2f} seen, "
        f"{told.first_token() / seen.first_token - 1:+.0%}), turns/s {outcome.turns_per_second('team'):.2f} "
        f"({seen.turns_per_second:.2f}, {outcome.turns_per_second('team') / seen.turns_per_second - 1:+.0%})"
    )
    assert told.first_token() == pytest.approx(seen.first_token, rel=0.35)
    assert outcome.turns_per_second("team") == pytest.approx(seen.turns_per_second, rel=0.10)
