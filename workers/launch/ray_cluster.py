"""A node over several machines that Ray joins: vLLM's server runs on the head only.

The head starts Ray, waits until the cluster counts all GPUs of the profile, and serves. The others run Ray in the
foreground; when the head is gone Ray ends there, and the launcher starts it again until the head is back.
"""

import subprocess
import time
from collections.abc import Callable, Mapping

from workers.argv import RAY_PORT
from workers.errors import MissingTool, NodeFailed
from workers.preflight.smi import read_ray_gpus
from workers.profile import Profile

COMMAND_SECONDS = 120.0
POLL_SECONDS = 2.0

Say = Callable[[str], None]


def head_command(profile: Profile, address: str | None) -> list[str]:
    """The command that starts Ray on the head. `address` is the one of the fast network; None lets Ray choose."""
    command = ["ray", "start", "--head", f"--port={RAY_PORT}", f"--num-gpus={profile.hardware.gpus_per_node}"]
    command += ["--disable-usage-stats"]
    return command if address is None else [*command, f"--node-ip-address={address}"]


def worker_command(profile: Profile, head: str, address: str | None) -> list[str]:
    """The command that joins another machine's Ray and stays in the foreground. `head` is a host or host:port."""
    joined = head if ":" in head else f"{head}:{RAY_PORT}"
    command = ["ray", "start", f"--address={joined}", f"--num-gpus={profile.hardware.gpus_per_node}", "--block"]
    command += ["--disable-usage-stats"]
    return command if address is None else [*command, f"--node-ip-address={address}"]


def start_head(profile: Profile, address: str | None, environment: Mapping[str, str], say: Say, seconds: float) -> None:
    """Start Ray and wait for all GPUs. Raises NodeFailed after `seconds`, MissingTool without Ray."""
    done = _run(head_command(profile, address), environment)
    if done.returncode != 0:
        raise NodeFailed(f"ray start failed: {(done.stderr or done.stdout).strip()[-400:]}")
    say(f"Ray's head is up; waiting for {profile.hardware.gpus} GPUs")
    deadline = time.monotonic() + seconds
    told = -1.0
    while (seen := _count_gpus(environment)) < profile.hardware.gpus:
        if time.monotonic() > deadline:
            raise NodeFailed(
                f"Ray counts {seen:g} of {profile.hardware.gpus} GPUs after {seconds:.0f} s; "
                "start `fleetgate-worker launch --role worker` on the other machines"
            )
        if seen != told:
            say(f"Ray counts {seen:g} of {profile.hardware.gpus} GPUs")
            told = seen
        time.sleep(min(POLL_SECONDS, seconds / 10))
    say(f"Ray counts all {profile.hardware.gpus} GPUs")


def is_cluster_up(profile: Profile, environment: Mapping[str, str], say: Say) -> bool:
    """Whether a cluster that somebody else started counts all GPUs already. It is used, and not stopped."""
    up = _count_gpus(environment) >= profile.hardware.gpus
    if up:
        say(f"a Ray cluster with {profile.hardware.gpus} GPUs runs already")
    return up


def stop_ray(environment: Mapping[str, str]) -> None:
    """Stop Ray on this machine."""
    _run(["ray", "stop"], environment)


def _count_gpus(environment: Mapping[str, str]) -> float:
    return read_ray_gpus(_run(["ray", "status"], environment).stdout) or 0.0


def _run(command: list[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, env=dict(environment)
        )
    except FileNotFoundError as missing:
        raise MissingTool(
            "ray is not installed: build the image with --build-arg RAY=1, pip install 'ray[cgraph]', or take a "
            "profile with parallel.backend: mp, which needs no Ray"
        ) from missing
    except subprocess.TimeoutExpired as slow:
        raise NodeFailed(f"{' '.join(command)} took longer than {COMMAND_SECONDS:.0f} s") from slow
