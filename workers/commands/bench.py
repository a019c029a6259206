"""`fleetgate-worker bench`: how fast a running node is, and whether its cache changes its answers."""

import asyncio
import datetime
import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workers.bench.node import node_url
from workers.bench.run import Found, Wanted, run_bench
from workers.bench.saved import best_rungs, folder_for, launched_with, save, throughput_of
from workers.bench.settings import MOST_RATE, USUAL_USERS, Settings, choose_workloads, read_numbers, read_users
from workers.bench.view import bench_json, print_findings, print_rungs
from workers.commands.edge import FAILED, AsJson, ProfileFolder, print_json, told
from workers.commands.words import split_command
from workers.errors import ConfigError, WorkerError
from workers.profile import Profile
from workers.profiles.load import find_profile

LOADS = ("auto", "own", "vllm")
DEFAULT_URL = "http://127.0.0.1:8000"
PIPE_WIDTH = 140


@told
def bench(
    target: Annotated[str, typer.Argument(help="The node's URL, or a profile whose node runs at --url.")],
    profile: Annotated[str | None, typer.Option(help="The profile that the node runs, beside a URL.")] = None,
    url: Annotated[str, typer.Option(help="Where the profile's node is.")] = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="The model's name; the node's first one if not given.")] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help="chat, agents, reasoning or trace; may be repeated; all by default.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="A trace in the mooncake format (JSON lines).")] = None,
    users: Annotated[str | None, typer.Option(help="Closed loop: users at once, e.g. 1,4,16.")] = None,
    rate: Annotated[str | None, typer.Option(help="Open loop instead: requests a second, e.g. 0.5,1,2.")] = None,
    scale: Annotated[float, typer.Option(help="Multiplies all lengths in tokens.", min=0.0001, max=10)] = 1.0,
    seconds: Annotated[float, typer.Option(help="The window of each load.", min=0.5, max=3600)] = 30.0,
    requests: Annotated[int, typer.Option(help="Requests of one load at most.", min=1, max=100_000)] = 2000,
    minutes: Annotated[float, typer.Option(help="No load begins that would end later.", min=0.1, max=1440)] = 60.0,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.", min=1, max=7200)] = 600.0,
    load: Annotated[str, typer.Option(help="What sends the load: own, vllm (its bench serve), or auto.")] = "auto",
    vllm_program: Annotated[str, typer.Option(help="How vLLM's bench is started.")] = "vllm",
    tokenizer: Annotated[str | None, typer.Option(help="For vLLM's bench: the model's folder.")] = None,
    probes: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Ask the same cold and warm, alone and not.")
    ] = True,
    save_it: Annotated[bool, typer.Option("--save", help="Write NAME-measured.yaml beside your own profiles.")] = False,
    profiles: ProfileFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure a running node. Exit code 1 if an answer is wrong or nothing was answered, 130 if interrupted."""
    folder = folder_for(profiles or ()) if save_it else None
    chosen, where = _target(target, profile, url, profiles or [])
    if load not in LOADS:
        raise ConfigError(f"--load {load!r}: expected one of {', '.join(LOADS)}")
    if users is not None and rate is not None:
        raise ConfigError("--users is a closed loop, --rate an open one: give one of them")
    if save_it and chosen is None:
        raise ConfigError("--save needs to know what the node runs: --profile NAME")
    settings = Settings(
        workloads=choose_workloads(workload or (), trace),
        trace=trace,
        users=read_users(users),
        rates=read_numbers("--rate", rate, MOST_RATE),
        most_users=chosen.scheduling.max_sequences if chosen is not None else USUAL_USERS,
        scale=scale,
        window=seconds,
        requests=requests,
        timeout=timeout,
    )
    program = split_command("--vllm-program", vllm_program)
    name = model or (chosen.served_name if chosen is not None else None)
    until = time.monotonic() + 60 * minutes
    found = Found()
    interrupted = _run(Wanted(where, name, chosen, settings, load, program, tokenizer, probes, until), found, as_json)
    if interrupted:
        _say("interrupted" + ("; nothing is saved" if save_it else ""))
        raise typer.Exit(interrupted)
    wrong = any(finding.verdict == "WRONG" for finding in found.findings)
    if folder is not None and chosen is not None:
        _save(found, chosen, folder, wrong)
    if wrong or not any(rung.figures.whole or rung.figures.cut for rung in found.rungs):
        raise typer.Exit(FAILED)


def _target(target: str, profile: str | None, url: str, profiles: list[Path]) -> tuple[Profile | None, str]:
    """The profile, None where none is named, and the node's URL."""
    if "://" not in target:
        if profile is not None:
            raise ConfigError("two profiles are given: name one, and the node by --url")
        return find_profile(target, profiles), node_url(url)
    if url != DEFAULT_URL:
        raise ConfigError("--url belongs to a profile; a URL is given already")
    return (find_profile(profile, profiles) if profile is not None else None), node_url(target)


def _run(wanted: Wanted, found: Found, as_json: bool) -> int:
    """Run it and show what it found, also where it broke off. Returns 0, or the exit code of an interruption."""
    interrupted = 0
    try:
        asyncio.run(run_bench(wanted, found, _say))
    except KeyboardInterrupt:
        interrupted = 128 + signal.SIGINT
    except asyncio.CancelledError:
        interrupted = 128 + signal.SIGTERM
    except WorkerError:
        if found.rungs:
            _show(found, as_json)
        raise
    _show(found, as_json)
    return interrupted


def _show(found: Found, as_json: bool) -> None:
    if as_json:
        print_json({"load": found.how, **bench_json(found.rungs, found.findings)})
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    print_rungs(console, found.rungs)
    print_findings(console, found.findings)


def _save(found: Found, profile: Profile, folder: Path, wrong: bool) -> None:
    best, node, launched = best_rungs(found.rungs), found.node, found.launched
    reason = _why_not(profile, found, wrong, bool(best))
    if reason or node is None:
        _say(f"nothing is saved: {reason}")
        return
    flags = "of the node's own process" if launched is not None else "of the profile, since the node's cannot be read"
    measured = launched_with(profile, launched, node.version, datetime.date.today().isoformat())
    own = save(profile, [throughput_of(rung, measured, found.how) for rung in best], folder)
    _say(f"saved {folder / own.name}.yaml; the flags are those {flags} (hash {measured.flags_hash})")
    _say(f"use it: fleetgate-worker plan {own.name} --profiles {folder}")


def _why_not(profile: Profile, found: Found, wrong: bool, has_good: bool) -> str:
    """Why nothing is to be saved; empty where all is well."""
    wanted = 0 if profile.hardware.gpu.family == "cpu" else profile.hardware.gpus_per_node
    if wrong:
        return "the node's answers are wrong"
    if not has_good:
        return "no load went without failures"
    if found.node is not None and found.node.is_here and found.gpus < wanted:
        return f"{profile.name} has {wanted} GPUs on a machine, and NVML shows {found.gpus} here"
    return ""


def _say(line: str) -> None:
    typer.echo(f"bench: {line}", err=True)
