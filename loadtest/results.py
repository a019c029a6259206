"""From samples to a table: medians and spread over the rounds, and ratios that are taken within each round."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from loadtest.measure import Sample

DIRECT = "direct"
WIDTH = 150
Round = Mapping[str, Sample]
"""One round's samples by proxy, `direct` among them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is reported: read off a proxy's sample and the sample of `direct` in the same round."""

    name: str
    title: str
    digits: int
    read: Callable[[Sample, Sample], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """Several rounds' values of one figure."""

    median: float
    low: float
    high: float


# +TTFT is the time to the first byte that the proxy adds: its own less that of `direct`, at 1 and 100 streams.
FIGURES = (
    Figure("cpu_per_request_us", "µs per\nrequest", 0, lambda own, _: own.cpu_per_request),
    Figure("cpu_per_event_us", "µs per\nevent", 1, lambda own, _: own.cpu_per_event),
    Figure("events_per_core_second", "events/s\na core", 0, lambda own, _: _rate(own.cpu_per_event)),
    Figure(
        "ttft_added_alone_p50_ms",
        "+TTFT ms\n1, p50",
        2,
        lambda own, bare: own.ttft_alone_p50 - bare.ttft_alone_p50,
    ),
    Figure(
        "ttft_added_alone_p99_ms",
        "+TTFT ms\n1, p99",
        2,
        lambda own, bare: own.ttft_alone_p99 - bare.ttft_alone_p99,
    ),
    Figure(
        "ttft_added_loaded_p50_ms",
        "+TTFT ms\n100, p50",
        2,
        lambda own, bare: own.ttft_loaded_p50 - bare.ttft_loaded_p50,
    ),
    Figure(
        "ttft_added_loaded_p99_ms",
        "+TTFT ms\n100, p99",
        2,
        lambda own, bare: own.ttft_loaded_p99 - bare.ttft_loaded_p99,
    ),
    Figure("kib_per_stream", "KiB a\nstream", 0, lambda own, _: own.kib_per_stream),
    Figure("idle_mib", "MiB\nidle", 0, lambda own, _: own.idle_mib),
)
COSTS = tuple(figure for figure in FIGURES if not figure.name.startswith("ttft"))


def values(rounds: Sequence[Round], name: str, figure: Figure) -> list[float]:
    """One value a round in which both the proxy and `direct` were measured."""
    both = [found for found in rounds if name in found and DIRECT in found]
    return [figure.read(found[name], found[DIRECT]) for found in both]


def spread(found: Sequence[float]) -> Spread:
    """Median, least and greatest; nan where there are none."""
    if not found:
        return Spread(math.nan, math.nan, math.nan)
    return Spread(statistics.median(found), min(found), max(found))


def ratio(rounds: Sequence[Round], name: str, base: str, figure: Figure) -> Spread:
    """`name` over `base`, taken within each round. Rounds in which the base is not positive say nothing."""
    both = [found for found in rounds if {name, base, DIRECT} <= found.keys()]
    pairs = [(figure.read(each[name], each[DIRECT]), figure.read(each[base], each[DIRECT])) for each in both]
    return spread([own / other for own, other in pairs if other > 0])


def summary(rounds: Sequence[Round], names: Sequence[str], base: str) -> dict[str, dict[str, dict[str, float]]]:
    """For JSON: proxy -> figure -> median, low, high, and the ratio to `base`."""
    return {name: {figure.name: _cell(rounds, name, base, figure) for figure in FIGURES} for name in names}


def table(rounds: Sequence[Round], names: Sequence[str], base: str, figures: Sequence[Figure] = FIGURES) -> Table:
    """A row each; below the median its spread and the ratio to `base`."""
    found = Table(title=f"{len(rounds)} rounds: median (least to most), ratio to {base} in the same round")
    found.add_column("proxy", no_wrap=True)
    for figure in figures:
        found.add_column(figure.title, justify="right", no_wrap=True)
    for name in names:
        found.add_row(name, *(cell_text(_cell(rounds, name, base, figure), figure.digits) for figure in figures))
    return found


def markdown(rounds: Sequence[Round], names: Sequence[str], base: str) -> str:
    """The table for a page: one line for each proxy, the spread in brackets, the ratio last."""
    titles = [figure.title.replace("\n", " ") for figure in FIGURES]
    lines = [_line(["proxy", *titles]), _line(["---", *("---:" for _ in titles)])]
    for name in names:
        cells = [cell_text(_cell(rounds, name, base, figure), figure.digits, " ") for figure in FIGURES]
        lines.append(_line([name, *cells]))
    return "\n".join(lines)


def console() -> Console:
    """Where tables go: wide enough for them also where there is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=WIDTH)


def cell_text(cell: Mapping[str, float], digits: int, between: str = "\n") -> str:
    """Median, spread and ratio, `between` each; a dash where nothing was measured."""
    if math.isnan(cell["median"]):
        return "–"
    parts = [f"{cell['median']:.{digits}f}", f"({cell['low']:.{digits}f}–{cell['high']:.{digits}f})"]
    return between.join(parts if math.isnan(cell["ratio"]) else [*parts, f"{cell['ratio']:.2f}x"])


def _cell(rounds: Sequence[Round], name: str, base: str, figure: Figure) -> dict[str, float]:
    over, against = spread(values(rounds, name, figure)), ratio(rounds, name, base, figure)
    cell = {"median": over.median, "low": over.low, "high": over.high}
    return cell | {"ratio": against.median, "ratio_low": against.low, "ratio_high": against.high}


def _rate(micros: float) -> float:
    return 1e6 / micros if micros else math.nan


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
