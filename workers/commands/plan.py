"""`fleetgate-worker plan`: does it fit, how much does it carry, what does it cost."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from workers.architecture import Architecture, read_architecture
from workers.catalog.facts import BYTES_PER_PARAMETER, Precision, read_document
from workers.catalog.prices import ApiPrice, PriceKind, checked_usd, day_of, load_prices, price_kind
from workers.commands.edge import FAILED, AsJson, PriceFile, ProfileFolder, print_json, told
from workers.commands.words import slashed_numbers
from workers.cost import RequestShape
from workers.errors import ConfigError
from workers.plan import Plan, Question, base_profile, machine_profile, make_plan, ranked
from workers.plan_json import plan_json
from workers.plan_plot import plot_plans
from workers.plan_summary_view import print_preferences, print_rather, print_summary
from workers.plan_view import plan_console, print_plan
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profiles
from workers.workload.answer import PREEMPTIONS_PER_DAY, WorkloadQuestion, plan_workload, plan_workloads
from workers.workload.document import workload_json
from workers.workload.speed import read_points
from workers.workload.view import print_workload, print_workloads
from workers.workload.workload import FORM, read_workload

MODEL = "nemotron-3-ultra"
GUIDE_DAY = datetime.date(2026, 6, 30)
GUIDE_API_PRICES = ("4", "8")


@told
def plan(
    names: Annotated[list[str] | None, typer.Argument(help="Profiles; none means all, one line each.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Plan for a machine instead: its GPU, e.g. h100.")] = None,
    count: Annotated[int | None, typer.Option(help="GPUs of that machine; 8 if not given.", min=1)] = None,
    precision: Annotated[str | None, typer.Option(help="bf16, fp8 or nvfp4, for --gpu; fp8 if not given.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model for --gpu or --workload; nemotron-3-ultra if not given.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens per sequence.", min=1)] = None,
    sequences: Annotated[int | None, typer.Option(help="Sequences at once.", min=1)] = None,
    price: Annotated[float | None, typer.Option(help="US dollars per GPU hour.", min=0.001, max=1e6)] = None,
    kind: Annotated[
        str | None, typer.Option("--price-kind", help="on-demand, reserved or spot; without it all that are known.")
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Deprecated: --price-kind spot.")] = False,
    prices: PriceFile = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(help="Output tokens/s of the node.", min=0.1, max=1e9)
    ] = None,
    api_price: Annotated[
        list[str] | None,
        typer.Option(help="US dollars per million tokens to beat: OUT, IN/OUT or IN/CACHED/OUT; else the list's."),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="IN/CACHED/OUT tokens of a request, to weigh an API's three prices.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Prices known on that day, e.g. 2026-11-30; else today's.", show_default=False)
    ] = None,
    guide: Annotated[
        bool,
        typer.Option("--guide", help="As the deployment guide counts: parameters x bytes, June 2026, API $4 and $8."),
    ] = False,
    workload: Annotated[
        list[str] | None,
        typer.Option(help=f"Plan nodes for a workload: {FORM}; several are laid over each other.", show_default=False),
    ] = None,
    prefill_rate: Annotated[
        float | None, typer.Option(help="Prompt tokens/s that a node computes, for --workload.", min=0.1, max=1e9)
    ] = None,
    decode: Annotated[
        list[str] | None, typer.Option(help="USERS:RATE, answers at once and tokens/s of each, for --workload.")
    ] = None,
    preemptions_per_day: Annotated[
        float | None,
        typer.Option(help="How often one spot node is taken back, for --workload; 1 if not given.", min=0, max=1000),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="What so many nodes do with the --workload; else as many as are needed.", min=1, max=100_000),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The model's real config.json, for its memory.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of memory by part (.png, .svg).")] = None,
    profiles: ProfileFolder = None,
    as_json: AsJson = False,
) -> None:
    """Plan memory, concurrency and cost. Exit code 1 if a single thing asked for does not fit."""
    if gpu is None:
        _refuse({"--count": count, "--precision": precision}, "for --gpu, which is not given")
        if not workload:
            _refuse({"--model": model}, "for --gpu or --workload, and neither is given")
    if not workload:
        of_workload = {"--decode": decode, "--prefill-rate": prefill_rate, "--preemptions-per-day": preemptions_per_day}
        _refuse(of_workload | {"--nodes": nodes}, "for --workload, which is not given")
    known = list(load_profiles(profiles or ()).values())
    base = base_profile(known, model or MODEL)
    today = _day(as_of)
    question = Question(
        context=context,
        sequences=sequences,
        usd_per_gpu_hour=checked_usd(price),
        price_kind=_kind(kind, spot),
        tokens_per_second=tokens_per_second,
        api_prices=_apis(api_price or (GUIDE_API_PRICES if guide else ()), today),
        shape=_shape(shape),
        architecture=_read_config(config),
        by_parameters=guide,
        prices=load_prices(prices),
        day=GUIDE_DAY if guide else today,
        today=today,
    )
    chosen = [find_profile(name, profiles or ()) for name in names or ()]
    if gpu is not None:
        chosen.append(machine_profile(base, gpu.lower(), count or 8, _precision(precision or "fp8")))
    if workload:
        unread = {
            "--context": context,
            "--sequences": sequences,
            "--tokens-per-second": tokens_per_second,
            "--plot": plot,
        }
        of_one = {**unread, "--shape": shape, "--guide": guide or None}
        _refuse(of_one, "--workload says that itself; its fields are in docs/planning.md")
        often = PREEMPTIONS_PER_DAY if preemptions_per_day is None else preemptions_per_day
        asked = WorkloadQuestion(read_workload(workload), prefill_rate, read_points(decode or ()), often, nodes)
        _show_workload(chosen, base, known, asked, question, as_json)
        return
    plans = [make_plan(profile, question, known) for profile in chosen or known]
    beside = {name: make_plan(find_profile(name, profiles or ()), question) for name in _preferred(chosen)}
    _show(plans, chosen, beside, as_json)
    if plot is not None:
        plot_plans(plans, plot)
    if len(chosen) == 1 and not plans[0].memory.fits:
        raise typer.Exit(FAILED)


def _preferred(chosen: list[Profile]) -> list[str]:
    """The profiles that we would run in place of the chosen ones."""
    return [profile.rather.profile for profile in chosen if profile.rather is not None]


def _show(plans: list[Plan], chosen: list[Profile], beside: Mapping[str, Plan], as_json: bool) -> None:
    if as_json:
        print_json([plan_json(p) for p in (plans if chosen else ranked(plans))])
        return
    console = plan_console()
    if not chosen:
        print_summary(console, plans)
        print_preferences(console, plans)
    for answer in plans if chosen else ():
        print_plan(console, answer)
        if answer.profile.rather is not None:
            print_rather(console, answer, beside[answer.profile.rather.profile])


def _show_workload(
    chosen: list[Profile],
    base: Profile,
    known: list[Profile],
    asked: WorkloadQuestion,
    question: Question,
    as_json: bool,
) -> None:
    """What is chosen in full, else one line for each profile of the model."""
    console = plan_console()
    refusals: list[str] = []
    if chosen:
        plans = [plan_workload(profile, asked, question) for profile in chosen]
    else:
        plans, refusals = plan_workloads([p for p in known if p.model.name == base.model.name], asked, question)
    if as_json:
        print_json([workload_json(plan) for plan in plans])
    elif chosen:
        for plan in plans:
            print_workload(console, plan, question)
    else:
        print_workloads(console, asked.workload, plans, refusals, question)
    if not plans:
        raise typer.Exit(FAILED)


def _day(text: str | None) -> datetime.date:
    try:
        return datetime.date.today() if text is None else day_of(text)
    except ValueError as error:
        raise ConfigError(f"--as-of: {error}") from error


def _refuse(options: Mapping[str, object], why: str) -> None:
    """What is given and would be read by nobody."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: {why}")


def _kind(given: str | None, spot: bool) -> PriceKind | None:
    kind = None if given is None else price_kind(given)
    if spot and kind not in (None, "spot"):
        raise ConfigError(f"--price-kind {given} and --spot, which is --price-kind spot: give one of them")
    return "spot" if spot else kind


def _precision(name: str) -> Precision:
    for known in BYTES_PER_PARAMETER:
        if known == name.lower():
            return known
    raise ConfigError(f"unknown precision {name!r}; known: {', '.join(BYTES_PER_PARAMETER)}")


def _read_config(file: Path | None) -> Architecture | None:
    if file is None:
        return None
    try:
        return read_architecture(read_document(file))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _apis(given: tuple[str, ...] | list[str], today: datetime.date) -> tuple[ApiPrice, ...] | None:
    return tuple(_api(text, today) for text in given) or None


def _api(text: str, today: datetime.date) -> ApiPrice:
    *reads, output = slashed_numbers(
        text, "--api-price", "OUT, IN/OUT or IN/CACHED/OUT in US dollars per million tokens"
    )
    return ApiPrice(
        name=text,
        input=reads[0] if reads else None,
        cached=reads[1] if len(reads) > 1 else None,
        output=output,
        date=today.isoformat(),
        source="given on the command line",
    )


def _shape(text: str | None) -> RequestShape:
    if text is None:
        return RequestShape()
    numbers = slashed_numbers(text, "--shape", "IN/CACHED/OUT tokens of a request, CACHED at most IN")
    if len(numbers) != 3 or numbers[1] > numbers[0]:
        raise ConfigError(f"--shape: {text!r} is not IN/CACHED/OUT tokens of a request, CACHED at most IN")
    return RequestShape(*numbers)
