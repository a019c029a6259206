"""What this process is, and what it uses, for the metrics."""

import asyncio
import platform
import resource
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from gateway.core import plan

PAGE_BYTES = resource.getpagesize()


class ProcessFacts(NamedTuple):
    """`build`: plain or compiled. `resident_bytes` and `open_files` (sockets too) are 0 where the system does not say;
    `tasks` are those of the running event loop.
    """

    version: str
    python: str
    build: str
    cpu_seconds: float
    resident_bytes: int
    open_files: int
    tasks: int


def read_process_facts() -> ProcessFacts:
    """The facts now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    return ProcessFacts(_version(), platform.python_version(), _build(), cpu, _resident(), _open_files(), _tasks())


@cache
def _version() -> str:
    try:
        return version("fleetgate")
    except PackageNotFoundError:
        return "unknown"


@cache
def _build() -> str:
    """Whether the way of a request is compiled."""
    return "plain" if (plan.__file__ or "").endswith(".py") else "compiled"


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _open_files() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # the listing's own
    except OSError:
        return 0


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no event loop runs here
        return 0
