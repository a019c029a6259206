"""GPUs by NVML, the driver's own API. Optional: needs nvidia-ml-py and a driver, else the answer is None."""

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
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        mig, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:
        mig = 0
    return SeenGpu(name=nvml.nvmlDeviceGetName(handle), memory=memory.total, memory_used=memory.used, mig=bool(mig))
