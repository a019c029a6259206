"""`fleetgate-worker unit`: the file by which systemd, Slurm, SkyPilot or cloud-init starts a node."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from workers.catalog.prices import PriceKind, price_kind
from workers.commands.edge import ProfileFolder, ProfileName, told
from workers.commands.launch_check import check_launch
from workers.commands.words import number
from workers.errors import ConfigError
from workers.launch.machines import has_ray
from workers.output_file import replaced_whole
from workers.profile import Profile
from workers.profiles.load import PROFILE_PATH, find_profile, is_built_in
from workers.unit import cloud_init, skypilot, slurm, systemd
from workers.unit.node import NodeUnit

Kind = Literal["systemd", "slurm", "skypilot", "cloud-init"]
RENDER: dict[Kind, Callable[[NodeUnit], str]] = {
    "systemd": systemd.render,
    "slurm": slurm.render,
    "skypilot": skypilot.render,
    "cloud-init": cloud_init.render,
}
INSTALLED = "/opt/fleetgate/bin/fleetgate-worker"
PROGRAMS: dict[Kind, str] = {
    "systemd": INSTALLED,
    "slurm": "fleetgate-worker",
    "skypilot": "fleetgate-worker",
    "cloud-init": INSTALLED,
}
SECRETS: dict[Kind, str] = {
    "systemd": "/etc/fleetgate/worker.env",
    "slurm": str(Path.home() / ".fleetgate" / "worker.env"),
    "skypilot": "",
    "cloud-init": "/etc/fleetgate/worker.env",
}
MOST_SECONDS = 60_000.0
"""Slurm's --signal takes no more than 65,535."""


@told
def unit(
    name: ProfileName,
    as_systemd: Annotated[bool, typer.Option("--systemd", help="A service.")] = False,
    as_slurm: Annotated[bool, typer.Option("--slurm", help="A batch script.")] = False,
    as_skypilot: Annotated[bool, typer.Option("--skypilot", help="A task.")] = False,
    as_cloud_init: Annotated[bool, typer.Option("--cloud-init", help="User data of a new machine.")] = False,
    model_dir: Annotated[str | None, typer.Option(help="The checkpoint's folder there; /models/PROFILE.")] = None,
    host: Annotated[str | None, typer.Option(help="Listen there; the machine's own address if not given.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the node's server.")] = 8000,
    advertise: Annotated[str | None, typer.Option(help="The URL by which gateways reach the node.")] = None,
    redis: Annotated[str | None, typer.Option(help="Register there, e.g. redis://10.0.0.2:6379.")] = None,
    price: Annotated[str | None, typer.Option("--price-kind", help="on-demand, reserved or spot.")] = None,
    spot: Annotated[list[str] | None, typer.Option(help="Spot notice: aws, gcp, azure, file:PATH, url:URL.")] = None,
    drain_seconds: Annotated[float, number("For running requests.", 0, MOST_SECONDS)] = 600.0,
    stop_seconds: Annotated[float, number("Between SIGTERM and SIGKILL.", 0, 600)] = 30.0,
    secrets: Annotated[
        str | None, typer.Option(help="File of NAME=VALUE lines there; /etc/fleetgate/worker.env, with Slurm in $HOME.")
    ] = None,
    secrets_from: Annotated[
        str | None, typer.Option(help="--cloud-init: a shell command that prints that file, by the machine's own role.")
    ] = None,
    program: Annotated[str | None, typer.Option(help="fleetgate-worker on the machine.")] = None,
    package: Annotated[
        str, typer.Option(help="--skypilot, --cloud-init: what pip installs for it.")
    ] = "fleetgate[worker-tools]",
    output: Annotated[Path | None, typer.Option(help="Write this file instead of printing.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
    more: Annotated[list[str] | None, typer.Argument(help="After --: more options for `launch`.")] = None,
    profiles: ProfileFolder = None,
) -> None:
    """Write what starts a node, and drains it when it is stopped. Secrets come from a file or the environment."""
    kind = _kind(systemd=as_systemd, slurm=as_slurm, skypilot=as_skypilot, cloud_init=as_cloud_init)
    _check_texts(name, model_dir, host, advertise, redis, secrets, secrets_from, program, package)
    _check_texts(*(spot or ()), *(more or ()))
    profile = find_profile(name, profiles or ())
    _check_place(kind, profile, more or [])
    _check_address(host, advertise, redis)
    paid = _kind_of_price(price, spot or (), more or ())
    if secrets is not None and (kind == "skypilot" or not secrets.startswith("/") or "\\" in secrets):
        raise ConfigError(f"--secrets {secrets!r}: the whole path of a file; SkyPilot takes `sky launch --secret NAME`")
    if secrets_from is not None and kind != "cloud-init":
        raise ConfigError("--secrets-from is for --cloud-init; elsewhere the file of --secrets has to be there")
    folder = model_dir or f"/models/{profile.name}"
    where = str(Path(name).absolute()) if name.endswith((".yaml", ".yml")) else name
    words = ["launch", where, *([] if profile.checkpoint.local and model_dir is None else ["--model-dir", folder])]
    words += [*(["--host", host] if host else []), "--port", str(port)]
    words += ["--drain-seconds", f"{drain_seconds:g}", "--stop-seconds", f"{stop_seconds:g}"]
    words += [word for source in spot or () for word in ("--spot", source)]
    words += more or []
    check_launch(profile, words[1:])
    worker = program or PROGRAMS[kind]
    if kind == "cloud-init" and program is not None:
        raise ConfigError(f"--program: --cloud-init installs it, as {INSTALLED}")
    if kind == "systemd" and not worker.startswith("/"):
        raise ConfigError(f"--program {worker!r}: systemd needs the whole path")
    text = RENDER[kind](
        NodeUnit(
            profile=profile,
            program=worker,
            command=(worker, *words),
            model_dir=folder,
            drain=drain_seconds,
            stop=stop_seconds,
            package=package,
            secrets=secrets or SECRETS[kind],
            host=host,
            spot=paid == "spot",
            secrets_from=secrets_from,
            environment=_environment(advertise, redis, paid, profiles or ()),
        )
    )
    if output is None:
        typer.echo(text, nl=False)
    else:
        write(output, text, force)


def write(file: Path, text: str, force: bool) -> None:
    """Write it. Raises ConfigError where it is there already, also as a broken link, and `force` is not given."""
    try:
        if force:
            with replaced_whole(file) as beside:
                beside.write_text(text)
        else:
            with file.open("x") as out:
                out.write(text)
    except FileExistsError:
        raise ConfigError(f"--output {file} is there already: --force overwrites it") from None
    except OSError as error:
        raise ConfigError(f"--output {file}: cannot be written ({error.strerror})") from error


def _kind(**chosen: bool) -> Kind:
    names = [name.replace("_", "-") for name, wanted in chosen.items() if wanted]
    for kind in RENDER:
        if names == [kind]:
            return kind
    raise ConfigError("give one of --systemd, --slurm, --skypilot and --cloud-init")


def _check_texts(*texts: str | None) -> None:
    """A line break in an option would be a line of its own in the file."""
    for text in texts:
        if text is not None and (not text or not text.isprintable()):
            raise ConfigError(f"{text!r}: an option must not be empty, nor have line breaks or control characters")


def _check_place(kind: Kind, profile: Profile, more: list[str]) -> None:
    if kind in ("skypilot", "cloud-init") and not is_built_in(profile):
        raise ConfigError(
            f"{profile.name} is a profile of yours, which the new machine does not have: use --systemd or --slurm"
        )
    if profile.hardware.nodes == 1:
        return
    if kind in ("slurm", "skypilot"):
        raise ConfigError(f"{profile.name} runs on {profile.hardware.nodes} machines: --{kind} is for one machine")
    rank = "" if has_ray(profile) else " --rank N"
    if not any(word == "--role" or word.startswith("--role=") for word in more):
        raise ConfigError(
            f"{profile.name} runs on {profile.hardware.nodes} machines, with a file each: end the command with "
            f"`-- --role head --address ADDRESS`, and for the others `-- --role worker --head ADDRESS{rank}`"
        )


def _check_address(host: str | None, advertise: str | None, redis: str | None) -> None:
    if redis is not None and not redis.startswith(("redis://", "rediss://")):
        raise ConfigError("--redis: expected redis://HOST:PORT, or rediss:// for TLS")
    if redis is not None and "@" in redis:
        raise ConfigError("--redis has a user or a password: put FLEETGATE_WORKER_REDIS=... into the file of --secrets")
    if advertise is not None and not _is_http(advertise):
        raise ConfigError(f"--advertise {advertise!r}: expected http://HOST:PORT")
    if host in ("0.0.0.0", "::") and advertise is None:
        raise ConfigError(f"--host {host} is no address that gateways could use: add --advertise http://ADDRESS:PORT")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _kind_of_price(price: str | None, spot: Iterable[str], more: Iterable[str]) -> PriceKind | None:
    """What the machine is paid as. By it SkyPilot rents, and gateways count: it has to be said once, and here."""
    if any(word.split("=")[0] == "--price-kind" for word in more):
        raise ConfigError("--price-kind stands before --, since it says what machine is rented")
    has_notices = any(True for _ in spot) or any(word.split("=")[0] == "--spot" for word in more)
    if price is None and has_notices:
        raise ConfigError("--spot without --price-kind: add --price-kind spot, or what else the machine is paid as")
    return None if price is None else price_kind(price)


def _environment(
    advertise: str | None, redis: str | None, price: PriceKind | None, profiles: Iterable[Path]
) -> dict[str, str]:
    folders = os.pathsep.join(str(folder.absolute()) for folder in profiles)
    settings = {
        "FLEETGATE_WORKER_ADVERTISE": advertise,
        "FLEETGATE_WORKER_REDIS": redis,
        "FLEETGATE_WORKER_PRICE_KIND": price,
        PROFILE_PATH: folders or None,
    }
    return {name: value for name, value in settings.items() if value is not None}
