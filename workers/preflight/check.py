"""All checks of a profile against a capture."""

from pathlib import Path

from workers.preflight.capture import Capture
from workers.preflight.cluster_checks import check_cluster
from workers.preflight.finding import Finding
from workers.preflight.gpu_checks import check_gpus
from workers.preflight.host_checks import check_host
from workers.profile import Profile
from workers.vram import plan_memory


def check_machine(profile: Profile, capture: Capture, folder: Path | None) -> list[Finding]:
    """Hold a machine against a profile. `folder` is the checkpoint's, None if it is not to be looked at."""
    return [
        _plan(profile),
        *check_gpus(profile, capture),
        *check_host(profile, capture, folder),
        *check_cluster(profile, capture),
    ]


def _plan(profile: Profile) -> Finding:
    memory = plan_memory(profile)
    needed = f"{memory.total_gb:,.0f} GB for weights and sequences"
    if memory.fits:
        return Finding("plan", "ok", f"{memory.usable_gb:,.0f} GB usable", needed)
    fix = "`fleetgate-worker plan` lists what fits"
    return Finding("plan", "fail", f"{memory.usable_gb:,.0f} GB usable", needed, fix)
