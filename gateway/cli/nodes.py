"""`fleetgate status`, `drain` and `undrain`: the fleet's nodes, shown and taken out of work."""

import json
import math
import sys
from typing import Annotated

import typer

from gateway.cli import admin_client
from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking, misused
from gateway.cli.status import show_status, watch_status
from gateway.cli.terminal import PlainConsole, tell

NOT_EMPTY = 3

Node = Annotated[str, typer.Argument(help="The node's name (host:port) or URL.")]


def drain(
    node: Node,
    deadline: Annotated[float | None, typer.Option(help="Seconds after which running requests are ended.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="The same as --deadline 0: move what can be moved at once.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for running requests; 0 does not wait.")] = 600.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Give a node no new work, and wait until what runs there has ended; exit status 3 where it has not.

    What would not end before the deadline goes on on another node, shortly before it and one by one. Where it is the
    last ready node of a model, a person is asked first, and a program is warned.
    """
    if now and deadline:
        raise misused("choose one of --now and --deadline")
    if deadline is not None and not 0 <= deadline < math.inf:
        raise misused("--deadline is a number of seconds, 0 or more")
    with asking(admin, token) as control:
        lost = () if yes else admin_client.served_by_nobody_else(control, node)
        if lost:
            words = f"{node} is the last ready node of {', '.join(lost)}: requests for it will be refused"
            if sys.stdin.isatty():
                typer.confirm(f"{words}. Drain it all the same?", abort=True)
            else:
                tell(f"warning: {words}", err=True)
        if not admin_client.drain(control, node, 0.0 if now else deadline, wait, tell) and wait > 0:
            raise typer.Exit(NOT_EMPTY)


def undrain(node: Node, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """Give a drained node work again."""
    with asking(admin, token) as control:
        admin_client.undrain(control, node, tell)


def status(
    once: Annotated[bool, typer.Option("--once", help="Print the table once and exit.")] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Print once what each node is: models, version, breaker, budgets.")
    ] = False,
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Show every node: its state, load, cache hits and times to the first token. Ctrl-C ends it."""
    with asking(admin, token) as control:
        if as_json:
            tell(json.dumps(control.get("/admin/fleet"), indent=1))
        elif once or wide:
            show_status(control, PlainConsole(), wide)
        else:
            watch_status(control, PlainConsole())
