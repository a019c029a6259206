"""The command `fleetgate connect`."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.connect.check import Manner, check
from gateway.cli.connect.client import Client, Machine, Target
from gateway.cli.connect.clients import CLIENTS
from gateway.cli.connect.merging import CannotEdit, merged_text
from gateway.cli.connect.shapes import QUESTION
from gateway.cli.connect.target import NO_KEY, TargetUnknown, find_target, own_url, trusted
from gateway.cli.connect.writing import Change, plan_changes, show_difference, write
from gateway.cli.options import FAILED, misused
from gateway.cli.terminal import tell
from gateway.config.document import ConfigError

ClientName = StrEnum("ClientName", {name: name for name in CLIENTS})  # type: ignore[misc]  # typer shows its values


def connect(
    client: Annotated[ClientName, typer.Argument(help="The client to be set up.")],
    url: Annotated[str | None, typer.Option(help="The gateway's URL (default: as the config listens).")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="FLEETGATE_KEY", show_default=False, help="A key of a tenant.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model (default: the only one that is served).")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The gateway's config file.")] = None,
    write_files: Annotated[bool, typer.Option("--write", help="Change the client's files; asks before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    check_it: Annotated[bool, typer.Option("--check", help="Send what it sends, tell what it would see.")] = False,
    ask: Annotated[str, typer.Option(help="What --check asks the model.", show_default=False)] = QUESTION,
    wait: Annotated[float, typer.Option(help="Seconds that --check waits for an answer, and reads of it.")] = 60.0,
    ca_file: Annotated[str | None, typer.Option(help="CA certificates (PEM) that the gateway is checked by.")] = None,
) -> None:
    """Set up a client for this gateway: print its lines, write its files, or check what it would see.

    --check uses what the client is configured with on this machine; with --url, what it would be configured with.
    """
    chosen, machine = CLIENTS[client.value], Machine(Path.home(), os.environ)
    try:
        manner = Manner(ask, wait, trusted(ca_file))
        if check_it and not write_files:
            raise typer.Exit(_check(chosen, machine, (url, key, model), config, manner))
        target = find_target(url or own_url(config), key, model, manner.trust)
        if not write_files:
            _print_lines(chosen, target)
            return
        _write(chosen, target, machine, yes)
        if check_it:
            base = chosen.base(target)
            raise typer.Exit(_report(chosen, base, target.key, target.model, manner))
    except ConfigError as error:
        raise misused("\n".join(map(str, error.problems))) from None
    except (TargetUnknown, CannotEdit) as error:
        tell(f"fleetgate: {error}", err=True)
        raise typer.Exit(FAILED) from None


def _print_lines(client: Client, target: Target) -> None:
    for file in client.files(target):
        settings = {**file.opening, **file.settings} if file.opening else file.settings
        tell(f"# ~/{file.path}\n{merged_text('', settings, file.form)}")
    if client.by_hand is not None:
        tell(client.by_hand(target))
    for remark in client.remarks:
        tell(f"# {remark}")


def _write(client: Client, target: Target, machine: Machine, yes: bool) -> None:
    files = client.files(target)
    if not files:
        raise misused(f"{client.title} keeps its settings where no other program should write: run without --write")
    changes = [change for change in plan_changes(files, machine.home) if change.is_needed]
    if not changes:
        tell(f"{client.title} is set up already: nothing to change.")
        return
    for change in changes:
        _show(change, target)
    if not yes and not typer.confirm(f"Write {', '.join(str(change.path) for change in changes)}?"):
        tell("Nothing was written.")
        raise typer.Exit(FAILED)
    for change in changes:
        try:
            write(change)
        except (OSError, UnicodeEncodeError) as error:  # half a surrogate pair in what was there
            raise CannotEdit(f"{change.path} cannot be written: {error}") from None
        tell(f"wrote {change.path}")


def _show(change: Change, target: Target) -> None:
    lines = list(show_difference(change, target.key if target.key != NO_KEY else ""))
    tell("\n".join(lines) if lines else f"{change.path}: only its owner may read it, as it holds a key")


def _check(
    client: Client,
    machine: Machine,
    given: tuple[str | None, str | None, str | None],
    config: Path | None,
    manner: Manner,
) -> int:
    """Check the client as it is set up here, or as it would be for `given` URL, key and model.

    What is set up here is checked with its own key: it may be another's service, which is not to see a key of ours.
    """
    url, key, model = given
    found = client.configured(machine) if url is None else None
    if found is None:
        target = find_target(url or own_url(config), key, model, manner.trust)
        base = client.base(target)
        tell(f"checking {base}" if url else f"{client.title} is not set up here: checking {base}")
        return _report(client, base, target.key, target.model, manner)
    tell(f"{client.title} is set up by {found.source}")
    chosen = model or found.model
    if not chosen:
        raise TargetUnknown("no model is set: give --model")
    return _report(client, found.base, found.key, chosen, manner)


def _report(client: Client, base: str, key: str, model: str, manner: Manner) -> int:
    failed = False
    for finding in check(client, base, "" if key == NO_KEY else key, model, manner):
        failed = failed or finding.level == "fail"
        tell(f"{finding.level:<5} {finding.what:<9} {finding.text}")
    return FAILED if failed else 0
