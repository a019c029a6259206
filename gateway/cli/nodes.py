"""`fleetgate status`, `drain` and `undrain`: the fleet's nodes, shown and taken out of work."""

import json
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli import admin_client
from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking, misused
from gateway.cli.status import show_status, watch_status

NOT_EMPTY = 3

Node = Annotated[str, typer.Argument(help="The node's name (host:port) or URL.")]


def drain(
    node: Node,
    deadline: Annotated[float | None, typer.Option(help="Seconds after which running requests are ended.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="The same as --deadline 0: move what can be moved at once.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for running requests; 0 does not wait.")] = 600.0,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Give a node no new work, and wait until what runs there has ended; exit status 3 where it has not.

    What would not end before the deadline goes on on another node, shortly before it and one by one.
    """
    if now and deadline:
        raise misused("choose one of --now and --deadline")
    with asking(admin, token) as control:
        if not admin_client.drain(control, node, 0.0 if now else deadline, wait, typer.echo) and wait > 0:
            raise typer.Exit(NOT_EMPTY)


def undrain(node: Node, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """Give a drained node work again."""
    with asking(admin, token) as control:
        admin_client.undrain(control, node, typer.echo)


def status(
    once: Annotated[bool, typer.Option("--once", help="Print the table once and exit.")] = False,
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Show every node: its state, load, cache hits and times to the first token. Ctrl-C ends it."""
    with asking(admin, token) as control:
        if as_json:
            typer.echo(json.dumps(control.get("/admin/fleet"), indent=1))
        elif once:
            show_status(control, Console())
        else:
            watch_status(control, Console())
