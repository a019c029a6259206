"""`fleetgate check`: what is wrong with a config file, and with what it names."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.loading import BAD_CONFIG, complain, has_nodes, load, warning
from gateway.cli.terminal import tell
from gateway.config.otel_variables import doubtful_variables
from gateway.config.source import doubts_about
from gateway.config.tree import Config, unchecked_models

UNANSWERED = 1


def check(
    file: Annotated[Path | None, typer.Argument(help="The config file (YAML).")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The same, as `serve` takes it.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail at warnings, too.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="Ask the nodes and Redis as well.")] = False,
) -> None:
    """Explain every mistake in a config file at once; exit status 2 where there is one.

    Warnings are about what is valid and hardly meant: keys past their end, limits without effect, weak secrets,
    variables of OpenTelemetry that do nothing.
    """
    if file is not None and config is not None and file != config:
        complain("Give one config file: as an argument, or with --config.")
    path = config or file
    if path is None:
        complain("Missing the config file: fleetgate check FILE, or -c FILE.")
    settings, deprecated = load(path, {})
    doubts = [*doubts_about(settings, path, time.time()), *doubtful_variables(settings.telemetry.traces)]
    warnings = [*map(str, deprecated), *map(warning, doubts)]
    for each in warnings:
        tell(each, err=True)
    _summarise(path, settings, probe)
    answered = not probe or _probe(settings)
    if strict and warnings:
        raise typer.Exit(BAD_CONFIG)
    if not answered:
        raise typer.Exit(UNANSWERED)


def _summarise(path: Path, settings: Config, probe: bool) -> None:
    listed = {"node": settings.nodes, "model": settings.models, "tenant": settings.tenants}
    counts = [f"{len(those)} {name}{'' if len(those) == 1 else 's'}" for name, those in listed.items()]
    tell(f"{path}: valid ({', '.join(counts)})")
    unchecked = unchecked_models(settings)
    if unchecked and not (probe and settings.nodes):
        tell(
            f"Not checked, because models is empty and only nodes know their models: {', '.join(unchecked)}. "
            "List the models, or ask the nodes with --probe."
        )
    if not has_nodes(settings):
        tell("No nodes are configured: `fleetgate serve` needs --node http://HOST:8000.")


def _probe(settings: Config) -> bool:
    """Whether all that was asked is as it should be."""
    from gateway.server.live_check import ask_all  # heavy, as the gateway is

    findings = asyncio.run(ask_all(settings))
    for finding in findings:
        tell(f"{'ok' if finding.ok else 'FAILED':<7} {finding.what}: {finding.words}", err=not finding.ok)
    return all(finding.ok for finding in findings)
