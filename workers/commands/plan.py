"""`fleetgate-worker plan`: does it fit, how much does it carry, what does it cost."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workers.architecture import Architecture, read_architecture
from workers.catalog.facts import BYTES_PER_PARAMETER, Precision
from workers.commands.edge import FAILED, AsJson, ProfileFolder, print_json, told
from workers.errors import ConfigError
from workers.plan import Plan, Question, base_profile, machine_profile, make_plan
from workers.plan_plot import plot_plans
from workers.plan_view import WIDE, plan_json, print_plan, print_summary
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profiles


@told
def plan(
    names: Annotated[list[str] | None, typer.Argument(help="Profiles; none means all, one line each.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Plan for a machine instead: its GPU, e.g. h100.")] = None,
    count: Annotated[int, typer.Option(help="GPUs of that machine.", min=1)] = 8,
    precision: Annotated[str, typer.Option(help="bf16, fp8 or nvfp4.")] = "fp8",
    model: Annotated[str, typer.Option(help="The model for --gpu.")] = "nemotron-3-ultra",
    context: Annotated[int | None, typer.Option(help="Tokens per sequence.", min=1)] = None,
    sequences: Annotated[int | None, typer.Option(help="Sequences at once.", min=1)] = None,
    price: Annotated[float | None, typer.Option(help="US dollars per GPU hour.", min=0.001)] = None,
    tokens_per_second: Annotated[float | None, typer.Option(help="Output tokens/s of the node.", min=0.1)] = None,
    api_price: Annotated[list[float] | None, typer.Option(help="US dollars per million tokens to beat.")] = None,
    config: Annotated[Path | None, typer.Option(help="The model's real config.json, for its memory.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of memory by part (.png, .svg).")] = None,
    profiles: ProfileFolder = None,
    as_json: AsJson = False,
) -> None:
    """Plan memory, concurrency and cost. Exit code 1 if a single thing asked for does not fit."""
    known = list(load_profiles(profiles or ()).values())
    question = Question(
        context=context,
        sequences=sequences,
        usd_per_gpu_hour=price,
        tokens_per_second=tokens_per_second,
        api_prices=tuple(api_price or (4.0, 8.0)),
        architecture=_read_config(config),
    )
    chosen = [find_profile(name, profiles or ()) for name in names or ()]
    if gpu is not None:
        chosen.append(machine_profile(base_profile(known, model), gpu.lower(), count, _precision(precision)))
    plans = [make_plan(profile, question, known) for profile in chosen or known]
    _show(plans, chosen, as_json)
    if plot is not None:
        plot_plans(plans, plot)
    if len(chosen) == 1 and not plans[0].memory.fits:
        raise typer.Exit(FAILED)


def _show(plans: list[Plan], chosen: list[Profile], as_json: bool) -> None:
    if as_json:
        print_json([plan_json(p) for p in plans])
        return
    console = Console(width=WIDE)
    if not chosen:
        print_summary(console, plans)
    for answer in plans if chosen else ():
        print_plan(console, answer)


def _precision(name: str) -> Precision:
    for known in BYTES_PER_PARAMETER:
        if known == name.lower():
            return known
    raise ConfigError(f"unknown precision {name!r}; known: {', '.join(BYTES_PER_PARAMETER)}")


def _read_config(file: Path | None) -> Architecture | None:
    if file is None:
        return None
    try:
        return read_architecture(json.loads(file.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
