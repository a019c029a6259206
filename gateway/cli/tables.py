"""Tables that cut nothing off and fold nothing: a row is a line, for people to copy from and for programs to read."""

from rich import box
from rich.table import Table

from gateway.cli.terminal import RowConsole

WIDE = 10_000
"""Columns of the output, whatever the terminal has: it breaks longer lines by itself."""


def new_table(*headings: str, title: str | None = None, footer: bool = False) -> Table:
    return Table(*headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=title, show_footer=footer)


def print_table(table: Table) -> None:
    RowConsole(width=WIDE).print(table)
