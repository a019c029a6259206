"""A Slurm batch script."""

import math
import shlex

from workers.unit.node import FIND_ADDRESS, NodeUnit


def render(node: NodeUnit) -> str:
    """The text of a script for `sbatch`."""
    profile = node.profile
    gpus = profile.hardware.gpus_per_node
    on_gpu = profile.hardware.gpu.family != "cpu"
    options = [
        f"--job-name={node.name}",
        "--nodes=1",
        "--ntasks=1",
        *([f"--gpus-per-node={gpus}"] if on_gpu else []),
        # vLLM's own advice: one core for its server, one for its engine, one for each GPU; two threads a core.
        f"--cpus-per-task={2 * (2 + gpus)}",
        f"--mem={math.ceil(profile.host_memory_gb)}G",
        f"--signal=B:TERM@{node.stop_seconds}",
        "--requeue",
        "--open-mode=append",
        "--output=%x-%j.log",
    ]
    secrets = shlex.quote(node.secrets)
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "# Partition, account and time limit are yours: sbatch --partition=... --time=... FILE",
        f"# The node begins to drain {node.stop_seconds} s before its time limit.",
        "# To stop it: scancel --signal=TERM --batch JOB. A plain scancel kills after 30 s (KillWait).",
        "set -euo pipefail",
        "",
        f"# Secrets are NAME=VALUE lines of a file that only you can read: chmod 600 {node.secrets}",
        f"set -a; source {secrets}; set +a",
        *(f"export {name}={shlex.quote(value)}" for name, value in node.environment.items()),
        *([] if node.host else [FIND_ADDRESS, "export FLEETGATE_WORKER_HOST"]),
        "",
        "launcher= ending=",
        'trap \'ending=1; [ -z "$launcher" ] || kill -TERM "$launcher" 2>/dev/null || true\' TERM INT',
        f"{shlex.join(node.command)} &",
        "launcher=$!",
        '[ -z "$ending" ] || kill -TERM "$launcher" 2>/dev/null || true',
        "# A trapped signal ends `wait` before the launcher has drained: wait until it is gone, then ask how it ended.",
        'while wait "$launcher" || true; kill -0 "$launcher" 2>/dev/null; do :; done',
        "code=0",
        'wait "$launcher" || code=$?',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"
