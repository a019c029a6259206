"""Checks of the machine around the GPUs: vLLM, checkpoint, disk, memory, limits, ports, clock."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from workers.argv import MASTER_PORT, RAY_PORT
from workers.checkpoint import check_checkpoint, find_weights, read_marker
from workers.download_plan import MARGIN, checkpoint_bytes, download_bytes
from workers.errors import DownloadFailed, WorkerError
from workers.preflight.capture import Capture
from workers.preflight.cluster_checks import ray_runs
from workers.preflight.finding import Finding, judged
from workers.profile import Profile
from workers.units import GB, GIB
from workers.versions import at_least

OPEN_FILES = 65_536
PROCESSES = 4_096
"""Threads count as processes. Each of vLLM's 8 workers starts one a core for arithmetic, and up to 32 compilers."""
CLOCK_SECONDS = 1.0


def check_host(profile: Profile, capture: Capture, folder: Path | None, joined: bool) -> Iterator[Finding]:
    """All findings about the host; `folder` is the checkpoint's, None if it is not to be looked at.

    `joined` says that the machines of the node should be joined by now, so that Ray may hold its port.
    """
    yield _vllm(profile, capture)
    complete = False
    if folder is not None:
        finding = _checkpoint(folder)
        complete = finding.level == "ok"
        yield finding
        yield _weights(profile, folder)
    yield _disk(profile, capture, complete)
    yield _memory(profile, capture)
    yield _shared_memory(profile, capture)
    yield from _limits(profile, capture)
    yield _ports(profile, capture, joined)
    yield _clock(capture)


def installed_vllm(capture: Capture) -> str | None:
    """The version of the vLLM on this machine, None without one."""
    output = capture.output("vllm")
    found = re.search(r"\d+\.\d+(\.\d+)?\S*", output.stdout) if output.worked else None
    return found.group() if found else None


def _vllm(profile: Profile, capture: Capture) -> Finding:
    version = installed_vllm(capture)
    needed = f"{profile.min_vllm} or newer"
    if version is None:
        fix = f"the worker image {profile.vllm_image} brings it; without a container: pip install vllm"
        return Finding("vLLM", "warn", "not installed here", needed, fix)
    return judged("vLLM", at_least(version, profile.min_vllm), version, needed, f"use {profile.vllm_image} or newer")


def _checkpoint(folder: Path) -> Finding:
    found = check_checkpoint(folder)
    whole = "" if found.expected_bytes is None else f": {found.expected_bytes / GB:,.1f} GB"
    needed = f"complete by its index{whole}"
    seen = f"{found.files} files, {found.tensor_bytes / GB:,.1f} GB of tensors{_origin(folder)}"
    if found.faults:
        more = f" and {len(found.faults) - 1} more faults" if len(found.faults) > 1 else ""
        fix = "fleetgate-worker download resumes where it stopped"
        return Finding("checkpoint", "fail", found.faults[0] + more, needed, fix)
    return Finding("checkpoint", "ok", seen, needed)


def _origin(folder: Path) -> str:
    """Which commit was downloaded, as `download` noted it; a note that cannot be read fails the check of weights."""
    try:
        marker = read_marker(folder)
    except DownloadFailed:
        return ""
    return "" if marker is None else f", {marker.repository} at {marker.revision}"


def _weights(profile: Profile, folder: Path) -> Finding:
    """Whether what lies in `folder` is what the profile serves."""
    needed = f"{profile.precision} weights of {profile.model.title}"
    try:
        found = find_weights(profile, folder)
    except WorkerError as error:
        return Finding("weights", "fail", str(error), needed, "give the right --model-dir, or another profile")
    return Finding("weights", "ok", found.told or "as the profile has them", needed)


def _disk(profile: Profile, capture: Capture, complete: bool) -> Finding:
    if complete:
        return Finding("disk", "skip", "the checkpoint is already here")
    largest, free = download_bytes(profile), capture.host.disk_free
    first = int(checkpoint_bytes(profile, profile.checkpoint) * MARGIN)
    seen = f"{free / GB:,.0f} GB free in {capture.host.disk_folder}"
    if first <= free < largest:
        fix = f"{profile.checkpoint.repository} fits; what is taken where it is not reached, does not"
        return Finding("disk", "warn", seen, f"{largest / GB:,.0f} GB at worst", fix)
    return judged("disk", free >= first, seen, f"{first / GB:,.0f} GB", "attach a larger disk (local NVMe)")


def _memory(profile: Profile, capture: Capture) -> Finding:
    seen, needed = capture.host.memory / GB, profile.host_memory_gb
    fix = "loading reads the checkpoint through the page cache; with less it is slow, or killed"
    return judged("host memory", seen >= needed, f"{seen:,.0f} GB", f"{needed:,.0f} GB", fix, bad="warn")


def _shared_memory(profile: Profile, capture: Capture) -> Finding:
    seen, needed = capture.host.shared_memory / GIB, profile.shared_memory_gib
    fix = f"start the container with --shm-size={math.ceil(needed)}g or --ipc=host"
    return judged("shared memory", seen >= needed, f"{seen:,.1f} GiB", f"{needed:g} GiB", fix)


def _limits(profile: Profile, capture: Capture) -> Iterator[Finding]:
    limits = capture.host.limits
    files = limits.open_files
    fix = f"ulimit -n {OPEN_FILES}, or --ulimit nofile={OPEN_FILES} on the container"
    good = files is None or files >= OPEN_FILES
    yield judged("open files", good, _told(files), f"{OPEN_FILES:,}", fix, bad="warn")
    threads = limits.processes
    fix = f"ulimit -u {PROCESSES} or more; a start that hits the limit ends in: can't start new thread"
    good = threads is None or threads >= PROCESSES
    yield judged("processes", good, _told(threads), f"{PROCESSES:,}", fix, bad="warn")
    if profile.hardware.nodes > 1:
        fix = "ulimit -l unlimited (--ulimit memlock=-1): RDMA registers memory by locking it"
        yield judged("locked memory", limits.locked_memory is None, _told(limits.locked_memory), "unlimited", fix)


def _told(limit: int | None) -> str:
    return "unlimited" if limit is None else f"{limit:,}"


def _ports(profile: Profile, capture: Capture, joined: bool) -> Finding:
    """Free ports. A Ray cluster that runs holds its own, and so does vLLM once its machines are joined."""
    own = set()
    if profile.hardware.nodes > 1:
        own = {RAY_PORT} if ray_runs(capture) else set()
        own |= {MASTER_PORT} if joined else set()
    taken = ", ".join(str(port) for port in capture.host.ports_taken if port not in own)
    fix = "another server listens there: stop it, or launch with --port"
    return judged("ports", not taken, f"taken: {taken}" if taken else "free", "free", fix)


def _clock(capture: Capture) -> Finding:
    chrony = re.search(r"System time\s*:\s*([0-9.]+) seconds", capture.output("chrony").stdout)
    if chrony is not None:
        off = float(chrony.group(1))
        needed = f"within {CLOCK_SECONDS:g} s"
        return judged("clock", off < CLOCK_SECONDS, f"{off:g} s off", needed, "check NTP on the host")
    told = capture.output("clock").stdout.strip()
    if told == "NTPSynchronized=yes":
        return Finding("clock", "ok", "synchronised", "synchronised")
    if told == "NTPSynchronized=no":
        fix = "timedatectl set-ntp true: heartbeats and signatures carry times"
        return Finding("clock", "warn", "not synchronised", "synchronised", fix)
    return Finding("clock", "skip", "neither chronyc nor timedatectl answers here", "checked on the host")
