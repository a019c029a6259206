"""Results on the terminal."""

from rich.table import Table

from loadtest.load.result import Result, Row

TIMES = (("ttft", 1.0, 2), ("gap", 1000.0, 0), ("whole", 1.0, 1))
"""Of a row: which, in which part of a second, with how many digits."""
COLUMNS = (
    *("asked", "ok", "good", "failed", "cut"),
    *("TTFT p50", "p99", "gap p50 ms", "p99", "whole p50", "p99", "tokens/s"),
)


def table_of(result: Result) -> Table:
    """A line a stream; times in seconds unless the head says ms. Errors by cause stand below their stream."""
    table = Table("tenant, scenario", title=f"{result.seconds:g} s at {result.plan['url']}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in result.rows():
        table.add_row(row.name, *cells_of(row))
        for cause, count in row.errors.items():
            table.add_row(f"  {count} x {cause}", style="red")
    return table


def cells_of(row: Row) -> list[str]:
    share = "-" if row.good_share is None else f"{row.good_share:.1%}"
    counts = [str(row.counts["asked"]), str(row.counts["ok"]), share, str(row.counts["failed"]), str(row.counts["cut"])]
    times = []
    for name, factor, digits in TIMES:
        for quantile in ("p50", "p99"):
            value = row.times[name][quantile]
            times.append("-" if value is None else f"{value * factor:.{digits}f}")
    return [*counts, *times, f"{row.tokens_rate:.0f}"]
