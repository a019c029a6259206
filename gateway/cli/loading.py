"""Loading the configuration for commands, with its mistakes told as lines."""

from pathlib import Path
from typing import Any, NoReturn

import typer

from gateway.config.document import ConfigError, ConfigProblem
from gateway.config.source import LoadedConfig, load_with_deprecations
from gateway.config.tree import Config

BAD_CONFIG = 2


def load(path: Path | None, overrides: dict[str, Any]) -> LoadedConfig:
    """The configuration, of which a gateway can be made; exit status 2 where none can."""
    try:
        loaded = load_with_deprecations(path, overrides)
    except ConfigError as error:
        complain("\n".join([*map(str, error.problems), *map(warning, error.doubts)]))
    from gateway.server.dry_run import find_problems  # heavy, as the gateway is

    problems = find_problems(loaded.config, path, overrides)
    if problems:
        complain("\n".join(map(str, problems)))
    return loaded


def has_nodes(config: Config) -> bool:
    """Whether there is a source of nodes."""
    return bool(config.nodes or config.discovery.dns or config.discovery.registrations)


def warning(doubt: ConfigProblem) -> str:
    """A line about what is valid and hardly meant."""
    return f"warning: {doubt}"


def complain(message: str) -> NoReturn:
    """Tell what is wrong, and exit with 2."""
    typer.echo(message, err=True)
    raise typer.Exit(BAD_CONFIG)
