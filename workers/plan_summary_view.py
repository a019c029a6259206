"""Plans in one table on the terminal, what to start with, and what we would run in place of some."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from workers.plan import Plan, ranked, usd_per_million
from workers.plan_view import LEAN, VERDICTS_SHOWN, known, price_lines, whole


def print_summary(console: Console, plans: Iterable[Plan]) -> None:
    """One line per profile, by what fits, role and dollars a million tokens; then what to start with."""
    rows = ranked(plans)
    table = Table(title="Memory in GB, cost in US dollars", title_justify="left", **LEAN)
    for column in ("profile", "role", "fits"):
        table.add_column(column)
    for column in (
        "node",
        "NVML",
        "usable",
        "weights x 1.15",
        "checkpoint",
        "headroom",
        "sequences",
        "context",
        "$/h",
        "$/month",
        "$/M tokens",
    ):
        table.add_column(column, justify="right")
    table.add_column("price")
    for plan in rows:
        memory, cost = plan.memory, plan.costs[0].cost if plan.costs else None
        per_million = usd_per_million(plan)
        table.add_row(
            plan.profile.name,
            plan.profile.role,
            VERDICTS_SHOWN[memory.verdict],
            *(known(v) for v in (memory.node_gb, memory.nvml_gb, memory.usable_gb, memory.formula_gb)),
            known(memory.checkpoint_gb),
            whole(memory.headroom_gb),
            f"{memory.max_sequences:,}",
            f"{memory.context:,}",
            f"{cost.hourly:,.2f}" if cost else "-",
            whole(cost.monthly) if cost else "-",
            "-" if per_million is None else f"{per_million:,.2f}",
            f"{cost.kind} {cost.date}" if cost else "-",
        )
    console.print(table)
    for line in _recommendations(rows):
        console.print(line)
    for told in price_lines(plan.costs[0].cost for plan in rows if plan.costs):
        console.print(told)


def _recommendations(rows: Sequence[Plan]) -> Iterable[str]:
    """For each model with a recommended profile: that one, and the cheapest that fits by the figures known."""
    for first in (plan for plan in rows if plan.profile.role == "recommended" and plan.memory.verdict == "fits"):
        same = [p for p in rows if p.profile.model.name == first.profile.model.name and p.memory.verdict == "fits"]
        yield f"Recommended for {first.profile.model.title}: {first.profile.name}{_rate(first)}."
        priced = [plan for plan in same if usd_per_million(plan) is not None]
        cheapest = min(priced, key=lambda plan: usd_per_million(plan) or 0.0, default=first)
        if cheapest is not first:
            yield f"Cheapest a million output tokens by the figures known: {cheapest.profile.name}{_rate(cheapest)}."


def _rate(plan: Plan) -> str:
    per_million = usd_per_million(plan)
    if per_million is None:
        return ""
    cost, speeds = plan.costs[0].cost, plan.profile.throughput
    basis = f", {speeds[0].kind}: {speeds[0].workload}" if speeds else ", as given"
    return f" (${per_million:,.2f} {cost.kind} at {whole(cost.tokens_per_second or 0)} tokens/s{basis})"


def print_preferences(console: Console, plans: Iterable[Plan]) -> None:
    """One line for each profile in whose place we would run another."""
    for plan in plans:
        if plan.profile.rather is not None:
            reason = plan.profile.rather.reasons[0]
            console.print(f"{plan.profile.name}: we would run {plan.profile.rather.profile} ({reason})", style="dim")


def print_rather(console: Console, plan: Plan, better: Plan) -> None:
    """The profile that we would run in place of `plan`'s, why, and both in one table."""
    console.print(f"\nWe would run {better.profile.name}:", style="bold")
    for reason in plan.profile.rather.reasons if plan.profile.rather else ():
        console.print(f"  {reason}")
    print_summary(console, [plan, better])
