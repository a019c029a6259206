"""What all formats write down: the command of a node, its environment, and how long it may take to stop."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.launch.machines import has_ray
from workers.profile import Profile

SECRETS = ("FLEETGATE_WORKER_SECRET", "VLLM_API_KEY", "HF_TOKEN")
"""What a node takes of secrets. None is ever written into a unit."""

RAY = "ray[cgraph]>=2.48,<3"
"""For profiles whose machines Ray joins: vLLM comes without it. The bounds are those of vLLM's own requirements."""

VLLM = "/opt/vllm"
"""The virtual environment of vLLM on a machine that we set up: its packages are not ours, and must stay as tested."""

STOP_MARGIN_SECONDS = 30
"""Beside the drain and the time between SIGTERM and SIGKILL: the record is taken out, the process group collected."""

FIND_ADDRESS = (
    "FLEETGATE_WORKER_HOST=$(ip -4 -o route get 192.0.2.1 | sed -n 's/.* src \\([0-9.]*\\).*/\\1/p'); "
    '[ -n "$FLEETGATE_WORKER_HOST" ] || { echo "no address on a default route: give --host" >&2; exit 1; }'
)
"""The shell commands that find this machine's address on its default route. Nothing is sent to 192.0.2.1."""


@dataclass(frozen=True, slots=True)
class NodeUnit:
    """One node to be started. `command` is `fleetgate-worker launch ...` as words; `environment` holds no secret.

    `secrets` is a file of NAME=VALUE lines on the machine, `secrets_from` a shell command that prints it there. Without
    `host` the node listens on the machine's own address, found when it starts. Seconds of `drain` are for running
    requests, those of `stop` between SIGTERM and SIGKILL. `package` is what pip installs.
    """

    profile: Profile
    program: str
    command: tuple[str, ...]
    model_dir: str
    drain: float
    stop: float
    package: str
    secrets: str
    host: str | None = None
    spot: bool = False
    secrets_from: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def stop_seconds(self) -> int:
        """After how many seconds whoever stops the node may kill it."""
        return int(-(-(self.drain + self.stop) // 1)) + STOP_MARGIN_SECONDS

    @property
    def name(self) -> str:
        """For files and jobs: letters, digits and dashes."""
        return "fleetgate-" + re.sub(r"[^a-z0-9]+", "-", self.profile.name).strip("-")

    @property
    def vllm(self) -> tuple[str, ...]:
        """What pip installs for the version of the profile's image; empty where it names none, or for the CPU build."""
        found = re.search(r":v(\d+\.\d+\.\d+)$", self.profile.vllm_image)
        on_gpu = self.profile.hardware.gpu.family != "cpu"
        if not found or not on_gpu:
            return ()
        return (f"vllm=={found[1]}", *((RAY,) if has_ray(self.profile) else ()))

    @property
    def folders(self) -> tuple[str, ...]:
        """What the node writes to: its checkpoint, and keys and values that are offloaded to a disk."""
        offload = self.profile.kv_offload
        return (self.model_dir, *((offload.disk,) if offload and offload.disk else ()))

    @property
    def download(self) -> tuple[str, ...] | None:
        """The command that fetches the checkpoint, or goes on with it; None for a model that is made on the machine."""
        if self.profile.checkpoint.local:
            return None
        return (self.program, "download", self.profile.name, "--model-dir", self.model_dir)
