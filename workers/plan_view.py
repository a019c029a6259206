"""Plans on the terminal."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers.catalog.prices import OLD_DAYS
from workers.cost import BreakEven, CostPlan
from workers.download_plan import download_bytes
from workers.measured import differences
from workers.plan import CostAnswer, Plan
from workers.plan_facts import facts_told
from workers.profile import Profile
from workers.vram import MemoryPlan

WIDE = 10_000
"""Columns of the output, whatever the terminal has: a cut name or figure is worth less than a long line."""


def plan_console() -> Console:
    """A console that prints texts as they are: titles, notes and sources are the operator's, brackets included."""
    return Console(width=WIDE, markup=False)


VERDICTS_SHOWN = {"fits": Text("yes", "green"), "tight": Text("tight", "yellow"), "no": Text("no", "red")}

LEAN: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "show_edge": False}


def whole(value: float) -> str:
    """A number without decimals, halves rounded up: 632.5 GB is told as 633, as the guides do."""
    return f"{math.floor(value + 0.5):,}"


def print_plan(console: Console, plan: Plan) -> None:
    """One profile in full: memory, sequences, cost, advice."""
    profile = plan.profile
    console.print(Text.assemble("\n", (profile.title, "bold"), f"  ({profile.name}, {profile.role})"))
    console.print(f"Source: {profile.source}", style="dim")
    for line in facts_told(profile):
        console.print(line, style="dim", highlight=False)
    console.print(_memory_table(plan.memory, download_bytes(profile) / 1e9))
    console.print(_verdict(plan.memory))
    for line in plan.advice:
        console.print(f"  {line}")
    if plan.costs:
        console.print(_cost_table(plan.costs))
        for line in _assumptions(plan.costs):
            console.print(f"  {line}")
        for told in price_lines((answer.cost for answer in plan.costs), "  "):
            console.print(told)
    else:
        console.print("Cost: no price is known for this machine; give one with --price, or a row in --prices FILE.")
    for line in _throughput_lines(profile):
        console.print(line, style="dim")
    for note in profile.notes:
        console.print(f"  Note: {note}", style="dim")


def price_lines(costs: Iterable[CostPlan], indent: str = "") -> Iterable[Text]:
    """Date and source of each price, and a warning for those older than 60 days."""
    told = {(cost.source, cost.kind, cost.date): cost for cost in costs}
    for cost in told.values():
        line = f"{indent}Price {cost.kind}: {cost.source}, {cost.date}"
        if cost.age_days > OLD_DAYS:
            old = f"{line}: {cost.age_days} days old"
            yield Text.assemble((old, "yellow"), ", ask for today's and give it with --price or --prices.")
        else:
            yield Text(f"{line}.")


def known(value: float | None) -> str:
    """A number without decimals, a dash where nobody knows it."""
    return "-" if value is None else whole(value)


def _memory_table(memory: MemoryPlan, disk_gb: float) -> Table:
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
        ("node", memory.node_gb, "as sold; this is what the rule counts with"),
        ("node by NVML", memory.nvml_gb, "memory.total of nvidia-smi: what is there"),
        ("usable", memory.usable_gb, f"at utilisation {memory.utilization:.2f}, of the memory as sold"),
        ("headroom", memory.headroom_gb, ""),
        ("disk", disk_gb or None, "free before `download`: the largest checkpoint that may be taken, with 5%"),
    ]
    for name, value, why in rows:
        if value is not None:
            table.add_row(name, f"{whole(value)} GB", why)
    return table


def _verdict(memory: MemoryPlan) -> Text:
    sequence = memory.sequence
    carries = (
        f"Carries {memory.max_sequences} sequences of {memory.context:,} tokens "
        f"({sequence.kv_bytes_per_token / 1024:.0f} KiB per token, "
        f"{sequence.state_bytes / 2**20:.0f} MiB state x {sequence.state_copies})."
    )
    if memory.verdict == "fits":
        return Text.assemble(("Fits", "green"), f" with {whole(memory.headroom_gb)} GB to spare. {carries}")
    if memory.verdict == "tight":
        most = carries.replace("Carries", "Carries, before activations and buffers, at most")
        missing = whole(-memory.headroom_gb)
        return Text.assemble(("Tight", "yellow"), f": the rule misses {missing} GB, a vendor lists it. {most}")
    if memory.headroom_gb >= 0:
        return Text.assemble(("Does not fit", "red"), f": below the published minimum. {carries}")
    return Text.assemble(("Does not fit", "red"), f", by {whole(-memory.headroom_gb)} GB. {carries}")


def _cost_table(costs: Sequence[CostAnswer]) -> Table:
    table = Table(title="Cost (US dollars)", title_justify="left", **LEAN)
    table.add_column("price")
    for column in (
        "$/h",
        "$/month (730 h)",
        "tokens/s",
        "$/million tokens",
        "API in/cached/out",
        "API $/million out, with input",
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
        if not answer.break_evens:
            table.add_row(*first, "-", "-", "-", "-")
        for row, point in enumerate(answer.break_evens):
            table.add_row(
                *(first if row == 0 else ("",) * len(first)),
                _api(point),
                f"{point.api_usd_per_million:.2f}",
                f"{point.tokens_per_month / 1e9:.1f} B tokens/month",
                "?" if point.nodes is None else str(point.nodes),
            )
    return table


def _api(point: BreakEven) -> str:
    if point.api is None or point.api.input is None:
        return "output alone"
    cached = "-" if point.api.cached is None else f"{point.api.cached:g}"
    return f"{point.api.input:g}/{cached}/{point.api.output:g}"


def _assumptions(costs: Sequence[CostAnswer]) -> Iterable[str]:
    apis = {point.api.name: point.api for answer in costs for point in answer.break_evens if point.api is not None}
    for api in apis.values():
        if api.input is not None:
            yield f"API {api.name}: {api.source}, {api.date}; for a million output tokens and their input (--shape)."
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


def _throughput_lines(profile: Profile) -> Iterable[str]:
    for speed in profile.throughput:
        span = whole(speed.low) if speed.low == speed.high else f"{whole(speed.low)}-{whole(speed.high)}"
        yield f"  {span} tokens/s {speed.kind}: {speed.workload} ({speed.source})"
        if speed.measured_with is not None:
            seen = speed.measured_with
            yield f"    on {seen.hardware} {seen.precision}, {seen.vllm}, {seen.date}"
            unlike = list(differences(profile, speed))
            yield "    with the flags of this profile" if not unlike else "    NOT with the flags of this profile:"
            yield from (f"      {line}" for line in unlike)
