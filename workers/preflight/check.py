"""All checks of a profile against a capture."""

from pathlib import Path

from workers.preflight.capture import Capture
from workers.preflight.cluster_checks import check_cluster
from workers.preflight.finding import Finding
from workers.preflight.gpu_checks import check_gpus
from workers.preflight.host_checks import check_host, installed_vllm
from workers.profile import Profile
from workers.vllm_facts import image_version, lacks_of
from workers.vram import plan_memory


def check_machine(profile: Profile, capture: Capture, folder: Path | None, joined: bool = False) -> list[Finding]:
    """Hold a machine against a profile. `folder` is the checkpoint's, None if it is not to be looked at.

    `joined`: the machines of a node of several should be joined by now.
    """
    return [
        _plan(profile),
        *check_gpus(profile, capture, chosen_build(profile, capture)),
        *check_host(profile, capture, folder, joined),
        *check_cluster(profile, capture, joined),
    ]


def chosen_build(profile: Profile, capture: Capture) -> str:
    """The vLLM that will run: the installed one as `vllm:VERSION`, else the profile's image."""
    installed = installed_vllm(capture)
    return profile.vllm_image if installed is None else f"vllm:{installed}"


def lacks(profile: Profile, capture: Capture) -> tuple[str, list[str]]:
    """The vLLM that will run, and what its version lacks of what profile and gateway would use."""
    build = chosen_build(profile, capture)
    version = image_version(build)
    if version is None:
        return build, ["its tag names no version, so what it lacks is not known"]
    return build, list(lacks_of(version, profile))


def _plan(profile: Profile) -> Finding:
    memory = plan_memory(profile)
    needed = f"{memory.total_gb:,.0f} GB for weights and sequences"
    if memory.verdict == "fits":
        return Finding("plan", "ok", f"{memory.usable_gb:,.0f} GB usable", needed)
    if memory.verdict == "tight" and memory.listed is not None:
        seen = f"{memory.nvml_usable_gb:,.0f} GB usable by NVML, listed by {memory.listed.source}"
        fix = "start with few sequences and a short context, or take a profile that `fleetgate-worker plan` says fits"
        return Finding("plan", "warn", seen, needed, fix)
    if memory.below_minimum:
        needed = f"{memory.vendor_minimum_gb:,.0f} GB as published"
    fix = "`fleetgate-worker plan` lists what fits"
    return Finding("plan", "fail", f"{memory.usable_gb:,.0f} GB usable", needed, fix)
