"""Options as people type them: seconds that are finite numbers, commands that a shell could split."""

import math
import shlex
from typing import Any

import typer

from workers.errors import ConfigError


def number(told: str, least: float, most: float | None = None) -> Any:
    """A typer option for a finite number: `inf` and `nan` pass bounds, and are no time that anybody can wait."""
    return typer.Option(help=told, min=least, max=most, callback=_finite)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def split_command(option: str, text: str) -> list[str]:
    """The words of a command. Raises ConfigError where quotes are not closed, or where there is none."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from error
    if not words:
        raise ConfigError(f"{option} is empty: name a program")
    return words
