"""Capacity before money: so many teams of so many agents, in virtual time, on nodes that nobody has rented yet.

    python -m loadtest.simulate --team acme=coding-agents,agents=60 --team chat=chat,agents=200 \\
        --profile nemotron-3-ultra-8xh200-nvfp4 [--nodes 6] [--json]

A team is NAME=WORKLOAD, where WORKLOAD is what `fleetgate-worker plan --workload` takes (docs/planning.md). Without
--nodes the fewest are looked for that keep every team's first_token and rate. Speeds, memory and prices are the
planner's; options behind `--` are handed to it: `-- --decode 10:60 --decode 40:30 --prefill-rate 20000 --price 3.10`.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest import results
from loadtest.simulation.fleet import Fleet, Outcome
from loadtest.simulation.search import GatewayCost, fewest_nodes, memory_nodes, misses
from loadtest.simulation.teams import Asked, SimulationError, Team, ask_planner, read_teams


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--team", action="append", required=True, metavar="NAME=WORKLOAD")
    parser.add_argument("--profile", default="nemotron-3-ultra-8xh200-nvfp4")
    parser.add_argument("--nodes", type=int, help="this many, instead of the fewest")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each agent; more are slower and smoother")
    parser.add_argument("--tokens-per-event", type=float, default=1.0, help="of the nodes' streams, with MTP about 2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("planner", nargs="*", help="options of `fleetgate-worker plan`, behind --")
    options = parser.parse_args(arguments)
    try:
        if options.nodes is not None and options.nodes < 1:
            raise SimulationError(f"--nodes must be at least 1, not {options.nodes}")
        if options.rounds < 6:
            raise SimulationError(f"--rounds must be at least 6, not {options.rounds}: a sixth is warm-up")
        told = simulate(options)
    except (SimulationError, OSError) as error:
        sys.exit(f"simulate: {error}")
    if options.json:
        print(json.dumps(told, indent=1))
    else:
        show(results.console(), told)


def simulate(options: argparse.Namespace) -> dict[str, Any]:
    """The fleet, what each team sees of it, and what it costs. Raises SimulationError."""
    asked = Asked(options.profile, tuple(options.planner))
    teams, facts = read_teams(options.team, asked)
    fewer: list[str] = []
    if options.nodes is None:
        outcome, fewer = fewest_nodes(teams, facts, options.rounds, options.seed)
    else:
        outcome = Fleet(teams, facts, options.nodes, options.seed).run(options.rounds)
    gateway = GatewayCost(tokens_per_event=options.tokens_per_event)
    turns = {team.name: outcome.turns_per_second(team.name) for team in teams}
    tokens = sum(turns[team.name] * team.output for team in teams)
    plan = ask_planner(asked, "--workload", _together(teams, turns), "--nodes", str(outcome.nodes))
    missed = misses(outcome, teams)
    if memory_nodes(teams, facts) > outcome.nodes:
        missed.append("the conversations' memory does not fit")
    return {
        "profile": options.profile,
        "nodes": outcome.nodes,
        "one_fewer_misses": fewer,
        "misses": missed,
        "running": outcome.running,
        "teams": [_team(team, outcome, turns[team.name]) for team in teams],
        "gateways": gateway.processes(sum(turns.values()), tokens),
        "gateway_cores": gateway.cores(sum(turns.values()), tokens),
        "tokens_per_second": tokens,
        "mixes": plan["mixes"],
        "preemption": plan["preemption"],
        "prices": plan["prices"],
        "sources": facts.sources,
        "apis": plan["apis"],
    }


def _together(teams: Sequence[Team], turns: dict[str, float]) -> str:
    """All teams as one workload, for its costs: the average turn. Targets that no fleet can miss."""
    total = sum(turns.values()) or 1.0
    mean = {
        key: sum(turns[team.name] * getattr(team, key) for team in teams) / total
        for key in ("input", "cached", "output", "pause")
    }
    agents, hours = sum(team.agents for team in teams), max(team.hours for team in teams)
    long = max(1, round(min(team.turns for team in teams)))
    fields = {**mean, "agents": agents, "turns": long, "hours": hours, "first_token": 99_999, "rate": 0.001}
    if 0 < fields["cached"] <= 1:
        fields["cached"] = 0.0  # so few tokens would be read as a share
    return ",".join(f"{key}={value:g}" if key != "input" else f"{key}={value:.6f}" for key, value in fields.items())


def _team(team: Team, outcome: Outcome, turns: float) -> dict[str, Any]:
    seen = outcome.teams[team.name]
    return {
        "name": team.name,
        "agents": team.agents,
        "turns_per_second": turns,
        "first_token": {"mean": seen.first_token(), **{f"p{q}": seen.first_token(q / 100) for q in (50, 90, 99)}},
        "end_to_end": {"mean": seen.whole(), **{f"p{q}": seen.whole(q / 100) for q in (50, 90, 99)}},
        "rate": seen.rate,
        "at_home": seen.at_home / max(1, len(seen.first_tokens)),
        "wanted": {"first_token": team.first_token, "rate": team.rate},
    }


def show(console: Console, told: dict[str, Any]) -> None:
    """For people."""
    gateways = f"{told['gateways']} gateway processes ({told['gateway_cores']:.2f} cores)"
    console.print(f"{told['nodes']} nodes of {told['profile']}, {gateways}; {told['running']:.1f} requests at once")
    for line in told["misses"]:
        console.print(f"  missed: {line}", style="red")
    for line in told["one_fewer_misses"]:
        console.print(f"  one node fewer: {line}")
    table = Table("team", title="What each team sees, s", title_justify="left")
    for head in (
        "agents",
        "turns/s",
        "TTFT mean",
        "p50",
        "p99",
        "wanted",
        "whole p50",
        "p99",
        "tokens/s each",
        "wanted",
        "at home",
    ):
        table.add_column(head, justify="right")
    for team in told["teams"]:
        first, whole, wanted = team["first_token"], team["end_to_end"], team["wanted"]
        table.add_row(
            team["name"],
            str(team["agents"]),
            f"{team['turns_per_second']:.2f}",
            *(f"{first[key]:.2f}" for key in ("mean", "p50", "p99")),
            f"{wanted['first_token']:g}",
            *(f"{whole[key]:.1f}" for key in ("p50", "p99")),
            f"{team['rate']:.1f}",
            f"{wanted['rate']:g}",
            f"{team['at_home']:.0%}",
        )
    console.print(table)
    console.print(
        f"prefill {told['speed']['prefill_tokens_per_second']:,.0f} tokens/s: {told['speed']['prefill_source']}"
    )
    console.print(f"decode: {told['speed']['decode_source']}")
    _show_money(console, told)


def _show_money(console: Console, told: dict[str, Any]) -> None:
    if not told["mixes"]:
        console.print("No price is known of this machine: give one behind --, as --price.")
        return
    table = Table("fleet", title="A month, US dollars", title_justify="left")
    for head in ("$/month", "$ per million output tokens", "left without spot"):
        table.add_column(head, justify="right")
    steady = next((price["kind"] for price in told["prices"] if price["kind"] != "spot"), "")
    month = told["tokens_per_second"] * 3600 * 730 / 1e6
    for mix in told["mixes"]:
        parts = [f"{mix['steady']} {steady}"] if mix["steady"] else []
        parts += [f"{mix['spot'] + mix['spares']} spot ({mix['spares']} spare)"] if mix["spot"] else []
        each = mix["usd_per_month"] / month if month else math.nan
        table.add_row(" + ".join(parts), f"{mix['usd_per_month']:,.0f}", f"{each:.2f}", f"{mix['left']:.0%}")
    console.print(table)
    for price in told["prices"]:
        console.print(
            f"price {price['kind']}: {price['usd_per_gpu_hour']:g} $ a GPU hour, {price['source']}, {price['date']}"
        )


if __name__ == "__main__":
    main()
