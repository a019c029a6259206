"""What the kernel says a tree of processes costs: CPU time and memory out of /proc.

A proxy may be one process or a master with workers, one thread or many, so everything here is summed over
the process and all its descendants. Times that a dead child left with its parent (cutime, cstime) are counted
too: a worker that ends during a measurement is not lost.
"""

import contextlib
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SECONDS_PER_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of one /proc/PID/stat that matter here; CPU time in seconds, its own and that of its dead children."""

    pid: int
    parent: int
    cpu_seconds: float
    cpu_of_dead: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process tree has used so far: CPU time in seconds, proportional and resident set in bytes."""

    cpu_seconds: float
    pss_bytes: int
    rss_bytes: int


def parse_stat(text: str) -> Stat:
    """Read one line of /proc/PID/stat. The command's name may hold spaces and brackets."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    own, dead = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return Stat(int(head.split(" ", 1)[0]), int(fields[1]), own * SECONDS_PER_TICK, dead * SECONDS_PER_TICK)


def cpu_seconds(stat: Stat) -> float:
    """What a process has used itself, to the nanosecond: /proc counts in ticks of 10 ms, two percent of a window.

    Its clock's number is made as clock_getcpuclockid(3) makes it.
    """
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return time.clock_gettime(~stat.pid << 3 | 2)
    return stat.cpu_seconds


def parse_rollup(text: str) -> tuple[int, int]:
    """Read /proc/PID/smaps_rollup: (PSS, RSS) in bytes."""
    sizes = {"Pss:": 0, "Rss:": 0}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in sizes:
            sizes[words[0]] = int(words[1]) * 1024
    return sizes["Pss:"], sizes["Rss:"]


def descendants(root: int, stats: Iterable[Stat]) -> list[Stat]:
    """The process `root` and everything below it, out of a snapshot of all processes."""
    children: dict[int, list[Stat]] = {}
    found = []
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
        if stat.pid == root:
            found.append(stat)
    for stat in found:
        found.extend(children.get(stat.pid, []))
    return found


def snapshot() -> list[Stat]:
    """Every process of this machine, those skipped that ended while being read."""
    stats = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (text := _read(entry / "stat")):
            stats.append(parse_stat(text))
    return stats


def tree_cost(root: int) -> Cost:
    """CPU time and memory of `root` and its descendants, now."""
    tree = descendants(root, snapshot())
    sizes = [parse_rollup(_read(PROC / str(stat.pid) / "smaps_rollup")) for stat in tree]
    return Cost(
        cpu_seconds=sum(cpu_seconds(stat) + stat.cpu_of_dead for stat in tree),
        pss_bytes=sum(pss for pss, _ in sizes),
        rss_bytes=sum(rss for _, rss in sizes),
    )


def machine() -> dict[str, str]:
    """The facts a reader needs beside any number: processor, cores, kernel, memory, Python, load."""
    model = _field(_read(PROC / "cpuinfo"), "model name")
    return {
        "processor": model or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _field(_read(PROC / "meminfo"), "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
