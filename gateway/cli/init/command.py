"""`fleetgate init`: a config file for the nodes that are there."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.init.example import example_text
from gateway.cli.options import FAILED, misused
from gateway.config.listen import Admin, Listen


def init(
    node: Annotated[list[str] | None, typer.Option(help="URL of a vLLM node; repeatable.")] = None,
    node_key_env: Annotated[str | None, typer.Option(help="Variable that holds the nodes' API key.")] = None,
    expose: Annotated[
        bool | None, typer.Option("--expose/--loopback", help="Listen on all interfaces, or for this machine only.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = Listen().port,
    admin_port: Annotated[int, typer.Option(help="Port of the admin listener.", min=0, max=65535)] = Admin().port,
    tenant: Annotated[str | None, typer.Option(help="The first tenant (default: main).")] = None,
    no_tenant: Annotated[bool, typer.Option("--no-tenant", help="No tenant: nobody needs a key.")] = False,
    requests_per_minute: Annotated[str | None, typer.Option(help="The tenant's limit (default: none).")] = None,
    concurrent_requests: Annotated[str | None, typer.Option(help="The tenant's limit (default: none).")] = None,
    tokens_per_day: Annotated[str | None, typer.Option(help="The tenant's limit (default: none).")] = None,
    max_thinking: Annotated[str | None, typer.Option(help="The largest thinking budget, in tokens.")] = None,
    redis: Annotated[str | None, typer.Option(help="URL of the Redis that several gateways share.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("fleetgate.yaml"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: what is not given has its default.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print every setting with its default instead.")] = False,
) -> None:
    """Write a commented config file: finds nodes, makes a first tenant with a key, and asks for the rest.

    The key alone goes to the standard output, once: the file has its SHA-256. No file is overwritten.
    """
    if example:
        typer.echo(example_text(), nl=False)
        return
    limits = {
        "requests_per_minute": requests_per_minute,
        "concurrent_requests": concurrent_requests,
        "tokens_per_day": tokens_per_day,
    }
    if no_tenant and (expose or tenant is not None or any(limits.values())):
        raise misused("--no-tenant: clients of other machines need keys, and limits are a tenant's")
    _require_new(out)
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise misused("there is no terminal to ask on: add --yes, --node http://HOST:8000, and what else is to be said")
    from gateway.cli.init.dialogue import GivenAnswers, run_init  # heavy, as the gateway is

    given = GivenAnswers(
        nodes=node or [],
        node_key=node_key_env,
        is_open=expose,
        port=port,
        admin_port=admin_port,
        tenant=tenant,
        no_tenant=no_tenant,
        limits=limits,
        max_budget=max_thinking,
        redis=redis,
    )
    run_init(given, out, asks=not yes)


def _require_new(out: Path) -> None:
    """Before anything is asked."""
    reason = None
    if out.exists() or out.is_symlink():
        reason = "exists, and is not overwritten: move it away, or give another with --out"
    elif not out.absolute().parent.is_dir():
        reason = f"cannot be written: there is no folder {out.absolute().parent}"
    elif not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        reason = f"cannot be written: the folder {out.absolute().parent} belongs to others; give another with --out"
    if reason is not None:
        typer.echo(f"fleetgate: {out} {reason}", err=True)
        raise typer.Exit(FAILED)
