"""What a node's record says of its GPUs, and which of them are in trouble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BUSY = 0.5
IDLE = 0.1
"""Shares of time. A GPU below `IDLE` while another of its node is above `BUSY` takes no part: ranks of one model work
in step, so all are busy or none."""

MOST_GPUS = 64
"""GPUs of one record that are read."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU of a node, as its record tells it; None: it does not. `use` (over the last half minute) and `memory` are
    0 to 1; `xid` is the number of its last Xid error, `ecc_uncorrected` a count; `lost`: its driver does not
    reach it."""

    index: int
    use: float | None = None
    memory: float | None = None
    watts: float | None = None
    celsius: float | None = None
    xid: int | None = None
    ecc_uncorrected: int | None = None
    lost: bool = False


def read_gpus(told: Any) -> tuple[GpuFacts, ...]:
    """The `gpus` of a record. A node serves whatever they say: what cannot be read is left out."""
    if not isinstance(told, list):
        return ()
    return tuple(facts for facts in map(_read, told[:MOST_GPUS]) if facts is not None)


def gpu_troubles(gpus: Sequence[GpuFacts]) -> list[str]:
    """A sentence for each kind of trouble, GPUs by their index; empty where there is none."""
    lost = [gpu for gpu in gpus if gpu.lost]
    busiest = max((gpu.use for gpu in gpus if gpu.use is not None), default=0.0)
    idle = [gpu for gpu in gpus if gpu.use is not None and gpu.use < IDLE and busiest > BUSY]
    found = []
    if lost:
        found.append(f"{_names(lost)} lost: the driver does not reach it")
    if idle:
        shares = ", ".join(f"{100 * (gpu.use or 0.0):.0f}%" for gpu in idle)
        found.append(f"{_names(idle)} idle ({shares}) while others are at {100 * busiest:.0f}%")
    found += [f"{_names([gpu])}: Xid error {gpu.xid}" for gpu in gpus if gpu.xid]
    found += [f"{_names([gpu])}: {gpu.ecc_uncorrected} uncorrected ECC errors" for gpu in gpus if gpu.ecc_uncorrected]
    return found


def _names(gpus: Sequence[GpuFacts]) -> str:
    return f"GPU {', '.join(str(gpu.index) for gpu in gpus)}"


def _read(told: Any) -> GpuFacts | None:
    index = _number(told.get("index"), 0, 1e6) if isinstance(told, dict) else None
    if index is None:
        return None
    return GpuFacts(
        int(index),
        _number(told.get("use"), 0, 1),
        _number(told.get("memory"), 0, 1),
        _number(told.get("watts"), 0, 1e5),
        _number(told.get("celsius"), -1e3, 1e3),
        _count(told.get("xid")),
        _count(told.get("ecc_uncorrected")),
        told.get("lost") is True,
    )


def _number(told: Any, least: float, most: float) -> float | None:
    if isinstance(told, bool) or not isinstance(told, (int, float)):
        return None
    return float(told) if least <= told <= most else None  # nor a NaN


def _count(told: Any) -> int | None:
    number = _number(told, 0, 1e15)
    return None if number is None else int(number)
