"""What a vLLM on this machine's CPU needs beside its profile: cores, threads, a free port."""

import os
import re
import socket
from collections.abc import Mapping, Sequence

from workers.errors import ConfigError, NodeFailed

MODEL_NAME = "nemotron-3-ultra"
MAX_CORES = 4  # more do not make a model of 135M parameters faster
BIND = "VLLM_CPU_OMP_THREADS_BIND"
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""The caller's Python settings: they are for another environment than vLLM's."""


def thread_settings(cores: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The cores that vLLM computes on, and as many threads: `cores` in vLLM's notation ("1", "0,2-5"), else the
    caller's variable, else the upper half of this machine's. Raises ConfigError where `cores` is no such list.
    """
    if cores is None and BIND in environ:
        bound = environ[BIND]  # "auto" and other words of vLLM's count no cores
        return {"OMP_NUM_THREADS": str(_count_cores(bound))} if _is_list(bound) else {}
    chosen = default_cores(available_cores()) if cores is None else cores
    if not _is_list(chosen):
        raise ConfigError(f"--cores {cores!r} is not a list of cores such as 1 or 0,2-5")
    return {BIND: chosen, "OMP_NUM_THREADS": str(_count_cores(chosen))}


def without_foreign_python(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment for a server that runs in another virtual environment than ours."""
    return {name: value for name, value in environ.items() if name not in FOREIGN}


def default_cores(available: Sequence[int]) -> str:
    """The upper half of the cores, at most four: the rest is for the gateway and whoever sends requests."""
    ordered = sorted(available)
    count = min(MAX_CORES, max(1, len(ordered) // 2))
    return ",".join(str(core) for core in ordered[-count:])


def available_cores() -> list[int]:
    """The cores that this process may run on, which a container may have limited."""
    return sorted(os.sched_getaffinity(0))


def free_port(host: str) -> int:
    """A TCP port that nobody listens on at this moment. Raises NodeFailed where `host` is not this machine's."""
    with _bound(host, 0) as listener:
        return int(listener.getsockname()[1])


def require_port(host: str, port: int) -> None:
    """Raise NodeFailed where the port is taken: vLLM itself would say so only after half a minute."""
    _bound(host, port).close()


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise NodeFailed(f"cannot listen on {host}:{port}: {reason}. Choose another --host or --port.") from error
    return listener


def _is_list(cores: str) -> bool:
    return re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", cores, re.ASCII) is not None and all(
        _count_part(part) > 0 for part in cores.split(",")
    )


def _count_cores(cores: str) -> int:
    return sum(_count_part(part) for part in cores.split(","))


def _count_part(part: str) -> int:
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1
