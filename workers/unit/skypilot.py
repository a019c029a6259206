"""A SkyPilot task."""

import math
import shlex
from typing import Any

from workers.download_plan import download_bytes
from workers.unit.literal_yaml import dump
from workers.unit.node import SECRETS, NodeUnit

SYSTEM_DISK_GB = 100
"""Beside the checkpoint: the system's image, vLLM and its caches."""

NAMES = {"a100": "A100-80GB"}
"""SkyPilot's names of GPUs, where they are not the catalogue's in capitals."""

PREPARED = (
    'export PATH="$HOME/fleetgate-env/bin:$HOME/vllm-env/bin:$PATH"',
    "# A secret that was not given is empty here.",
    *(f'[ -n "${{{name}:-}}" ] || unset {name}' for name in SECRETS),
)


def render(node: NodeUnit) -> str:
    """The text of a task file for `sky launch`."""
    head = (
        f"# sky launch -c {node.name} FILE, with --secret NAME for each secret that your environment has.\n"
        "# `sky down` ends the machine without a drain: run `fleetgate drain` on a gateway first.\n"
    )
    document: dict[str, Any] = {
        "name": node.name,
        "num_nodes": 1,
        "resources": _resources(node),
        "envs": dict(node.environment),
        "secrets": dict.fromkeys(SECRETS, ""),
        "setup": _setup(node),
        "run": _run(node),
    }
    return head + dump(document)


def _resources(node: NodeUnit) -> dict[str, Any]:
    hardware = node.profile.hardware
    gpu = hardware.gpu.name
    wanted: dict[str, Any] = {"cpus": f"{2 * (2 + hardware.gpus_per_node)}+"}
    if hardware.gpu.family != "cpu":
        wanted["accelerators"] = {NAMES.get(gpu, gpu.upper()): hardware.gpus_per_node}
    wanted["memory"] = f"{math.ceil(node.profile.host_memory_gb)}+"
    wanted["disk_size"] = SYSTEM_DISK_GB + int(download_bytes(node.profile) / 1e9)
    wanted["use_spot"] = node.spot
    return wanted


def _setup(node: NodeUnit) -> str:
    lines = [
        "set -eu",
        *_environment("fleetgate-env", node.package),
        *(_environment("vllm-env", *node.vllm) if node.vllm else ()),
        *PREPARED,
        f'sudo install -d -o "$(id -u)" {shlex.join(node.folders)}',
        *([shlex.join(node.download)] if node.download else []),
    ]
    return "\n".join(lines) + "\n"


def _environment(name: str, *packages: str) -> tuple[str, str]:
    folder = f'"$HOME/{name}"'
    return (
        f"[ -x {folder}/bin/pip ] || python3 -m venv {folder}",
        f"{folder}/bin/pip install {shlex.join(packages)}",
    )


def _run(node: NodeUnit) -> str:
    lines = [
        "set -eu",
        *PREPARED,
        *([] if node.host else ['export FLEETGATE_WORKER_HOST="$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"']),
        f"exec {shlex.join(node.command)}",
    ]
    return "\n".join(lines) + "\n"
