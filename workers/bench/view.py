"""A bench for people and for programs."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workers.bench.figures import BUSY_GPU, Figures
from workers.bench.ladder import Rung
from workers.bench.probe import Finding

COLORS = {"equal": "green", "near tie": "green", "not shown": "yellow", "WRONG": "red"}
SHOWN_FAILURES = 5
COLUMNS = (
    "load",
    "whole\nfailed\ncut",
    "in\ntok/s",
    "out\ntok/s",
    "TTFT s\np50 p99",
    "ITL ms\np50 p99",
    "tok/s\na user",
    "prefix\nhits",
    "MTP",
    "pre-\nempted",
    "GPU use\nleast-most",
)


def print_rungs(console: Console, rungs: Sequence[Rung]) -> None:
    """A table for each workload, and below it what is to be known of its loads."""
    for told in dict.fromkeys((rung.workload, rung.told) for rung in rungs):
        same = [rung.figures for rung in rungs if (rung.workload, rung.told) == told]
        table = Table(title=escape(told[1]), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place, title in enumerate(COLUMNS):
            table.add_column(title, justify="right" if place else "left", no_wrap=True)
        for figures in same:
            table.add_row(*_row(figures))
        console.print(table)
        for line in _lines(same):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """What the probe found, a line each."""
    if findings:
        console.print("Does the node's cache, or cutting prompts into chunks, change answers (temperature 0)?")
    for finding in findings:
        verdict = f"[{COLORS[finding.verdict]}]{finding.verdict}[/]"
        console.print(f"  {verdict}: {escape(finding.of)}: {escape(finding.told)}", highlight=False, soft_wrap=True)


def bench_json(rungs: Sequence[Rung], findings: Sequence[Finding]) -> dict[str, Any]:
    """A bench as plain data: tokens a second, seconds, shares of 1."""
    return {
        "rungs": [
            {
                "workload": rung.workload,
                "told": rung.told,
                **asdict(rung.figures),
                "failures": dict(rung.figures.failures),
                "gpus": {str(index): use for index, use in rung.figures.gpus.by_index},
                "gpu_spread": rung.figures.gpus.spread,
            }
            for rung in rungs
        ],
        "probe": [asdict(finding) for finding in findings],
    }


def _row(figures: Figures) -> tuple[str, ...]:
    node, gpus = figures.node, figures.gpus
    accepted = _share(node.draft_acceptance)
    if node.accepted_length is not None:
        accepted += f" {node.accepted_length:.2f}"
    return (
        figures.load,
        f"{figures.whole}/{figures.failed}/{figures.cut}",
        f"{figures.tokens_in:,.0f}",
        f"{figures.tokens_out:,.1f}",
        f"{_number(figures.ttft[0], 2)} {_number(figures.ttft[1], 2)}",
        f"{_number(figures.itl[0], 1, 1000)} {_number(figures.itl[1], 1, 1000)}",
        _number(figures.user_rate, 1),
        _share(node.hit_rate),
        accepted,
        _number(node.preemptions, 0),
        "-" if gpus.least is None else f"{_share(gpus.least)}-{_share(gpus.least + (gpus.spread or 0.0))}",
    )


def _lines(same: Sequence[Figures]) -> Iterable[str]:
    for figures in same:
        for remark in figures.remarks:
            yield f"{figures.load}: {remark}"
        if figures.unsent:
            yield f"{figures.load}: {figures.unsent} requests were not sent: too many were in flight"
        for failure, count in figures.failures[:SHOWN_FAILURES]:
            yield f"{figures.load}: {count} failed: {failure}"
        if len(figures.failures) > SHOWN_FAILURES:
            rest = sum(count for _, count in figures.failures[SHOWN_FAILURES:])
            yield f"{figures.load}: {rest} failed in {len(figures.failures) - SHOWN_FAILURES} other ways"
        if figures.node.external_hit_rate:
            yield f"{figures.load}: {_share(figures.node.external_hit_rate)} found in the offloaded cache"
    busiest = max(same, key=lambda figures: figures.tokens_out, default=None)
    if busiest is not None and busiest.gpus.by_index:
        yield _gpu_line(busiest)


def _gpu_line(figures: Figures) -> str:
    gpus = figures.gpus
    each = ", ".join(f"{index}: {_share(use)}" for index, use in gpus.by_index)
    aim = f"{100 * BUSY_GPU:.0f}%"
    names = ", ".join(map(str, gpus.below))
    verdict = f"all above {aim}" if not gpus.below else f"GPU {names} below the checklist's {aim}"
    return f"{figures.load}: GPU use {each}; {verdict}, spread {_share(gpus.spread)}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:,.{digits}f}"
