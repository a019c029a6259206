"""`fleetgate-worker argv`: the exact vLLM command of a profile, explained and checked against a version."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workers.argv import HEAD_ADDRESS, Binding, Flag, Machine, command_line, flags_of
from workers.checkpoint import find_weights
from workers.commands.edge import AsJson, ProfileFolder, ProfileName, print_json, told
from workers.commands.words import split_command
from workers.errors import ConfigError
from workers.flags.flagset import CURRENT_VERSION, check_flags, usable
from workers.flags.known import known_flags
from workers.launch.machines import joins_by_rank
from workers.profiles.load import find_profile

VllmVersion = Annotated[
    str,
    typer.Option(
        "--vllm",
        help="Check against this version: a recorded one, `installed`, or a wheel or source folder.",
    ),
]
VllmProgram = Annotated[
    str,
    typer.Option(envvar="FLEETGATE_WORKER_VLLM", help="How vLLM's server is started, without its flags."),
]
ModelFolder = Annotated[
    Path | None,
    typer.Option("--model-dir", help="Where the checkpoint lies; without it the hub's name is used."),
]
Host = Annotated[str, typer.Option(envvar="FLEETGATE_WORKER_HOST", help="A private address to listen on.")]
Port = Annotated[
    int, typer.Option(envvar="FLEETGATE_WORKER_PORT", min=1, max=65535, help="The port of the node's server.")
]


@told
def argv(
    name: ProfileName,
    explain: Annotated[bool, typer.Option(help="Say what each flag is for.")] = False,
    vllm: VllmVersion = CURRENT_VERSION,
    program: VllmProgram = "vllm serve",
    model_dir: ModelFolder = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    rank: Annotated[int, typer.Option(help="Which machine of a node of several, from 0.", min=0)] = 0,
    head: Annotated[str | None, typer.Option(help="The address of rank 0 on the fast network.")] = None,
    profiles: ProfileFolder = None,
    as_json: AsJson = False,
) -> None:
    """Print the command that serves a profile. Flags that the version lacks are left out and told on
    stderr.
    """
    profile = find_profile(name, profiles or ())
    weights = find_weights(profile, model_dir)
    words = split_command("--program", program)
    if rank >= profile.hardware.nodes:
        raise ConfigError(f"--rank {rank}: {profile.name} runs on {profile.hardware.nodes} machine(s), from rank 0")
    if (rank or head is not None) and not joins_by_rank(profile):
        raise ConfigError(f"--rank and --head are for machines that vLLM joins itself; {profile.name} has none")
    wanted = flags_of(profile, weights, Binding(host, port), Machine(rank, HEAD_ADDRESS if head is None else head))
    known = known_flags(vllm, words)
    kept = usable(wanted, known)
    for verdict in check_flags(wanted, known):
        if verdict.state == "left out":
            typer.echo(f"left out {verdict.flag.name} (vLLM {known.version}): {verdict.told}", err=True)
    command = command_line(weights, kept, words)
    if as_json:
        print_json({"profile": profile.name, "environment": profile.environment, "argv": command})
    elif explain:
        _explain(kept, weights.told)
    else:
        setting = [f"{key}={shlex.quote(value)}" for key, value in profile.environment.items()]
        typer.echo(" ".join([*setting, shlex.join(command)]))


def _explain(flags: Sequence[Flag], told_of_weights: str) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for flag in flags:
        table.add_row(" ".join(flag.words), flag.why)
    console = Console()
    console.print(table)
    if told_of_weights:
        console.print(told_of_weights)
