"""NVML, the driver's own API: reads GPUs and waits for their Xid errors.

Through nvidia-ml-py, which is optional and imported late. Every value is asked for by itself, since a GPU that does not
support one (power on some boards, ECC on consumer cards) answers with an error for that one alone.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from workers.errors import WorkerError
from workers.gpus.reading import GpuReading, Xid

T = TypeVar("T")
MILLI = 1000.0
MOST_EVENTS = 1000
"""Xid errors that one wait hands out: a broken GPU reports them by the thousand, and readings must go on."""


class NoNvml(WorkerError):
    """NVML is not there, or says nothing of the GPUs that were asked for. The text says why, and what to do."""


class Nvml:
    """Some of this machine's GPUs, by NVML. Calls may take as long as the driver does: never from an event loop."""

    def __init__(self, library: Any, devices: Sequence[tuple[int, Any]]) -> None:
        """`library`: pynvml, initialised; `devices`: index and handle of each GPU. See `open_nvml`."""
        self._library = library
        self._devices = devices
        self._names = {index: self._ask(library.nvmlDeviceGetName, device) or "GPU" for index, device in devices}
        self._events: Any = None

    @property
    def indexes(self) -> tuple[int, ...]:
        """The GPUs that are read, as NVML counts them."""
        return tuple(index for index, _ in self._devices)

    def read(self) -> tuple[GpuReading, ...]:
        """One reading of each GPU. A lost one is in it and says so."""
        return tuple(self._read(index, device) for index, device in self._devices)

    def watch_errors(self) -> bool:
        """Register for Xid errors. False where neither driver nor GPUs support that."""
        library = self._library
        try:
            self._events = library.nvmlEventSetCreate()
        except library.NVMLError:
            return False
        registered = 0
        for _, device in self._devices:
            try:
                library.nvmlDeviceRegisterEvents(device, library.nvmlEventTypeXidCriticalError, self._events)
                registered += 1
            except library.NVMLError:
                continue
        return registered > 0

    def wait_for_errors(self, seconds: float) -> list[Xid]:
        """Xid errors, after `seconds` at most. Raises `NoNvml` at once where the driver cannot wait any more."""
        found: list[Xid] = []
        library, milliseconds = self._library, int(seconds * MILLI)
        while len(found) < MOST_EVENTS:
            try:
                event = library.nvmlEventSetWait_v2(self._events, milliseconds)
            except library.NVMLError_Timeout:
                break
            except library.NVMLError as error:
                if found:
                    break
                raise NoNvml(f"NVML does not wait for Xid errors: {error}") from error
            if event.eventType & library.nvmlEventTypeXidCriticalError:
                found.append(Xid(self._index_of(event.device), int(event.eventData)))
            milliseconds = 0
        return found

    def close(self) -> None:
        """Let go of NVML. No call may be under way."""
        library = self._library
        if self._events is not None:
            self._ask(library.nvmlEventSetFree, self._events)
            self._events = None
        self._ask(library.nvmlShutdown)

    def _read(self, index: int, device: Any) -> GpuReading:
        library = self._library
        try:
            # Asked for first and alone: a GPU that fell off the bus says so to any call.
            library.nvmlDeviceGetIndex(device)
        except library.NVMLError as error:
            if error.value in (library.NVML_ERROR_GPU_IS_LOST, library.NVML_ERROR_UNKNOWN):
                return GpuReading(index, self._names[index], lost=True)
        use = self._ask(library.nvmlDeviceGetUtilizationRates, device)
        memory = self._ask(library.nvmlDeviceGetMemoryInfo, device)
        power = self._ask(library.nvmlDeviceGetPowerUsage, device)
        limit = self._ask(library.nvmlDeviceGetEnforcedPowerLimit, device)
        celsius = self._ask(library.nvmlDeviceGetTemperature, device, library.NVML_TEMPERATURE_GPU)
        return GpuReading(
            index=index,
            name=self._names[index],
            use=None if use is None else min(1.0, use.gpu / 100),
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            power=None if power is None else power / MILLI,
            power_limit=None if limit is None else limit / MILLI,
            celsius=None if celsius is None else float(celsius),
            ecc_corrected=self._count_ecc(device, library.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._count_ecc(device, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        )

    def _count_ecc(self, device: Any, kind: int) -> int | None:
        library = self._library
        count = self._ask(library.nvmlDeviceGetTotalEccErrors, device, kind, library.NVML_VOLATILE_ECC)
        return None if count is None else int(count)

    def _index_of(self, device: Any) -> int | None:
        """Which GPU an event is of: by its index, or by its handle where the GPU does not answer any more."""
        index = self._ask(self._library.nvmlDeviceGetIndex, device)
        if index is not None:
            return int(index)
        wanted = _address(device)
        return next((index for index, own in self._devices if _address(own) == wanted), None)

    def _ask(self, call: Callable[..., T], *arguments: Any) -> T | None:
        """None where this GPU or this driver does not tell."""
        try:
            return call(*arguments)
        except self._library.NVMLError:
            return None


def open_nvml(visible: str | None, count: int) -> Nvml:
    """The first `count` GPUs that CUDA sees. `visible`: CUDA_VISIBLE_DEVICES, None where it is not set.

    Numbers in it are NVML's, in the order of the PCI bus: with GPUs of one kind in a machine CUDA counts the same way.
    Raises `NoNvml`.
    """
    try:
        import pynvml
    except ImportError as missing:
        raise NoNvml("nvidia-ml-py is not installed: pip install 'fleetgate[worker-tools]'") from missing
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoNvml(f"NVML does not start: {error}") from error
    try:
        devices = _visible_devices(pynvml, visible)[:count]
        if not devices:
            raise NoNvml(f"NVML has none of the GPUs of CUDA_VISIBLE_DEVICES={visible or ''}")
        return Nvml(pynvml, devices)
    except pynvml.NVMLError as error:
        pynvml.nvmlShutdown()
        raise NoNvml(f"NVML does not list the GPUs: {error}") from error
    except NoNvml:
        pynvml.nvmlShutdown()
        raise


def _visible_devices(library: Any, visible: str | None) -> list[tuple[int, Any]]:
    """Index and handle of each GPU that CUDA would see. As with CUDA, what follows an entry that fits none is left."""
    every = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            every.append((index, library.nvmlDeviceGetHandleByIndex(index)))
        except library.NVMLError:  # this one is lost: the others are read nevertheless
            continue
    if visible is None:
        return every
    chosen: list[tuple[int, Any]] = []
    for entry in (part.strip() for part in visible.split(",")):
        fitting = [(i, device) for i, device in every if entry and _is_named(library, i, device, entry)]
        if len(fitting) != 1:
            break
        chosen += fitting
    return chosen


def _is_named(library: Any, index: int, device: Any, entry: str) -> bool:
    """Whether an entry of CUDA_VISIBLE_DEVICES means this GPU: its number, or the beginning of its UUID."""
    if entry.isascii() and entry.isdigit():
        return int(entry) == index
    try:
        uuid = library.nvmlDeviceGetUUID(device)
    except library.NVMLError:
        return False
    return str(uuid).lower().startswith(entry.lower())


def _address(device: Any) -> int | None:
    return ctypes.cast(device, ctypes.c_void_p).value
