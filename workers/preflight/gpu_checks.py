"""Checks of the GPUs: how many of which kind, free, linked by NVLink, with a driver that serves the CUDA needed.

Only the GPUs that vLLM would take are judged: the first ones that CUDA_VISIBLE_DEVICES leaves, as many as the profile
has. Another node may run on the rest.
"""

import itertools
import re
from collections.abc import Iterator

from workers.catalog.facts import Gpu
from workers.preflight.capture import Capture, Gpus
from workers.preflight.finding import Finding, judged
from workers.preflight.smi import read_gpus, read_topology, read_visible
from workers.profile import Profile
from workers.units import GB
from workers.versions import at_least
from workers.vllm_facts import COMPATIBILITY_SWITCH, COMPATIBLE_DRIVER, image_cuda, image_driver

MIB = 2**20
NVLINK = re.compile(r"NV\d+")
# What a driver keeps for itself on an idle GPU stays well below this.
IDLE_BYTES = 2048 * MIB


def check_gpus(profile: Profile, capture: Capture, image: str) -> Iterator[Finding]:
    """All findings about GPUs, for a vLLM of `image`. A profile without GPUs skips them."""
    wanted = profile.hardware.gpu
    if wanted.family == "cpu":
        yield Finding("GPUs", "skip", "the profile runs on a CPU")
        return
    seen = capture.gpus or read_gpus(capture.output("gpus"), capture.output("smi"))
    if seen is None:
        fix = "install the NVIDIA driver; a container needs the NVIDIA container toolkit and --gpus all"
        yield Finding("GPUs", "fail", "no NVIDIA driver answers", f"{wanted.title}", fix)
        return
    offered = _offered(profile, seen, capture)
    chosen = offered[: profile.hardware.gpus_per_node]
    yield _count(profile, seen, offered)
    if chosen:
        yield _kind(wanted, seen, chosen)
        yield _memory(wanted, seen, chosen)
        yield _idle(wanted, seen, chosen)
        yield _mig(seen, chosen)
    yield _driver(profile, seen, image)
    yield _cuda(profile, seen, image)
    yield _links(profile, capture, chosen)


def _offered(profile: Profile, seen: Gpus, capture: Capture) -> list[int]:
    """The GPUs that a program here may take, in the order in which it takes them. This process's setting wins."""
    visible = capture.host.visible_gpus
    if visible is None:
        visible = read_visible(profile.environment.get("CUDA_VISIBLE_DEVICES"))
    if visible is None:
        return list(range(len(seen.gpus)))
    return [index for index in visible if index < len(seen.gpus)]


def _count(profile: Profile, seen: Gpus, offered: list[int]) -> Finding:
    needed, count = profile.hardware.gpus_per_node, len(offered)
    told = f"{count} (by {seen.source})" if count == len(seen.gpus) else f"{count} of {len(seen.gpus)} are visible"
    fix = "rent a machine with as many GPUs, or pick another profile (fleetgate-worker plan)"
    if count < needed <= len(seen.gpus):
        fix = f"CUDA_VISIBLE_DEVICES leaves {count}: it has to name {needed}"
    return judged("GPUs", count >= needed, told, f"{needed} per machine", fix)


def _kind(wanted: Gpu, seen: Gpus, chosen: list[int]) -> Finding:
    names = sorted({seen.gpus[index].name for index in chosen})
    fits = all(is_kind(wanted, name) for name in names)
    fix = (
        "another GPU, or a PCIe board of it, without NVLink between all pairs and with lower clocks: rent the SXM kind"
    )
    return judged("GPU kind", fits, ", ".join(names), f"{wanted.title}", fix)


def is_kind(wanted: Gpu, name: str) -> bool:
    """Whether a product name is the wanted GPU's. The model is matched as a whole word: a GH200 is no H200."""
    return wanted.name.upper() in _words(name) and form_of(name) == wanted.form


def form_of(name: str) -> str:
    """`pcie` or `sxm`, by the product name: PCIe boards say PCIe or NVL, SXM boards HBM3, SXM or nothing."""
    return "pcie" if {"PCIE", "NVL"} & _words(name) else "sxm"


def _words(name: str) -> set[str]:
    return set(re.findall(r"[A-Z0-9]+", name.upper()))


def _memory(wanted: Gpu, seen: Gpus, chosen: list[int]) -> Finding:
    sizes = [seen.gpus[index].memory for index in chosen]
    told = [size for size in sizes if size is not None]
    if len(told) < len(sizes):
        fix = "the driver tells none, as where GPU and host share their memory: compare with the data sheet"
        return Finding("GPU memory", "warn", "not told by the driver", f"{wanted.memory_gb:g} GB", fix)
    least = min(told) / GB
    fix = "this is a smaller variant of the GPU; plan for it with a profile of your own"
    return judged("GPU memory", least >= wanted.memory_gb, f"{least:.0f} GB", f"{wanted.memory_gb:g} GB", fix)


def _idle(wanted: Gpu, seen: Gpus, chosen: list[int]) -> Finding:
    """Whether the GPUs that vLLM would take are free; where others are, the fix names those."""
    needed = f"free memory on GPU {_ranges(chosen)}"
    busy = [index for index in chosen if (seen.gpus[index].memory_used or 0) > IDLE_BYTES]
    if not busy:
        if any(seen.gpus[index].memory_used is None for index in chosen):
            return Finding(
                "GPUs idle", "warn", "not told by the driver", needed, "look at the processes in `nvidia-smi`"
            )
        return Finding("GPUs idle", "ok", "nothing runs on them", needed)
    told = ", ".join(f"GPU{i}: {(seen.gpus[i].memory_used or 0) / GB:.0f} GB" for i in busy)
    free = [
        index
        for index, gpu in enumerate(seen.gpus)
        if is_kind(wanted, gpu.name) and not gpu.mig and (gpu.memory_used or 0) <= IDLE_BYTES
    ]
    if len(free) >= len(chosen):
        names = ",".join(map(str, free[: len(chosen)]))
        fix = f"others are free: set CUDA_VISIBLE_DEVICES={names} for preflight and launch"
    else:
        fix = "another process holds GPU memory: find it in `nvidia-smi`, or wait until a stopping vLLM releases it"
    return Finding("GPUs idle", "fail", told, needed, fix)


def _ranges(indices: list[int]) -> str:
    return str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}"


def _mig(seen: Gpus, chosen: list[int]) -> Finding:
    cut = [f"GPU{index}" for index in chosen if seen.gpus[index].mig]
    fix = "sudo nvidia-smi -mig 0, then reset the GPUs or reboot"
    return judged("MIG", not cut, f"on: {', '.join(cut)}" if cut else "off", "off", fix)


def _driver(profile: Profile, seen: Gpus, image: str) -> Finding:
    """The driver has to serve both the GPU and the CUDA of vLLM's image; the latter may come with the image."""
    own, by_image = profile.hardware.gpu.min_driver or "0", image_driver(image)
    if _brings_cuda(profile):
        by_image = COMPATIBLE_DRIVER
    needed = own if at_least(own, by_image) else by_image
    fix = f"install driver {needed} or newer on the host (a container cannot bring one)"
    if not _brings_cuda(profile) and at_least(seen.driver, own) and at_least(seen.driver, COMPATIBLE_DRIVER):
        fix += f', or set environment: {{{COMPATIBILITY_SWITCH}: "1"}} in the profile: the image brings libraries'
    told = f"{needed} or newer (CUDA {image_cuda(image)} of {image})"
    return judged("driver", at_least(seen.driver, needed), seen.driver, told, fix)


def _cuda(profile: Profile, seen: Gpus, image: str) -> Finding:
    wanted = profile.hardware.gpu
    needed = wanted.min_cuda or "0"
    if not _brings_cuda(profile) and at_least(image_cuda(image), "13.0") and not at_least(needed, "13.0"):
        needed = "13.0"  # within one major version, an older driver serves a newer minor one
    fix = f"a newer driver serves a newer CUDA; {image} and {wanted.family.capitalize()} need {needed}"
    return judged("CUDA", at_least(seen.cuda, needed), seen.cuda, f"{needed} or newer ({wanted.family})", fix)


def _brings_cuda(profile: Profile) -> bool:
    return profile.environment.get(COMPATIBILITY_SWITCH, "0").strip().lower() in ("1", "true")


def _links(profile: Profile, capture: Capture, chosen: list[int]) -> Finding:
    wanted = profile.hardware.gpu
    if profile.hardware.gpus_per_node == 1:
        return Finding("NVLink", "skip", "a single GPU needs no NVLink")
    pairs = profile.hardware.gpus_per_node * (profile.hardware.gpus_per_node - 1) // 2
    reported = read_topology(capture.output("topology").stdout)
    links = {pair: reported[pair] for pair in itertools.combinations(sorted(chosen), 2) if pair in reported}
    needed = f"NV{wanted.nvlink_links} between all {pairs} pairs"
    if len(links) < pairs:
        fix = "check `nvidia-smi topo -m`"
        return Finding("NVLink", "fail", f"only {len(links)} pairs are reported", needed, fix)
    slow = [f"GPU{a}-GPU{b} {link}" for (a, b), link in sorted(links.items()) if not NVLINK.fullmatch(link)]
    if slow:
        fix = "tensor parallelism needs NVLink: check the fabric manager, or rent an SXM machine"
        return Finding("NVLink", "fail", _some(slow), needed, fix)
    fewer = [link for link in links.values() if int(link.removeprefix("NV")) < wanted.nvlink_links]
    fix = "links are down: `nvidia-smi nvlink --status`, then have the board serviced"
    return judged("NVLink", not fewer, _some(sorted(set(links.values()))), needed, fix, bad="warn")


def _some(items: list[str], most: int = 4) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
