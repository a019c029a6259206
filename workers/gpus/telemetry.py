"""GPU telemetry of a launched node: metrics on a listener, and what the node's record says. Optional in every part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from workers.gpus.metrics import serve_metrics
from workers.gpus.nvml import NoNvml, open_nvml
from workers.gpus.watch import GpuWatch, Watched
from workers.node_shape import Hardware
from workers.registration import GpuState

VISIBLE = "CUDA_VISIBLE_DEVICES"
RecordGpus = Callable[[], tuple[GpuState, ...] | None]


@contextmanager
def gpu_telemetry(
    hardware: Hardware, environment: Mapping[str, str], address: tuple[str, int] | None, say: Callable[[str], None]
) -> Iterator[RecordGpus]:
    """Read the node's GPUs on this machine for as long as the context is open, and serve their metrics.

    `address`: of the metrics' listener, None for none. Yields what gives the record's `gpus`, None where they are not
    known. Where NVML is not there, or the port is taken, one line says so and the node runs on.
    """
    if hardware.gpu.family == "cpu":
        yield _nothing
        return
    try:
        nvml = open_nvml(environment.get(VISIBLE), hardware.gpus_per_node)
    except NoNvml as reason:
        say(f"no GPU metrics: {reason}")
        yield _nothing
        return
    with ExitStack() as stack:
        watch = stack.enter_context(GpuWatch(nvml))
        found = ", ".join(str(index) for index in nvml.indexes)
        less = "" if len(nvml.indexes) == hardware.gpus_per_node else f"; the profile has {hardware.gpus_per_node}"
        say(f"reads GPU {found} by NVML{less}")
        if address is not None:
            _serve(stack, address, watch, say)
        yield lambda: record_gpus(watch.now())


def record_gpus(gpus: tuple[Watched, ...]) -> tuple[GpuState, ...] | None:
    """The GPUs as the node's record tells them, in short; None where they are not known."""
    return tuple(_state(gpu) for gpu in gpus) or None


def _state(gpu: Watched) -> GpuState:
    reading = gpu.reading
    used, total = reading.memory_used, reading.memory_total
    return GpuState(
        index=reading.index,
        use=None if gpu.mean_use is None else round(gpu.mean_use, 2),
        memory=None if used is None or not total else round(min(1.0, used / total), 2),
        watts=None if reading.power is None else round(reading.power),
        celsius=None if reading.celsius is None else round(reading.celsius),
        xid=gpu.last_xid,
        ecc_uncorrected=reading.ecc_uncorrected,
        lost=reading.lost,
    )


def _serve(stack: ExitStack, address: tuple[str, int], watch: GpuWatch, say: Callable[[str], None]) -> None:
    host, port = address
    try:
        stack.callback(serve_metrics(host, port, watch.now))
    except (OSError, OverflowError) as error:
        say(f"no GPU metrics: cannot listen on {host}:{port} ({error}); choose another --metrics HOST:PORT, or off")
        return
    say(f"GPU metrics at http://{f'[{host}]' if ':' in host else host}:{port}/metrics")


def _nothing() -> None:
    return None
