"""Checks for a node of several machines: what joins them, and a network that is fast enough for it."""

from collections.abc import Iterator

from workers.preflight.capture import Capture
from workers.preflight.finding import Finding, judged
from workers.preflight.smi import read_efa_devices, read_infiniband, read_ray_gpus
from workers.profile import Profile

# One NDR200/HDR port. H100 machines come with eight of 400; below this, pipeline stages wait for the network.
MIN_RATE = 200.0
INTERCONNECTS = {"InfiniBand": "InfiniBand", "Ethernet": "RoCE"}


def check_cluster(profile: Profile, capture: Capture, joined: bool) -> Iterator[Finding]:
    """Findings for multi-machine profiles; none for others. `joined` says that the machines should be joined by now."""
    if profile.hardware.nodes == 1:
        return
    if profile.parallel.backend == "ray":
        yield _ray(profile, capture, joined)
    yield _interconnect(profile, capture)


def ray_runs(capture: Capture) -> bool:
    """Whether a Ray cluster answers on this machine."""
    return capture.output("ray").worked


def _ray(profile: Profile, capture: Capture, joined: bool) -> Finding:
    """Ray has to be there. A cluster that runs has to count all GPUs; without one, the launcher starts it."""
    output, needed = capture.output("ray"), f"{profile.hardware.gpus} GPUs in the cluster"
    if output.exit_code is None:
        fix = "build the image with --build-arg RAY=1, or take parallel.backend: mp, which needs no Ray"
        return Finding("Ray", "fail", "ray is not installed", "Ray beside vLLM", fix)
    if not output.worked and not joined:
        return Finding("Ray", "skip", "no cluster runs yet; `preflight --joined` checks it after the launch", needed)
    gpus = (read_ray_gpus(output.stdout) if output.worked else None) or 0
    seen = f"{gpus:g} GPUs" if output.worked else "no Ray cluster runs"
    fix = "`fleetgate-worker launch --role head` here, `--role worker` on the others, with one Ray version"
    if output.worked and not joined:
        fix = "a cluster runs here already: join the other machines, or `ray stop` before the launch"
    return judged("Ray", gpus >= profile.hardware.gpus, seen, needed, fix)


def _interconnect(profile: Profile, capture: Capture) -> Finding:
    needed = f"an active port of {MIN_RATE:g} Gbit/s or more (InfiniBand or RoCE), or EFA"
    adapters = read_efa_devices(capture.output("efa").stdout) if capture.output("efa").worked else set()
    if adapters:
        return Finding("interconnect", "ok", f"{len(adapters)} EFA devices", needed)
    output = capture.output("infiniband")
    if not output.worked:
        fix = "install infiniband-diags (libfabric's fi_info for EFA); a pipeline over plain Ethernet works, but slowly"
        return Finding("interconnect", "warn", "neither ibstat nor fi_info answers", needed, fix)
    ports = [p for p in read_infiniband(output.stdout) if p.active and p.link_layer in INTERCONNECTS]
    best = max((port.rate for port in ports), default=0.0)
    kinds = "/".join(sorted({INTERCONNECTS[port.link_layer] for port in ports})) or "no"
    fix = "check cables and the subnet manager or the switch; NCCL falls back to TCP without it"
    seen = f"{len(ports)} active {kinds} ports, best {best:g} Gbit/s"
    if best >= MIN_RATE and profile.environment.get("NCCL_IB_DISABLE") == "1":
        fix = 'NCCL_IB_DISABLE: "1" in the profile\'s environment keeps NCCL off these ports: set it to "0"'
        return Finding("interconnect", "fail", seen, needed, fix)
    return judged("interconnect", best >= MIN_RATE, seen, needed, fix)
