"""One reading of one GPU, as plain data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment. None: this GPU does not tell it.

    `use`: 0 to 1, the share of the driver's last sample period (a sixth of a second to a second) in which a kernel ran;
    memory in bytes; power in watts; temperature in degrees Celsius; ECC errors since the driver was loaded. `lost`: the
    driver does not reach the GPU any more; then nothing else is known.
    """

    index: int
    name: str
    use: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    power: float | None = None
    power_limit: float | None = None
    celsius: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Xid:
    """An Xid error, as the driver reports it: NVIDIA's number of the kind. `index` None: of a GPU that is not known."""

    index: int | None
    code: int
