"""Checks of the GPUs: how many of which kind, free, linked by NVLink, with a driver that serves the CUDA
needed.
"""

from collections.abc import Iterator

from workers.catalog.facts import Gpu
from workers.preflight.capture import Capture, Gpus
from workers.preflight.finding import Finding, at_least, judged
from workers.preflight.smi import read_gpus, read_topology
from workers.profile import Profile

MIB = 2**20
GB = 1e9
# What a driver keeps for itself on an idle GPU stays well below this.
IDLE_BYTES = 2048 * MIB


def check_gpus(profile: Profile, capture: Capture) -> Iterator[Finding]:
    """All findings about GPUs. A profile without GPUs skips them."""
    wanted = profile.hardware.gpu
    if wanted.family == "cpu":
        yield Finding("GPUs", "skip", "the profile runs on a CPU")
        return
    seen = capture.gpus or read_gpus(capture.output("gpus"), capture.output("smi"))
    if seen is None:
        fix = "install the NVIDIA driver; a container needs the NVIDIA container toolkit and --gpus all"
        yield Finding("GPUs", "fail", "no NVIDIA driver answers", f"{wanted.title}", fix)
        return
    yield _count(profile, seen)
    yield _kind(wanted, seen)
    yield _memory(wanted, seen)
    yield _idle(seen)
    yield _mig(seen)
    yield _driver(wanted, seen)
    yield _cuda(wanted, seen)
    yield _links(profile, capture)


def _count(profile: Profile, seen: Gpus) -> Finding:
    needed, count = profile.hardware.gpus_per_node, len(seen.gpus)
    fix = "rent a machine with as many GPUs, or pick another profile (fleetgate-worker plan)"
    return judged("GPUs", count >= needed, f"{count} (by {seen.source})", f"{needed} per machine", fix)


def _kind(wanted: Gpu, seen: Gpus) -> Finding:
    names = sorted({gpu.name for gpu in seen.gpus})
    fits = all(wanted.name.upper() in name.upper() and form_of(name) == wanted.form for name in names)
    fix = "PCIe boards have no NVLink between all pairs and lower clocks: rent the SXM kind"
    return judged("GPU kind", fits, ", ".join(names), f"{wanted.title}", fix)


def form_of(name: str) -> str:
    """`pcie` or `sxm`, by the product name: PCIe boards say PCIe or NVL, SXM boards HBM3, SXM or nothing."""
    return "pcie" if any(word in name.upper() for word in ("PCIE", "NVL")) else "sxm"


def _memory(wanted: Gpu, seen: Gpus) -> Finding:
    least = min(gpu.memory for gpu in seen.gpus) / GB
    fix = "this is a smaller variant of the GPU; plan for it with a profile of your own"
    return judged("GPU memory", least >= wanted.memory_gb, f"{least:.0f} GB", f"{wanted.memory_gb:g} GB", fix)


def _idle(seen: Gpus) -> Finding:
    used = [(i, gpu.memory_used) for i, gpu in enumerate(seen.gpus) if gpu.memory_used > IDLE_BYTES]
    told = ", ".join(f"GPU{i}: {taken / GB:.0f} GB" for i, taken in used)
    fix = "another process holds GPU memory: find it in `nvidia-smi`, or wait until a stopping vLLM releases it"
    return judged("GPUs idle", not used, told or "nothing runs on them", "free memory", fix)


def _mig(seen: Gpus) -> Finding:
    cut = [f"GPU{i}" for i, gpu in enumerate(seen.gpus) if gpu.mig]
    fix = "sudo nvidia-smi -mig 0, then reset the GPUs or reboot"
    return judged("MIG", not cut, f"on: {', '.join(cut)}" if cut else "off", "off", fix)


def _driver(wanted: Gpu, seen: Gpus) -> Finding:
    needed = wanted.min_driver or "0"
    fix = f"install driver {needed} or newer on the host (a container cannot bring one)"
    return judged("driver", at_least(seen.driver, needed), seen.driver, f"{needed} or newer", fix)


def _cuda(wanted: Gpu, seen: Gpus) -> Finding:
    needed = wanted.min_cuda or "0"
    fix = f"a newer driver serves a newer CUDA; {wanted.family.capitalize()} needs {needed}"
    return judged("CUDA", at_least(seen.cuda, needed), seen.cuda, f"{needed} or newer ({wanted.family})", fix)


def _links(profile: Profile, capture: Capture) -> Finding:
    count, wanted = profile.hardware.gpus_per_node, profile.hardware.gpu
    if count == 1:
        return Finding("NVLink", "skip", "a single GPU needs no NVLink")
    links = read_topology(capture.output("topology").stdout)
    pairs = count * (count - 1) // 2
    needed = f"NV{wanted.nvlink_links} between all {pairs} pairs"
    if len(links) < pairs:
        fix = "check `nvidia-smi topo -m`"
        return Finding("NVLink", "fail", f"only {len(links)} pairs are reported", needed, fix)
    slow = [f"GPU{a}-GPU{b} {link}" for (a, b), link in sorted(links.items()) if not link.startswith("NV")]
    if slow:
        fix = "tensor parallelism needs NVLink: check the fabric manager, or rent an SXM machine"
        return Finding("NVLink", "fail", _some(slow), needed, fix)
    fewer = [link for link in links.values() if int(link.removeprefix("NV")) < wanted.nvlink_links]
    fix = "links are down: `nvidia-smi nvlink --status`, then have the board serviced"
    return judged("NVLink", not fewer, _some(sorted(set(links.values()))), needed, fix, bad="warn")


def _some(items: list[str], most: int = 4) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
