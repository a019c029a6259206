"""Options as people type them: seconds that are finite numbers, commands that a shell could split,
numbers between slashes."""

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


def slashed_numbers(text: str, option: str, expected: str) -> list[float]:
    """`1/2/3`: one to three numbers up to a million, the last one above 0. Raises ConfigError."""
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) > 3 or not all(0 <= n <= 1e6 for n in numbers) or numbers[-1] < 1e-6:
        raise ConfigError(f"{option}: {text!r} is not {expected}")
    return numbers
