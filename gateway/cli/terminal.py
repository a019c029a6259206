"""What is printed for people: no part of it may be a command to their terminal. Clients choose their models and agents,
operators their labels and reasons, nodes and Redis the words of their errors."""

from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean(text: str, kept: str = "") -> str:
    """`text` without what a terminal obeys or reorders, and without halves of characters; `kept` stay."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else REPLACEMENT for each in text)


def tell(text: str, err: bool = False, nl: bool = True) -> None:
    """Print lines that others may have had a say in."""
    typer.echo(clean(text, "\n\t"), err=err, nl=nl)


class PlainConsole(Console):
    """Prints text as it is: brackets are no markup, words with colons no emoji, and control characters are replaced."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Of a cell, before its width is measured."""
        return super().render_str(clean(text, "\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(clean(segment.text, "\n"), segment.style)


class RowConsole(PlainConsole):
    """Of tables of which each row is a line: a cell has no line of its own."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(clean(text), **options)
