"""The report of a run as one HTML file: figures, plots as SVG inside of it, no script, nothing from elsewhere."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.load.compare import HEADS, changes, unlike
from loadtest.load.histogram import Histogram
from loadtest.load.result import Result
from loadtest.load.view import COLUMNS, cells_of

WINDOWS = 60
"""Points of a line at most."""


def write_html(result: Result, path: Path, before: Result | None = None) -> None:
    """Write it. `before` is shown beside it."""
    environment = Environment(loader=PackageLoader("loadtest.load"), autoescape=select_autoescape(default=True))
    page = environment.get_template("report.html").render(
        result=result,
        columns=COLUMNS,
        rows=[(row, cells_of(row)) for row in result.rows()],
        remarks=list(result.remarks()),
        plots=[Markup(_svg(draw, result)) for draw in (_requests, _waits, _tokens, _ttft_curves)],
        heads=HEADS,
        changes=changes(before, result) if before else [],
        unlike=unlike(before, result) if before else [],
        before=before,
    )
    path.write_text(page)


def _svg(draw: Callable[[Axes, Result], None], result: Result) -> str:
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, result)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _requests(axes: Axes, result: Result) -> None:
    width, starts = _windows(result)
    for name, label in (("asked", "asked"), ("ok", "whole"), ("good", "good"), ("failed", "failed")):
        axes.plot(starts, [value / width for value in _sums(result, name, width, starts)], label=label)
    _mark_faults(axes, result)
    axes.set(title="Requests a second", xlabel="s")


def _tokens(axes: Axes, result: Result) -> None:
    width, starts = _windows(result)
    axes.plot(starts, [value / width for value in _sums(result, "output_tokens", width, starts)])
    _mark_faults(axes, result)
    axes.set(title="Output tokens a second, counted when their answer ends", xlabel="s")


def _waits(axes: Axes, result: Result) -> None:
    width, starts = _windows(result)
    windows = {start: Histogram() for start in starts}
    for second, seen in result.total().waits.items():
        windows[min(second // width * width, starts[-1])].merge(seen)
    for share, label in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
        axes.plot(starts, [_or_gap(windows[start].quantile(share)) for start in starts], label=label)
    axes.set_yscale("log")
    _mark_faults(axes, result)
    axes.set(title="Seconds to the first token, by the second of its arrival at the client", xlabel="s")


def _ttft_curves(axes: Axes, result: Result) -> None:
    """What share of each stream's requests had its first token by then."""
    for name, stream in sorted(result.tally.streams.items()):
        seen = stream.times["ttft"]
        shares = [step / 100 for step in range(1, 101)]
        if seen.number:
            axes.plot([_or_gap(seen.quantile(share)) for share in shares], shares, label=name)
    axes.set_xscale("log")
    axes.set(title="Share of requests with their first token after so many seconds", xlabel="s")


def _windows(result: Result) -> tuple[int, list[int]]:
    seconds = [second for stream in result.tally.streams.values() for second in stream.seconds]
    last = max([*seconds, int(result.seconds)])
    width = max(1, -(-last // WINDOWS))
    return width, list(range(0, last + 1, width))


def _sums(result: Result, name: str, width: int, starts: Sequence[int]) -> list[float]:
    sums = dict.fromkeys(starts, 0.0)
    for stream in result.tally.streams.values():
        for second, row in stream.seconds.items():
            sums[min(second // width * width, starts[-1])] += row.get(name, 0)
    return [sums[start] for start in starts]


def _mark_faults(axes: Axes, result: Result) -> None:
    for fault in result.faults:
        axes.axvspan(fault["at"], max(fault["until"], fault["at"] + 0.2), color="tab:red", alpha=0.12)


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value
