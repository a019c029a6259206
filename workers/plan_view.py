"""Plans on the terminal and as JSON."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from workers.plan import CostAnswer, Plan
from workers.vram import MemoryPlan

WIDE = 10_000
"""Columns of the output, whatever the terminal has: a cut name or figure is worth less than a long line."""

_LEAN: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "show_edge": False}


def whole(value: float) -> str:
    """A number without decimals, halves rounded up: 632.5 GB is told as 633, as the guides do."""
    return f"{math.floor(value + 0.5):,}"


def print_plan(console: Console, plan: Plan) -> None:
    """One profile in full: memory, sequences, cost, advice."""
    profile = plan.profile
    console.print(f"\n[bold]{profile.title}[/]  ({profile.name}, {profile.role})")
    console.print(f"Source: {profile.source}", style="dim")
    console.print(_memory_table(plan.memory))
    console.print(_verdict(plan.memory))
    for line in plan.advice:
        console.print(f"  {line}")
    if plan.costs:
        console.print(_cost_table(plan.costs))
        for line in _assumptions(plan.costs):
            console.print(f"  {line}")
    else:
        console.print("Cost: no price is known for this machine; give one with --price.")
    for source in profile.throughput:
        span = whole(source.low) if source.low == source.high else f"{whole(source.low)}-{whole(source.high)}"
        console.print(f"  {span} tokens/s {source.kind}: {source.workload} ({source.source})", style="dim")
    for note in profile.notes:
        console.print(f"  Note: {note}", style="dim")


def print_summary(console: Console, plans: Iterable[Plan]) -> None:
    """One line per profile."""
    table = Table(title="Memory in GB, cost in US dollars", title_justify="left", **_LEAN)
    for column in ("profile", "role", "fits"):
        table.add_column(column)
    for column in (
        "node",
        "usable",
        "weights x 1.15",
        "checkpoint",
        "headroom",
        "sequences",
        "context",
        "$/h",
        "$/month",
    ):
        table.add_column(column, justify="right")
    for plan in plans:
        memory, cost = plan.memory, plan.costs[0].cost if plan.costs else None
        table.add_row(
            plan.profile.name,
            plan.profile.role,
            "[green]yes[/]" if memory.fits else "[red]no[/]",
            *(whole(v) for v in (memory.node_gb, memory.usable_gb, memory.formula_gb)),
            "-" if memory.checkpoint_gb is None else whole(memory.checkpoint_gb),
            whole(memory.headroom_gb),
            f"{memory.max_sequences:,}",
            f"{memory.context:,}",
            f"{cost.hourly:,.2f}" if cost else "-",
            whole(cost.monthly) if cost else "-",
        )
    console.print(table)


def _memory_table(memory: MemoryPlan) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(style="dim")
    rows = [
        ("weights", memory.weights_gb, "parameters x bytes per parameter"),
        ("weights x 1.15", memory.formula_gb, "with activations, buffers, fragmentation"),
        ("known checkpoint", memory.checkpoint_gb, "beats the formula: x 1.15 is what decides"),
        ("vendor's minimum", memory.vendor_minimum_gb, "as published"),
        ("needed", memory.needed_gb, "decides"),
        ("KV budget", memory.kv_budget_gb, f"{memory.sequences} sequences of {memory.context:,} tokens"),
        ("total", memory.total_gb, ""),
        ("node", memory.node_gb, ""),
        ("usable", memory.usable_gb, f"at utilisation {memory.utilization:.2f}"),
        ("headroom", memory.headroom_gb, ""),
    ]
    for name, value, why in rows:
        if value is not None:
            table.add_row(name, f"{whole(value)} GB", why)
    return table


def _verdict(memory: MemoryPlan) -> str:
    sequence = memory.sequence
    carries = (
        f"Carries {memory.max_sequences} sequences of {memory.context:,} tokens "
        f"({sequence.kv_bytes_per_token / 1024:.0f} KiB per token, "
        f"{sequence.state_bytes / 2**20:.0f} MiB state x {sequence.state_copies})."
    )
    if memory.fits:
        return f"[green]Fits[/] with {whole(memory.headroom_gb)} GB to spare. {carries}"
    return f"[red]Does not fit[/], by {whole(-memory.headroom_gb)} GB. {carries}"


def _cost_table(costs: Sequence[CostAnswer]) -> Table:
    table = Table(title="Cost (US dollars)", title_justify="left", **_LEAN)
    table.add_column("price")
    for column in (
        "$/h",
        "$/month (730 h)",
        "tokens/s",
        "$/million tokens",
        "API $/million",
        "break-even",
        "nodes for it",
    ):
        table.add_column(column, justify="right")
    for answer in costs:
        cost = answer.cost
        first = (
            cost.kind,
            f"{cost.hourly:,.2f}",
            whole(cost.monthly),
            "?" if cost.tokens_per_second is None else whole(cost.tokens_per_second),
            "?" if cost.per_million is None else f"{cost.per_million:,.3f}",
        )
        for row, point in enumerate(answer.break_evens):
            table.add_row(
                *(first if row == 0 else ("",) * len(first)),
                f"{point.api_usd_per_million:.2f}",
                f"{point.tokens_per_month / 1e9:.1f} B tokens/month",
                "?" if point.nodes is None else str(point.nodes),
            )
    return table


def _assumptions(costs: Sequence[CostAnswer]) -> Iterable[str]:
    for answer in costs:
        cost = answer.cost
        if cost.tokens_per_month is None:
            continue
        serves = f"{cost.kind}: a node at {whole(cost.tokens_per_second or 0)} tokens/s serves at most"
        yield f"{serves} {cost.tokens_per_month / 1e9:.2f} B tokens a month."
        for point in answer.break_evens:
            if not point.reachable:
                yield (
                    f"  Break-even at {point.tokens_per_month / 1e9:.1f} B "
                    f"(API ${point.api_usd_per_million:g}) needs "
                    f"{point.nodes} nodes, and each costs as much again: never cheaper at this speed. "
                    f"One node breaks even from {whole(point.needed_tokens_per_second)} tokens/s."
                )


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain data: GB decimal, US dollars, tokens."""
    memory, profile = plan.memory, plan.profile
    return {
        "profile": profile.name,
        "title": profile.title,
        "role": profile.role,
        "source": profile.source,
        "fits": memory.fits,
        "memory_gb": {
            "node": memory.node_gb,
            "usable": memory.usable_gb,
            "weights": memory.weights_gb,
            "formula": memory.formula_gb,
            "checkpoint": memory.checkpoint_gb,
            "vendor_minimum": memory.vendor_minimum_gb,
            "needed": memory.needed_gb,
            "kv_budget": memory.kv_budget_gb,
            "total": memory.total_gb,
            "headroom": memory.headroom_gb,
        },
        "sequences": {
            "context": memory.context,
            "planned": memory.sequences,
            "max": memory.max_sequences,
            "kv_bytes_per_token": memory.sequence.kv_bytes_per_token,
            "state_bytes": memory.sequence.state_bytes,
            "state_copies": memory.sequence.state_copies,
        },
        "costs": [_cost_json(answer) for answer in plan.costs],
        "advice": list(plan.advice),
    }


def _cost_json(answer: CostAnswer) -> dict[str, Any]:
    cost = answer.cost
    return {
        "kind": cost.kind,
        "source": cost.source,
        "usd_per_hour": cost.hourly,
        "usd_per_month": cost.monthly,
        "tokens_per_second": cost.tokens_per_second,
        "usd_per_million_tokens": cost.per_million,
        "tokens_per_month_at_most": cost.tokens_per_month,
        "break_even": [
            {
                "api_usd_per_million": point.api_usd_per_million,
                "tokens_per_month": point.tokens_per_month,
                "nodes": point.nodes,
                "reachable": point.reachable,
                "needed_tokens_per_second": point.needed_tokens_per_second,
            }
            for point in answer.break_evens
        ],
    }
