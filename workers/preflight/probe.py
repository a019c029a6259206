"""Asks this machine: runs the commands, measures the host. Nothing here judges.

GPU names, memory and versions come from NVML where nvidia-ml-py is installed, since that is an API and not a
text; the link matrix comes from `nvidia-smi topo -m`, which says in one table what NVML says in hundreds of
calls. What could identify the machine (serial numbers, UUIDs, host names) is not asked for.
"""

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from workers.preflight.capture import Capture, Host, Limits, Output
from workers.preflight.nvml import ask_nvml
from workers.preflight.smi import GPU_QUERY, read_visible

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "gpus": ("nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"),
    "smi": ("nvidia-smi",),
    "topology": ("nvidia-smi", "topo", "-m"),
    "infiniband": ("ibstat",),
    "efa": ("fi_info", "-p", "efa"),
    "ray": ("ray", "status"),
    "clock": ("timedatectl", "show", "--property=NTPSynchronized"),
    "chrony": ("chronyc", "-n", "tracking"),
    "vllm": ("vllm", "--version"),
}
COMMAND_SECONDS = 60


def probe_machine(folder: Path, ports: Iterable[int]) -> Capture:
    """Ask everything. `folder` is where the checkpoint will lie, `ports` are those the node will use."""
    commands = {name: run(argv) for name, argv in COMMANDS.items()}
    return Capture(
        verified=True,
        origin="this machine",
        host=measure_host(folder, ports),
        gpus=ask_nvml(),
        commands=commands,
    )


def run(argv: Sequence[str]) -> Output:
    """Run one command. A missing program, or one that hangs, is a result and no error."""
    if shutil.which(argv[0]) is None:
        return Output(argv=tuple(argv), exit_code=None)
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=COMMAND_SECONDS, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return Output(argv=tuple(argv), exit_code=-1, stderr=str(error))
    return Output(argv=tuple(argv), exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def measure_host(folder: Path, ports: Iterable[int]) -> Host:
    """Memory, disk, limits and ports of this machine."""
    existing = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
    return Host(
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        shared_memory=_size_of("/dev/shm"),
        disk_free=shutil.disk_usage(existing).free,
        disk_folder=str(folder),
        limits=Limits(
            open_files=_limit(resource.RLIMIT_NOFILE),
            processes=_limit(resource.RLIMIT_NPROC),
            locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        ),
        ports_taken=tuple(port for port in ports if _is_taken(port)),
        visible_gpus=read_visible(os.environ.get("CUDA_VISIBLE_DEVICES")),
    )


def _size_of(mount: str) -> int:
    return shutil.disk_usage(mount).total if Path(mount).exists() else 0


def _limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _is_taken(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError:
            return True
    return False
