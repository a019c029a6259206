"""A machine's part in a node: alone, or head or worker of several, which Ray joins, or vLLM itself by rank."""

from typing import Literal

from workers.argv import MASTER_PORT, Machine
from workers.errors import ConfigError
from workers.profile import Profile

Role = Literal["single", "head", "worker"]


def role_of(profile: Profile, role: str, head: str | None) -> Role:
    """The role as given. Raises ConfigError for one that the profile does not have."""
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


def machine_of(profile: Profile, role: Role, head: str | None, address: str | None, rank: int | None) -> Machine:
    """This machine's part of a node of several; `rank` is 1 where it is None.

    Raises ConfigError where its rank or the head's address is missing, and for what its role does not read.
    """
    given = {"--head": head, "--address": address, "--rank": rank}
    unread = [name for name, value in given.items() if value is not None and name not in _read_by(profile, role)]
    if unread:
        raise ConfigError(f"{', '.join(unread)}: --role {role} of {profile.name} does not read it; leave it out")
    rank = 1 if rank is None else rank
    if not joins_by_rank(profile):
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


def _read_by(profile: Profile, role: Role) -> tuple[str, ...]:
    """The options that this role reads."""
    if role == "single":
        return ()
    if role == "head":
        return ("--address",)
    return ("--head", "--address") if has_ray(profile) else ("--head", "--rank")


def joins_by_rank(profile: Profile) -> bool:
    """Whether vLLM itself joins the machines, each by its rank."""
    return profile.hardware.nodes > 1 and not has_ray(profile)


def has_ray(profile: Profile) -> bool:
    """Whether Ray joins the machines."""
    return profile.parallel.backend == "ray"
