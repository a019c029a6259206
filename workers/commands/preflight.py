"""`fleetgate-worker preflight`: is this machine fit for a profile."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workers.argv import MASTER_PORT, RAY_PORT
from workers.commands.edge import FAILED, AsJson, ProfileFolder, ProfileName, print_json, told
from workers.preflight.capture import Capture, read_capture, write_capture
from workers.preflight.check import check_machine, lacks
from workers.preflight.finding import Finding
from workers.preflight.probe import probe_machine
from workers.profile import Profile
from workers.profiles.load import find_profile

DEFAULT_FOLDER = Path("/models")
COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


@told
def preflight(
    name: ProfileName,
    model_dir: Annotated[
        Path | None, typer.Option(help="Check the checkpoint in this folder; else only the disk for it.")
    ] = None,
    port: Annotated[int, typer.Option(help="The port that the node will listen on.", min=1, max=65535)] = 8000,
    capture: Annotated[
        Path | None, typer.Option(help="Save this machine's outputs, to replay or contribute them.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--from", help="Judge a saved capture instead of this machine.")
    ] = None,
    joined: Annotated[
        bool, typer.Option("--joined", help="The machines of this node are joined: Ray has to be up.")
    ] = False,
    profiles: ProfileFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check a machine before anything is downloaded or started. Exit code 1 if a check fails."""
    profile = find_profile(name, profiles or ())
    ports = [port, *_further_ports(profile)]
    machine = read_capture(replay) if replay else probe_machine(model_dir or DEFAULT_FOLDER, ports)
    if capture is not None:
        write_capture(capture, machine)
    findings = check_machine(profile, machine, model_dir, joined)
    build, missing = lacks(profile, machine)
    if as_json:
        print_json(_document(profile.name, machine, findings) | {"vllm": build, "lacks": missing})
    else:
        _print(profile.title, machine, findings)
        for line in missing:
            typer.echo(f"{build} lacks: {line}")
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(FAILED)


def _further_ports(profile: Profile) -> list[int]:
    """Ports beside the node's own: what joins the machines, and KV events."""
    ports = [] if profile.kv_events is None or profile.kv_events.port is None else [profile.kv_events.port]
    if profile.hardware.nodes > 1:
        ports.append(RAY_PORT if profile.parallel.backend == "ray" else MASTER_PORT)
    return ports


def _document(name: str, machine: Capture, findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "profile": name,
        "machine": {"origin": machine.origin, "verified": machine.verified},
        "passed": all(finding.level != "fail" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _print(title: str, machine: Capture, findings: Sequence[Finding]) -> None:
    console = Console()
    table = Table(title=f"{title}: {machine.origin}", title_justify="left")
    for column in ("", "check", "seen", "needed", "how to fix it"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        level = f"[{COLORS[finding.level]}]{finding.level}[/]"
        table.add_row(level, finding.check, finding.seen, finding.needed, finding.fix)
    console.print(table)
    if not machine.verified:
        console.print("UNVERIFIED: this capture was written from documented formats, not recorded on a machine.")
