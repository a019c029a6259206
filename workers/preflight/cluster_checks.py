"""Checks for a node of several machines: the Ray cluster counts all GPUs, InfiniBand is up and fast."""

from collections.abc import Iterator

from workers.preflight.capture import Capture
from workers.preflight.finding import Finding, judged
from workers.preflight.smi import read_infiniband, read_ray_gpus
from workers.profile import Profile

# One NDR200/HDR port. H100 machines come with eight of 400; below this, pipeline stages wait for the network.
MIN_RATE = 200.0


def check_cluster(profile: Profile, capture: Capture) -> Iterator[Finding]:
    """Findings for multi-machine profiles; none for others."""
    if profile.hardware.nodes == 1:
        return
    yield _ray(profile, capture)
    yield _infiniband(capture)


def _ray(profile: Profile, capture: Capture) -> Finding:
    needed = profile.hardware.gpus
    output = capture.output("ray")
    fix = "`fleetgate-worker launch --role head` here, `--role worker` on the others, with one Ray version"
    if not output.worked:
        seen = "ray is not installed" if output.exit_code is None else "no Ray cluster runs"
        return Finding("Ray", "warn", seen, f"{needed} GPUs in the cluster", fix)
    gpus = read_ray_gpus(output.stdout) or 0
    return judged("Ray", gpus >= needed, f"{gpus:g} GPUs", f"{needed} GPUs in the cluster", fix)


def _infiniband(capture: Capture) -> Finding:
    needed = f"an active port of {MIN_RATE:g} Gbit/s or more"
    output = capture.output("infiniband")
    if not output.worked:
        fix = "install infiniband-diags; over plain Ethernet a pipeline works, but slowly"
        return Finding("InfiniBand", "warn", "ibstat does not answer", needed, fix)
    ports = [p for p in read_infiniband(output.stdout) if p.active and p.link_layer == "InfiniBand"]
    best = max((port.rate for port in ports), default=0.0)
    fix = "check cables and the subnet manager; NCCL falls back to TCP without it"
    return judged("InfiniBand", best >= MIN_RATE, f"{len(ports)} active, best {best:g} Gbit/s", needed, fix)
