"""Two runs side by side: what became of each stream's goodput and times."""

from rich.table import Table

from loadtest.load.result import Result, Row

FIGURES = (("ttft", "p50"), ("ttft", "p99"), ("gap", "p50"), ("gap", "p99"), ("whole", "p50"), ("whole", "p99"))
DIFFERENT = ("streams", "seconds", "rate", "scale", "trace", "speed", "ttft", "gap", "steering")
"""Of a plan: where these differ the runs were not alike."""


def changes(before: Result, after: Result) -> list[tuple[str, list[str]]]:
    """A line for each stream that both have: failed, good and the times, before and after."""
    old = {row.name: row for row in before.rows()}
    return [(row.name, _cells(old[row.name], row)) for row in after.rows() if row.name in old]


def unlike(before: Result, after: Result) -> list[str]:
    """What of their plans differs, so that figures cannot be compared just so."""
    told = [name for name in DIFFERENT if _plain(before.plan.get(name)) != _plain(after.plan.get(name))]
    return [*told, *(["users"] if before.locust["users"] != after.locust["users"] else [])]


def compare(before: Result, after: Result) -> Table:
    """For the terminal."""
    warned = unlike(before, after)
    title = "before -> after" + (f" (not alike in {', '.join(warned)})" if warned else "")
    table = Table("tenant, scenario", title=title, title_justify="left")
    for column in HEADS:
        table.add_column(column, justify="right")
    for name, cells in changes(before, after):
        table.add_row(name, *cells)
    return table


HEADS = ("failed", "good", *(f"{name} {quantile}" for name, quantile in FIGURES))


def _cells(old: Row, new: Row) -> list[str]:
    good = [("-" if row.good_share is None else f"{row.good_share:.1%}") for row in (old, new)]
    cells = [f"{old.counts['failed']} -> {new.counts['failed']}", f"{good[0]} -> {good[1]}"]
    for name, quantile in FIGURES:
        was, now = old.times[name][quantile], new.times[name][quantile]
        if was is None or now is None or not was:
            cells.append("-")
        else:
            cells.append(f"{was:.3g} -> {now:.3g} ({now / was - 1:+.0%})")
    return cells


def _plain(value: object) -> object:
    """Of a plan that was read from JSON and one that was not: lists and tuples, objects and dictionaries alike."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
