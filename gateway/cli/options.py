"""What the commands that talk to a running gateway share: where it is, who asks, and how failure is told."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any

import typer
import yaml

from gateway.cli.admin_client import AdminClient, AdminClientError
from gateway.cli.terminal import tell

FAILED = 1
MISUSED = 2

AdminUrl = Annotated[
    str,
    typer.Option("--admin", "--admin-url", envvar="FLEETGATE_ADMIN_URL", help="URL of a gateway's admin listener."),
]
AdminToken = Annotated[
    str | None, typer.Option("--token", envvar="FLEETGATE_ADMIN__TOKEN", show_default=False, help="Its admin token.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]
LOCAL = "http://127.0.0.1:9091"


@contextmanager
def asking(admin: str, token: str | None) -> Iterator[AdminClient]:
    """A gateway to ask. What it could not do is told in a line; exit status 1."""
    try:
        with AdminClient(admin, token) as control:
            yield control
    except AdminClientError as error:
        tell(f"fleetgate: {error}", err=True)
        raise typer.Exit(FAILED) from None


def misused(message: str) -> typer.Exit:
    """Tell what was wrong with the command; to be raised."""
    tell(f"fleetgate: {message}", err=True)
    return typer.Exit(MISUSED)


_UNREADABLE = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)
"""What PyYAML raises for a value that is not of its type, such as a day that there is not."""


def _as_json(value: Any) -> Any:
    """A value of YAML as JSON carries it: times as they are written. Raises ValueError for what it cannot."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{value!a} is not a value for a setting")


def tree_of(assignments: list[str]) -> dict[str, Any]:
    """`["limits.requests_per_minute=60", "cache_salt=true"]` as the mapping of settings that it spells.

    Values are YAML, as in the config file; an empty one is null, which takes a setting back to its default.
    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        *above, name = path.split(".")
        if not equals or not all((*above, name)):
            raise misused(f"invalid setting {assignment!r}: use limits.requests_per_minute=60")
        at = tree
        for part in above:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise misused(f"{path} and {part} cannot both be set")
        try:
            at[name] = _as_json(yaml.safe_load(value))
        except (yaml.YAMLError, *_UNREADABLE, RecursionError):
            raise misused(f"the value of {path} is not valid YAML: {value!a}") from None
    return tree
