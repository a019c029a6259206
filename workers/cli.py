"""The `fleetgate-worker` command: everything that happens on a node."""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated

import typer

from workers.commands.argv import argv
from workers.commands.bench import bench
from workers.commands.cpu import cpu_node, tiny_model
from workers.commands.download import download
from workers.commands.flags import flags
from workers.commands.launch import launch
from workers.commands.plan import plan
from workers.commands.preflight import preflight
from workers.commands.unit import unit

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetgate-worker {version('fleetgate')}")
        raise typer.Exit


@app.callback()
def worker(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Plan, prepare and run one vLLM server on one node."""


app.command()(plan)
app.command()(preflight)
app.command()(download)
app.command()(argv)
app.command()(flags)
app.command()(launch)
app.command()(unit)
app.command()(bench)
app.command()(tiny_model)
app.command()(cpu_node)
if find_spec("workers.fake"):  # not in the image for GPU machines
    from workers.fake.cli import fake

    app.command()(fake)


def main() -> None:
    """Entry point of the console script."""
    app()
