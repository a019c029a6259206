"""What all commands share at their edge: the profile options, and errors told in one sentence."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from workers.errors import WorkerError

P = ParamSpec("P")
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
"""As a shell counts the end by Ctrl-C."""

ProfileName = Annotated[str, typer.Argument(help="A profile's name, or the path of a profile file (*.yaml).")]
ProfileFolder = Annotated[
    list[Path] | None,
    typer.Option("--profiles", help="A folder of your own profiles. Also $FLEETGATE_WORKER_PROFILES."),
]
PriceFile = Annotated[
    Path | None,
    typer.Option("--prices", envvar="FLEETGATE_WORKER_PRICES", help="Prices of your own, by date (YAML)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def told(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the workers' errors into one sentence on stderr and exit code 2, Ctrl-C into 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except WorkerError as error:
            Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
            raise typer.Exit(WRONG_USE) from error
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None

    return run


def print_json(document: Any) -> None:
    """Print plain data as JSON on stdout."""
    typer.echo(json.dumps(document, indent=2))
