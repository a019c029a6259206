"""The `fleetgate` command."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gateway.cli.connect.command import connect
from gateway.cli.keys import keys
from gateway.cli.nodes import drain, status, undrain
from gateway.cli.reload import reload
from gateway.cli.reports import show_audit, show_usage
from gateway.cli.tenants import tenants
from gateway.config.document import ConfigError
from gateway.config.source import LoadedConfig, load_with_deprecations
from gateway.config.tree import Config, unchecked_models

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")

BAD_CONFIG = 2


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
    settings = _load(config, overrides).config
    if not _has_nodes(settings):
        _complain("No nodes are configured: use --node http://HOST:8000, or nodes or discovery in the config file.")
    try:
        serve(settings, config, overrides)
    except ListenError as error:
        typer.echo(f"fleetgate: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def check(file: Annotated[Path, typer.Argument(help="The config file (YAML).")]) -> None:
    """Explain every mistake in a config file at once; exit status 2 where there is one."""
    settings, deprecated = _load(file, {})
    for each in deprecated:
        typer.echo(str(each), err=True)
    listed = {"node": settings.nodes, "model": settings.models, "tenant": settings.tenants}
    counts = [f"{len(those)} {name}{'' if len(those) == 1 else 's'}" for name, those in listed.items()]
    typer.echo(f"{file}: valid ({', '.join(counts)})")
    unchecked = unchecked_models(settings)
    if unchecked:
        typer.echo(f"Not checked, because models is empty and only nodes know their models: {', '.join(unchecked)}.")
    if not _has_nodes(settings):
        typer.echo("No nodes are configured: `fleetgate serve` needs --node http://HOST:8000.")


@app.command()
def demo(
    node: Annotated[str, typer.Option(help="vllm: a real one on this CPU; fake: no model, in seconds.")] = "vllm",
    port: Annotated[int, typer.Option(help="Port of the gateway.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="Port of its admin listener.")] = 9091,
) -> None:
    """Start a node and a gateway on this machine and show how to talk to them."""
    from gateway.cli.demo import DemoError, run_demo

    if node not in ("vllm", "fake"):
        _complain("--node must be vllm or fake")
    try:
        run_demo("fake" if node == "fake" else "vllm", port, admin_port, typer.echo)
    except DemoError as error:
        typer.echo(f"fleetgate demo: {error}", err=True)
        raise typer.Exit(1) from None


app.command()(connect)
app.command()(drain)
app.command()(undrain)
app.command()(status)
app.command()(reload)
app.command("usage")(show_usage)
app.command("audit")(show_audit)


def _has_nodes(config: Config) -> bool:
    return bool(config.nodes or config.discovery.dns or config.discovery.registrations)


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


def _load(path: Path | None, overrides: dict[str, Any]) -> LoadedConfig:
    """The configuration, of which a gateway can be made."""
    try:
        loaded = load_with_deprecations(path, overrides)
    except ConfigError as error:
        _complain("\n".join(map(str, error.problems)))
    from gateway.server.dry_run import find_problems  # heavy, as the gateway is

    problems = find_problems(loaded.config, path)
    if problems:
        _complain("\n".join(map(str, problems)))
    return loaded


def _complain(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(BAD_CONFIG)


def main() -> None:
    """Entry point of the console script."""
    app()
