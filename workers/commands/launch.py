"""`fleetgate-worker launch`: run a profile's vLLM, watch over it, register it, drain it."""

import asyncio
import contextlib
import datetime
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from workers.argv import Binding
from workers.catalog.prices import checked_usd, load_prices, price_kind
from workers.commands.argv import Host, ModelFolder, Port
from workers.commands.edge import PriceFile, ProfileFolder, ProfileName, told
from workers.commands.words import number, split_command
from workers.gpus.metrics import parse_address
from workers.gpus.telemetry import RecordGpus, gpu_telemetry
from workers.launch.identity import advertised_url, labels_of, node_id_of
from workers.launch.joined import keep_joined
from workers.launch.machines import has_ray, machine_of, role_of
from workers.launch.output import Outlet
from workers.launch.plan import LaunchPlan, Patience, price_of
from workers.launch.ray_cluster import is_cluster_up, start_head, stop_ray, worker_command
from workers.launch.server import Server, own_server, vllm_server
from workers.launch.spot import NoticeSource, parse_source
from workers.launch.supervisor import Supervisor
from workers.profile import Profile
from workers.profiles.load import find_profile
from workers.registration import HEARTBEAT_SECONDS, LONGEST_HEARTBEAT_SECONDS, Capacity, Cost
from workers.registry import NoRegistry, RedisRegistry

SECRET = "FLEETGATE_WORKER_SECRET"
REDIS = "FLEETGATE_WORKER_REDIS"
PRICE = "FLEETGATE_WORKER_PRICE"
PRICE_KIND = "FLEETGATE_WORKER_PRICE_KIND"


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
    weight: Annotated[float, number("Share of work against other nodes.", 0.01, 1000)] = 1.0,
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
    spot_poll_seconds: Annotated[float, number("Seconds between two checks for a notice.", 0.1)] = 5.0,
    role: Annotated[str, typer.Option(help="single, or head or worker of a node of several machines.")] = "single",
    head: Annotated[str | None, typer.Option(help="The head's address, for --role worker.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="This machine among several, for --role worker; 1 if not given.", min=1)
    ] = None,
    address: Annotated[str | None, typer.Option(help="This machine's address on the fast network.")] = None,
    drain_seconds: Annotated[float, number("Seconds to wait for running requests.", 0)] = 600.0,
    stop_seconds: Annotated[float, number("Seconds between SIGTERM and SIGKILL.", 0)] = 30.0,
    startup_seconds: Annotated[float | None, number("The profile's if not given.", 1)] = None,
    heartbeat_seconds: Annotated[
        float, number("Seconds between two writes of the record.", 0.1, LONGEST_HEARTBEAT_SECONDS)
    ] = HEARTBEAT_SECONDS,
    backoff_seconds: Annotated[float, number("Seconds to wait before the first restart.", 0.01)] = 1.0,
    proof_seconds: Annotated[float, number("Seconds between checks of an idle node.", 0.1)] = 60.0,
    startups: Annotated[int, typer.Option(help="Give up after this many failed starts; 0: never.", min=0)] = 5,
    once: Annotated[bool, typer.Option("--once", help="End with the server instead of starting it again.")] = False,
    metrics: Annotated[
        str, typer.Option(help="HOST:PORT for metrics of the GPUs; off: none.", envvar="FLEETGATE_WORKER_METRICS")
    ] = "127.0.0.1:9109",
    vllm: Annotated[
        str | None, typer.Option("--vllm", help="The version whose flags are used; what is installed if not given.")
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(envvar="FLEETGATE_WORKER_VLLM", help="How vLLM is started; `vllm serve`, or its CPU build."),
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="Run this instead of vLLM, {host} and {port} filled in: a fake node, say.")
    ] = None,
    profiles: ProfileFolder = None,
) -> None:
    """Start a node and stay until it is told to stop. Exit code 1 if it cannot be brought up.

    A profile for a CPU sets up vLLM's CPU build, and the tiny model, where they are missing.
    """
    profile = find_profile(name, profiles or ())
    checked = role_of(profile, role, head)
    metrics_at = parse_address(metrics)
    binding = Binding(host, port)
    machine = machine_of(profile, checked, head, address, rank)

    def vllm_here() -> Server:
        words = None if program is None else split_command("--program", program)
        return vllm_server(
            profile, binding, os.environ, _say, model_dir=model_dir, program=words, version=vllm, machine=machine
        )

    if checked == "worker":
        if has_ray(profile):
            joining = Server(tuple(worker_command(profile, head or "", address)), {**profile.environment, **os.environ})
        else:
            joining = vllm_here()
        with gpu_telemetry(profile.hardware, joining.environment, metrics_at, _say):
            raise typer.Exit(asyncio.run(keep_joined(joining.command, joining.environment, _say, backoff_seconds)))
    registry = None if redis is None else RedisRegistry(redis, os.environ.get(SECRET))
    named = node_id_of(node_id, profile, binding)
    reached = advertised_url(advertise, binding, redis)
    labels = labels_of(label or ())
    sources = [parse_source(text, spot_poll_seconds) for text in spot or ()]
    cost = _price(profile, kind, price, prices, bool(spot))
    if command is None:
        server = vllm_here()
    else:
        server = own_server(profile, split_command("--command", command), binding, os.environ)
    patience = Patience(
        startup=startup_seconds or profile.startup_seconds,
        drain=drain_seconds,
        settle=0.0 if redis is None else heartbeat_seconds,
        stop=stop_seconds,
        heartbeat=heartbeat_seconds,
        watch=heartbeat_seconds,
        proof=proof_seconds,
        backoff=backoff_seconds,
        startups=startups,
    )
    plan = LaunchPlan(
        node_id=named,
        profile=profile.name,
        served_name=profile.served_name,
        command=server.command,
        environment=server.environment,
        binding=binding,
        advertise=reached,
        capacity=Capacity(max_concurrency=profile.max_sequences, max_model_len=profile.max_model_len),
        price=cost,
        has_budgets=profile.reasoning_parser is not None,
        api_key=os.environ.get("VLLM_API_KEY"),
        weight=weight,
        labels=labels,
        patience=patience,
        once=once,
    )
    own_ray = checked == "head" and has_ray(profile) and not is_cluster_up(profile, server.environment, _say)
    try:
        if own_ray:
            # Until the supervisor listens, a SIGTERM has to lead to the `finally` below.
            signal.signal(signal.SIGTERM, _leave)
            start_head(profile, address, server.environment, _say, patience.startup)
        with gpu_telemetry(profile.hardware, server.environment, metrics_at, _say) as gpus:
            raise typer.Exit(asyncio.run(_supervise(plan, registry, sources, gpus)))
    finally:
        if own_ray:
            stop_ray(server.environment)


async def _supervise(
    plan: LaunchPlan, registry: RedisRegistry | None, sources: Sequence[NoticeSource], gpus: RecordGpus
) -> int:
    said, logged = Outlet(2), Outlet(1)
    try:
        if registry is None:
            said.write("launch: no --redis: list this node in the gateways' config")
            return await Supervisor(plan, NoRegistry(), _launch_line(said), logged.write, gpus).run(sources)
        async with registry:
            return await Supervisor(plan, registry, _launch_line(said), logged.write, gpus).run(sources)
    finally:
        said.close()
        logged.close()


def _launch_line(outlet: Outlet) -> Callable[[str], None]:
    """The launcher's own lines go to stderr, apart from the server's log on stdout."""
    return lambda line: outlet.write(f"launch: {line}")


def _price(profile: Profile, kind: str | None, usd: float | None, own: Path | None, spot: bool) -> Cost | None:
    """What the node is announced to cost. Raises ConfigError for a kind or a price that is none."""
    if kind is None and spot:
        _say("the price is the spot one because of --spot; this will end: say --price-kind spot")
    wanted = price_kind(kind or ("spot" if spot else "on-demand"))
    cost = price_of(profile, wanted, load_prices(own), datetime.date.today(), checked_usd(usd))
    if cost is None and (kind is not None or spot or profile.hardware.gpu.family != "cpu"):
        _say(f"no {wanted} price of {profile.hardware.gpu.name} is known: give --price, or a row in --prices FILE")
    return cost


def _leave(number: int, frame: FrameType | None) -> None:
    raise typer.Exit(0)


def _say(line: str) -> None:
    """A line before the server runs. What cannot be written (a full disk, a reader that is gone) is lost."""
    with contextlib.suppress(OSError):
        typer.echo(f"launch: {line}", err=True)
