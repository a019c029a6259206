"""`fleetgate-worker flags`: hold every profile against the flags of a vLLM version, or record a version."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workers.argv import Binding, Flag, flags_of, weights_of
from workers.commands.argv import VllmProgram, VllmVersion
from workers.commands.edge import FAILED, AsJson, ProfileFolder, print_json, told
from workers.commands.words import split_command
from workers.flags.flagset import CURRENT_VERSION, Verdict, check_flags
from workers.flags.known import known_flags
from workers.output_file import write_text
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profiles


@told
def flags(
    names: Annotated[list[str] | None, typer.Argument(help="Profiles; none means all.")] = None,
    vllm: VllmVersion = CURRENT_VERSION,
    program: VllmProgram = "vllm serve",
    record: Annotated[Path | None, typer.Option(help="Write the version's flags to this JSON file.")] = None,
    profiles: ProfileFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check that a vLLM version takes every flag of the profiles. Exit code 1 if it does not take one."""
    known = known_flags(vllm, split_command("--program", program))
    if record is not None:
        write_text("--record", record, json.dumps(known.document(), indent=1) + "\n")
    chosen = [find_profile(n, profiles or ()) for n in names or ()] or [*load_profiles(profiles or ()).values()]
    verdicts = {p.name: check_flags(_wanted(p), known) for p in chosen}
    if as_json:
        print_json({"version": known.version, "profiles": {n: _told(v) for n, v in verdicts.items()}})
    else:
        console = Console()
        console.print(_table(known.version, len(known.flags), verdicts))
        for line in sorted({f"{v.state}: {v.flag.name}: {v.told}" for v in _others(verdicts)}):
            console.print(line)
    if any(verdict.state == "wrong" for verdict in _others(verdicts)):
        raise typer.Exit(FAILED)


def _wanted(profile: Profile) -> tuple[Flag, ...]:
    return flags_of(profile, weights_of(profile), Binding())


def _others(verdicts: Mapping[str, list[Verdict]]) -> list[Verdict]:
    return [verdict for found in verdicts.values() for verdict in found if verdict.state != "ok"]


def _told(verdicts: list[Verdict]) -> list[dict[str, str]]:
    return [{"flag": " ".join(v.flag.words), "state": v.state, "told": v.told} for v in verdicts]


def _table(version: str, count: int, verdicts: Mapping[str, list[Verdict]]) -> Table:
    table = Table(title=f"vLLM {version}: {count} flags known", title_justify="left")
    table.add_column("profile")
    table.add_column("flags", justify="right")
    table.add_column("ok", justify="right")
    table.add_column("left out or wrong")
    for name, found in verdicts.items():
        others = [v.flag.name for v in found if v.state != "ok"]
        table.add_row(name, str(len(found)), str(len(found) - len(others)), ", ".join(others))
    return table
