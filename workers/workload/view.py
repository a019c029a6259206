"""Plans of a workload on the terminal."""

import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers.catalog.prices import age_days
from workers.cost import CostPlan
from workers.plan import Question
from workers.plan_view import LEAN, price_lines, whole
from workers.workload.answer import WorkloadPlan
from workers.workload.sizing import BOUNDS, Sizing
from workers.workload.workload import Workload

LINE = 118
"""Columns of a sentence; tables are as wide as they are."""


def print_workload(console: Console, plan: WorkloadPlan, question: Question) -> None:
    """One profile in full: nodes by each bound, what a conversation sees, costs, what a preemption costs."""
    sizing = plan.sizing
    console.print(Text.assemble("\n", (sizing.profile.title, "bold"), f"  ({sizing.profile.name})"))
    _say(console, _described(sizing.workload), indent="")
    decided = f"decided by {' and '.join(sizing.binding)}"
    decided = decided if sizing.given is None else f"as given; {sizing.most_needed} needed, {decided}"
    console.print(f"{_count(sizing.nodes, 'node')}, {decided}")
    console.print(_nodes_table(sizing))
    for line in (*_seen(sizing), *sizing.notes):
        _say(console, line)
    speed = sizing.speed
    _say(console, f"Prefill: {whole(speed.prefill)} tokens/s a node, {speed.prefill_source}.", "dim")
    _say(console, f"Decode: {_points(sizing)} tokens/s each, {speed.decode_source}.", "dim")
    if plan.mixes:
        console.print(_mix_table(plan))
        _say(console, _preempted(plan))
    else:
        console.print("  Cost: no price is known for this machine; give one with --price, or a row in --prices FILE.")
    for told in price_lines(_costs(plan, question), "  "):
        console.print(told)


def print_workloads(
    console: Console, workload: Workload, plans: Sequence[WorkloadPlan], refusals: Iterable[str], question: Question
) -> None:
    """One line per profile, the cheapest month first, and below it why the others cannot serve the workload."""
    console.print(_described(workload))
    table = Table(**LEAN)
    table.add_column("profile")
    for column in ("nodes", *(f"by {bound}" for bound in BOUNDS)):
        table.add_column(column, justify="right")
    table.add_column("decided by")
    for column in ("first token s", "tokens/s each", "$/month", "$/month all spot", "API $/month, same turns"):
        table.add_column(column, justify="right")
    for plan in plans:
        sizing = plan.sizing
        table.add_row(
            sizing.profile.name,
            str(sizing.nodes),
            *(str(sizing.needed[bound]) for bound in BOUNDS),
            ", ".join(sizing.binding),
            f"{sizing.busiest.first_token:.1f}",
            f"{sizing.busiest.rate:.0f}",
            whole(plan.mixes[0].usd) if plan.mixes and plan.mixes[0].steady else "-",
            whole(plan.mixes[-1].usd) if plan.mixes and not plan.mixes[-1].steady else "-",
            whole(plan.apis[0].usd) if plan.apis else "-",
        )
    console.print(table)
    for line in refusals:
        console.print(f"Not: {line}.", style="dim")
    for told in price_lines(cost for plan in plans for cost in _costs(plan, question)):
        console.print(told)


def _say(console: Console, text: str, style: str | None = None, indent: str = "  ") -> None:
    """A sentence, in lines that a page has room for."""
    lines = textwrap.wrap(text, LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    console.print("\n".join(lines), style=style)


def _described(workload: Workload) -> str:
    agents, turns = _count(workload.agents, "conversation"), _count(workload.turns, "turn")
    reads = f"{whole(workload.input)} tokens in ({whole(workload.cached_tokens)} cached)"
    return (
        f"{workload.title or workload.name}: {agents} of {turns}; a turn is {reads}, {whole(workload.output)} out, "
        f"then {workload.pause:g} s of pause. Wanted: first token in {workload.first_token:g} s, "
        f"{workload.rate:g} tokens/s each."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _nodes_table(sizing: Sizing) -> Table:
    state, memory = sizing.busiest, sizing.memory
    table = Table(**LEAN)
    table.add_column("by")
    table.add_column("nodes", justify="right")
    table.add_column(f"on the busiest of {sizing.nodes}")
    seen = {
        "prefill": f"first token after {state.first_token:.1f} s, prefill busy {state.prefill_use:.0%}",
        "decode": f"{state.rate:.1f} tokens/s for each of {state.decoding:.1f} answers",
        "places": f"{state.running:.1f} requests at once, {sizing.speed.places} places",
        "KV memory": f"{whole(sizing.held_gb)} of {whole(sizing.room_gb)} GB ({memory.verdict})",
    }
    for bound in BOUNDS:
        table.add_row(bound, str(sizing.needed[bound]), seen[bound])
    return table


def _seen(sizing: Sizing) -> Iterable[str]:
    workload, state = sizing.workload, sizing.busiest
    turn, turns = state.agents / state.turns, sizing.turns_per_second
    yield (
        f"A turn takes {turn:,.1f} s with its pause, a conversation {turn * workload.turns / 60:,.1f} minutes. "
        f"The fleet does {turns:,.2f} turns/s: {turns * workload.output:,.0f} tokens/s out, "
        f"{sizing.turns_per_month / 1e6:,.2f} M turns and {sizing.turns_per_month / workload.turns / 1e3:,.1f} k "
        f"conversations a month."
    )


def _points(sizing: Sizing) -> str:
    return ", ".join(f"{point.users:.3g} at {point.rate:.1f}" for point in sizing.speed.points)


def _mix_table(plan: WorkloadPlan) -> Table:
    sizing = plan.sizing
    turns = sizing.turns_per_month
    table = Table(title="A month (US dollars)", title_justify="left", **LEAN)
    table.add_column("fleet")
    for column in ("machines", "preemptions", "recomputed", "$/month", "$/conversation", "left without spot"):
        table.add_column(column, justify="right")
    for mix in plan.mixes:
        spares = f" with {mix.spares} spare" if mix.spares else ""
        names = [f"{mix.steady} {plan.prices[0].kind}"] if mix.steady else []
        names += [f"{mix.spot + mix.spares} spot{spares}"] if mix.spot else []
        table.add_row(
            " + ".join(names),
            whole(mix.machines_usd),
            whole(mix.preemptions),
            whole(mix.preemptions_usd),
            whole(mix.usd),
            f"{mix.usd / turns * sizing.workload.turns:,.4f}",
            f"{mix.left:.0%}",
        )
    for cost in plan.apis:
        told = f"API {cost.api.name} ({cost.api.date})"
        each = cost.usd / turns * sizing.workload.turns
        table.add_row(told, "-", "-", "-", whole(cost.usd), f"{each:,.4f}", "-")
    return table


def _preempted(plan: WorkloadPlan) -> str:
    lost, sizing = plan.preemption, plan.sizing
    others = _count(lost.survivors, "other node")
    paused = (
        f"The answers pause {lost.pause:,.1f} s on average until {others} computed them again."
        if lost.pause is not None
        else "There is no other node: answers wait for a new one, and may end with an error."
    )
    return (
        f"A node that is taken back costs {whole(lost.tokens)} tokens computed again ({whole(lost.running_tokens)} of "
        f"{lost.running:.1f} running requests, {whole(lost.prefix_tokens)} of cached prefixes): "
        f"{lost.node_seconds:,.1f} s of a node, ${lost.usd:,.2f}. {paused} Taken to happen "
        f"{plan.preemptions_per_day:g} times a day to each spot node; a new one serves after "
        f"{sizing.profile.startup_seconds / 60:,.0f} minutes."
    )


def _costs(plan: WorkloadPlan, question: Question) -> Iterable[CostPlan]:
    gpus = plan.sizing.profile.hardware.gpus
    for price in plan.prices:
        age = age_days(price.date, question.today)
        yield CostPlan(price.kind, price.source, price.usd_per_gpu_hour * gpus, None, price.date, age)
