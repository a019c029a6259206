"""GPUs by NVML, the driver's own API. Optional: needs nvidia-ml-py and a driver, else the answer is None."""

from contextlib import suppress
from typing import Any

from workers.preflight.capture import Gpus, SeenGpu


def ask_nvml() -> Gpus | None:
    """All GPUs of this machine, or None without the library or without a driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return _read(pynvml)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any) -> Gpus:
    cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    return Gpus(
        source="nvml",
        driver=nvml.nvmlSystemGetDriverVersion(),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(_read_gpu(nvml, handle) for handle in handles),
    )


def _read_gpu(nvml: Any, handle: Any) -> SeenGpu:
    total: int | None = None
    used: int | None = None
    mig = 0
    with suppress(nvml.NVMLError_NotSupported):  # GPUs that share the host's memory tell none of their own
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, used = memory.total, memory.used
    with suppress(nvml.NVMLError_NotSupported):
        mig, _ = nvml.nvmlDeviceGetMigMode(handle)
    return SeenGpu(name=nvml.nvmlDeviceGetName(handle), memory=total, memory_used=used, mig=bool(mig))
