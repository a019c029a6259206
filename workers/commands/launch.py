"""`fleetgate-worker launch`: run a profile's vLLM, watch over it, register it, drain it."""

import asyncio
import contextlib
import datetime
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from workers.argv import MASTER_PORT, Binding, Machine, command_line, flags_of
from workers.catalog.prices import checked_usd, load_prices, price_kind
from workers.checkpoint import find_weights
from workers.commands.argv import Host, ModelFolder, Port, VllmProgram, VllmVersion
from workers.commands.edge import PriceFile, ProfileFolder, ProfileName, told
from workers.errors import ConfigError
from workers.flags.flagset import usable
from workers.flags.known import known_flags
from workers.launch.joined import keep_joined
from workers.launch.plan import LaunchPlan, Patience, fill_command, local_url, new_node_id, price_of
from workers.launch.ray_cluster import is_cluster_up, start_head, stop_ray, worker_command
from workers.launch.spot import NoticeSource, parse_source
from workers.launch.supervisor import Supervisor
from workers.profile import Profile
from workers.profiles.load import find_profile
from workers.registration import Capacity, Cost
from workers.registry import NoRegistry, RedisRegistry

SECRET = "FLEETGATE_WORKER_SECRET"
REDIS = "FLEETGATE_WORKER_REDIS"
PRICE = "FLEETGATE_WORKER_PRICE"
PRICE_KIND = "FLEETGATE_WORKER_PRICE_KIND"
Role = Literal["single", "head", "worker"]


@told
def launch(
    name: ProfileName,
    model_dir: ModelFolder = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    advertise: Annotated[
        str | None, typer.Option(envvar="FLEETGATE_WORKER_ADVERTISE", help="The URL by which gateways reach the node.")
    ] = None,
    redis: Annotated[str | None, typer.Option(envvar=REDIS, help="Register here, e.g. redis://10.0.0.2:6379.")] = None,
    node_id: Annotated[str | None, typer.Option(envvar="FLEETGATE_WORKER_NODE_ID", help="The node's name.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, published to the gateways.")] = None,
    weight: Annotated[float, typer.Option(help="Share of work against other nodes.", min=0.01)] = 1.0,
    spot: Annotated[
        list[str] | None, typer.Option(help="Spot notice: aws, gcp, azure, file:PATH or url:ADDRESS.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(envvar=PRICE, help="US dollars per GPU hour; else by the list.", min=0)
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--price-kind", envvar=PRICE_KIND, help="on-demand, reserved or spot.")
    ] = None,
    prices: PriceFile = None,
    spot_poll_seconds: Annotated[float, typer.Option(help="Seconds between two checks for a notice.", min=0.1)] = 5.0,
    role: Annotated[str, typer.Option(help="single, or head or worker of a node of several machines.")] = "single",
    head: Annotated[str | None, typer.Option(help="The head's address, for --role worker.")] = None,
    rank: Annotated[int, typer.Option(help="This machine among several, for --role worker: 1 and up.", min=1)] = 1,
    address: Annotated[str | None, typer.Option(help="This machine's address on the fast network.")] = None,
    drain_seconds: Annotated[float, typer.Option(help="Seconds to wait for running requests.", min=0)] = 600.0,
    stop_seconds: Annotated[float, typer.Option(help="Seconds between SIGTERM and SIGKILL.", min=0)] = 30.0,
    startup_seconds: Annotated[float | None, typer.Option(help="The profile's if not given.", min=1)] = None,
    heartbeat_seconds: Annotated[float, typer.Option(min=0.1)] = 5.0,
    backoff_seconds: Annotated[float, typer.Option(help="Seconds to wait before the first restart.", min=0.01)] = 1.0,
    proof_seconds: Annotated[float, typer.Option(help="Seconds between checks of an idle node.", min=0.1)] = 60.0,
    startups: Annotated[int, typer.Option(help="Give up after this many failed starts; 0: never.", min=0)] = 5,
    vllm: VllmVersion = "installed",
    program: VllmProgram = "vllm serve",
    command: Annotated[
        str | None, typer.Option(help="Run this instead of vLLM, {host} and {port} filled in: a fake node, say.")
    ] = None,
    profiles: ProfileFolder = None,
) -> None:
    """Start a node and stay until it is told to stop. Exit code 1 if it cannot be brought up."""
    profile = find_profile(name, profiles or ())
    checked = _check_role(profile, role, head)
    environment = {**profile.environment, **os.environ}
    binding = Binding(host, port)
    machine = _machine(profile, checked, head, address, rank)
    if checked == "worker":
        joining = tuple(worker_command(profile, head or "", address))
        if not _has_ray(profile):
            check_serve(program)
            joining = _vllm_command(profile, model_dir, binding, vllm, program, machine)
        raise typer.Exit(asyncio.run(keep_joined(joining, environment, _say, backoff_seconds)))
    words = _own_command(command, binding) or _vllm_command(profile, model_dir, binding, vllm, program, machine)
    patience = Patience(
        startup=startup_seconds or profile.startup_seconds,
        drain=drain_seconds,
        stop=stop_seconds,
        heartbeat=heartbeat_seconds,
        watch=heartbeat_seconds,
        proof=proof_seconds,
        backoff=backoff_seconds,
        startups=startups,
    )
    plan = LaunchPlan(
        node_id=node_id or new_node_id(profile, binding),
        profile=profile.name,
        served_name=profile.served_name,
        command=words,
        environment=environment,
        local_url=local_url(binding),
        advertise=advertise or local_url(binding),
        capacity=Capacity(max_concurrency=profile.max_sequences, max_model_len=profile.max_model_len),
        price=_price(profile, kind, price, prices, bool(spot)),
        has_budgets=profile.reasoning_parser is not None,
        api_key=os.environ.get("VLLM_API_KEY"),
        weight=weight,
        labels=_labels(label or []),
        patience=patience,
    )
    sources = [parse_source(text, spot_poll_seconds) for text in spot or ()]
    own_ray = checked == "head" and _has_ray(profile) and not is_cluster_up(profile, environment, _say)
    try:
        if own_ray:
            # Until the supervisor listens, a SIGTERM has to lead to the `finally` below.
            signal.signal(signal.SIGTERM, _leave)
            start_head(profile, address, environment, _say, patience.startup)
        raise typer.Exit(asyncio.run(_supervise(plan, redis, sources)))
    finally:
        if own_ray:
            stop_ray(environment)


async def _supervise(plan: LaunchPlan, redis: str | None, sources: Sequence[NoticeSource]) -> int:
    if redis is None:
        _say("no --redis: list this node in the gateways' config")
        return await Supervisor(plan, NoRegistry(), _say, _log).run(sources)
    async with RedisRegistry(redis, os.environ.get(SECRET)) as registry:
        return await Supervisor(plan, registry, _say, _log).run(sources)


def _price(profile: Profile, kind: str | None, usd: float | None, own: Path | None, spot: bool) -> Cost | None:
    """What the node is announced to cost. Raises ConfigError for a kind or a price that is none."""
    if kind is None and spot:
        _say("the price is the spot one because of --spot; this will end: say --price-kind spot")
    wanted = price_kind(kind or ("spot" if spot else "on-demand"))
    cost = price_of(profile, wanted, load_prices(own), datetime.date.today(), checked_usd(usd))
    if cost is None and (kind is not None or spot or profile.hardware.gpu.family != "cpu"):
        _say(f"no {wanted} price of {profile.hardware.gpu.name} is known: give --price, or a row in --prices FILE")
    return cost


def _vllm_command(
    profile: Profile, model_dir: Path | None, binding: Binding, vllm: str, program: str, machine: Machine
) -> tuple[str, ...]:
    weights = find_weights(profile, model_dir)
    words = shlex.split(program)
    kept = usable(flags_of(profile, weights, binding, machine), known_flags(vllm, words))
    return tuple(command_line(weights, kept, words))


def _has_ray(profile: Profile) -> bool:
    return profile.parallel.backend == "ray"


def _machine(profile: Profile, role: Role, head: str | None, address: str | None, rank: int) -> Machine:
    """This machine's part of a node of several. Raises ConfigError where its rank or the head's address is missing."""
    if profile.hardware.nodes == 1 or _has_ray(profile):
        return Machine()
    if role == "head":
        if address is None:
            raise ConfigError("--role head needs --address, this machine's address on the fast network")
        return Machine(0, address)
    if rank >= profile.hardware.nodes:
        raise ConfigError(f"--rank {rank}: {profile.name} runs on {profile.hardware.nodes} machines, ranks from 0")
    if head is not None and head.count(":") == 1:
        raise ConfigError(f"--head {head}: give the address without a port; the machines meet at port {MASTER_PORT}")
    return Machine(rank, head or "")


def check_serve(program: str) -> None:
    """Raises ConfigError for a program without `--headless`: vLLM's bare API server module has no such mode."""
    if shlex.split(program)[-1:] != ["serve"]:
        raise ConfigError("--role worker without Ray needs `vllm serve` as --program: it alone takes --headless")


def _own_command(command: str | None, binding: Binding) -> tuple[str, ...] | None:
    return None if command is None else fill_command(shlex.split(command), binding)


def _check_role(profile: Profile, role: str, head: str | None) -> Role:
    several = profile.hardware.nodes > 1
    if role == "single" and not several:
        return "single"
    if role == "head" and several:
        return "head"
    if role == "worker" and several:
        if head is None:
            raise ConfigError("--role worker needs --head, the address of the machine with --role head")
        return "worker"
    wanted = "--role head on one machine and --role worker on the others" if several else "--role single"
    raise ConfigError(f"{profile.name} runs on {profile.hardware.nodes} machine(s): use {wanted}")


def _labels(given: list[str]) -> dict[str, str]:
    labels = dict(text.split("=", 1) for text in given if "=" in text)
    if len(labels) != len(given):
        raise ConfigError("--label takes KEY=VALUE, each key once")
    return labels


def _leave(number: int, frame: FrameType | None) -> None:
    raise typer.Exit(0)


def _say(line: str) -> None:
    """The launcher's own lines go to stderr, apart from the server's log on stdout.

    What cannot be written (a full disk, a reader that is gone) is lost: no node ends for it.
    """
    with contextlib.suppress(OSError):
        typer.echo(f"launch: {line}", err=True)


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, flush=True)
