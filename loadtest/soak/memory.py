"""Memory of the gateway over a run: sampled, and a line through what comes behind the warm-up.

The resident set of the whole process tree is read from /proc; nothing is switched on in the gateway (tracemalloc would
change what it measures). The slope is the least-squares line's, with its standard error.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loadtest import proc

EVERY = 2.0
WARM_UP = 0.4
"""Of a run, by time: pools, caches of prompts' decisions and allocator arenas fill up meanwhile."""
MOST_WARM_UP = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """`at` seconds of the run; bytes."""

    at: float
    resident: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a line through samples: bytes a second, its standard error, and the line's ends in bytes."""

    bytes_per_second: float
    error: float
    first: float
    last: float

    @property
    def grows(self) -> bool:
        """Whether it rises by more than three standard errors."""
        return self.bytes_per_second > 3 * self.error

    def per_hour(self) -> str:
        """For people."""
        return f"{self.bytes_per_second * 3600 / 1e6:+.1f} ± {self.error * 3600 / 1e6:.1f} MB/h"


def slope_of(samples: Sequence[Sample]) -> Slope | None:
    """The line through samples; None of fewer than three."""
    if len(samples) < 3:
        return None
    count = len(samples)
    mean_at = sum(sample.at for sample in samples) / count
    mean = sum(sample.resident for sample in samples) / count
    spread = sum((sample.at - mean_at) ** 2 for sample in samples)
    slope = sum((sample.at - mean_at) * (sample.resident - mean) for sample in samples) / spread
    rest = sum((sample.resident - mean - slope * (sample.at - mean_at)) ** 2 for sample in samples)
    error = math.sqrt(rest / (count - 2) / spread)
    first, last = (mean + slope * (sample.at - mean_at) for sample in (samples[0], samples[-1]))
    return Slope(slope, error, first, last)


def behind_warm_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples that a slope is told of."""
    if not samples:
        return samples
    begins = min(samples[-1].at * WARM_UP, MOST_WARM_UP)
    return [sample for sample in samples if sample.at >= begins]


@dataclass(slots=True)
class Sampler:
    """Samples a process tree in a thread of its own; a context manager."""

    pid: Callable[[], int]
    samples: list[Sample] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Sampler":
        """Begin."""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._over.wait(EVERY):
            self.samples.append(Sample(time.monotonic() - began, proc.tree_cost(self.pid()).rss_bytes))
