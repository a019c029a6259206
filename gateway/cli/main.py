"""The `fleetgate` command."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.cli.blocks import block, blocks, unblock
from gateway.cli.check import check
from gateway.cli.connect.command import connect
from gateway.cli.init.command import init
from gateway.cli.keys import keys
from gateway.cli.loading import complain, has_nodes, load
from gateway.cli.logs import logs
from gateway.cli.nodes import drain, status, undrain
from gateway.cli.reload import reload
from gateway.cli.reports import show_audit, show_request, show_usage
from gateway.cli.tenants import tenants
from gateway.cli.terminal import tell
from gateway.cli.transfer import export_records, import_records

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetgate {version('fleetgate')}")
        raise typer.Exit


@app.callback()
def fleetgate(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A gateway in front of a fleet of vLLM nodes that run a thinking model."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config file (YAML).")] = None,
    node: Annotated[list[str] | None, typer.Option(help="URL of a vLLM node; repeatable.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (default: 8080).")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of the admin listener (default: 9091).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: 1).")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text (default: json).")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Serve beyond loopback without tenants.")] = False,
) -> None:
    """Run the gateway: with a config file, or with nothing but --node."""
    from gateway.server.process import ListenError, serve  # heavy: only this command needs it

    overrides = _overrides(node, host, port, admin_port, workers, log_format, no_auth)
    settings = load(config, overrides).config
    if not has_nodes(settings):
        complain("No nodes are configured: use --node http://HOST:8000, or nodes or discovery in the config file.")
    try:
        serve(settings, config, overrides)
    except ListenError as error:
        typer.echo(f"fleetgate: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def demo(
    node: Annotated[str, typer.Option(help="vllm: a real one on this CPU; fake: no model, in seconds.")] = "vllm",
    nodes: Annotated[int | None, typer.Option(help="How many (default: 1 vllm, 2 fake).", min=1, max=8)] = None,
    port: Annotated[int, typer.Option(help="Port of the gateway, 0 for a free one.", min=0, max=65535)] = 8080,
    admin_port: Annotated[int, typer.Option(help="Port of its admin listener.", min=0, max=65535)] = 9091,
) -> None:
    """Start nodes and a gateway on this machine, show how to talk to them, and each request as it goes by."""
    from gateway.cli.demo.nodes import usual_count
    from gateway.cli.demo.processes import DemoError
    from gateway.cli.demo.run import run_demo

    if node not in ("vllm", "fake"):
        complain("--node must be vllm or fake")
    kind: Literal["vllm", "fake"] = "fake" if node == "fake" else "vllm"
    try:
        run_demo(kind, nodes or usual_count(kind), port, admin_port)
    except DemoError as error:
        tell(f"fleetgate demo: {error}", err=True)
        raise typer.Exit(1) from None


app.command()(init)
app.command()(check)
app.command()(connect)
app.command()(drain)
app.command()(undrain)
app.command()(status)
app.command()(reload)
app.command()(block)
app.command()(unblock)
app.command()(blocks)
app.command("export")(export_records)
app.command("import")(import_records)
app.command("usage")(show_usage)
app.command("audit")(show_audit)
app.command()(logs)
app.command("request")(show_request)


def _overrides(
    nodes: list[str] | None,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    workers: int | None,
    log_format: str | None,
    no_auth: bool,
) -> dict[str, Any]:
    """The command line as a part of the configuration tree; only what was given is in it."""
    tree: dict[str, Any] = {
        "nodes": [{"url": url} for url in nodes] if nodes else None,
        "listen": _given(host=host, port=port),
        "admin": _given(port=admin_port),
        "workers": workers,
        "log": _given(format=log_format),
        "no_auth": no_auth or None,
    }
    return _given(**tree)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {})}


def main() -> None:
    """Entry point of the console script."""
    app()
