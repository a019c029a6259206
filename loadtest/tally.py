"""What a load client has seen, and the report it makes of it."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

LATE_SECONDS = 0.1


@dataclass(slots=True)
class Tally:
    """Counts and times (seconds) of all callers of one client."""

    whole: int = 0
    broken: int = 0
    events: int = 0
    lost_events: int = 0
    ttft: "array[float]" = field(default_factory=lambda: array("d"))
    latency: "array[float]" = field(default_factory=lambda: array("d"))
    delay: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(frozen=True, slots=True)
class Report:
    """What one client run says: counts, seconds, bytes. `cpu_seconds` and memory are the watched process tree's.

    `whole`, `events` and `cpu_seconds` belong to the window of `seconds`; `broken` and `lost_events` to the whole
    run. Memory is the tree's proportional set before the first request, and the greatest in the window.
    """

    seconds: float
    whole: int
    broken: int
    events: int
    lost_events: int
    opened: int
    cpu_seconds: float
    memory_before: int
    memory_open: int
    ttft_p50: float
    ttft_p99: float
    latency_p50: float
    latency_p99: float
    delay_p50: float
    delay_p99: float
    delay_max: float
    late_events: int


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all `values` do not exceed; 0 where there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def late(delays: Sequence[float]) -> int:
    """How many events came more than LATE_SECONDS after they were written."""
    return sum(1 for delay in delays if delay > LATE_SECONDS)
