"""The ladder: one load after the other, each heavier, until the node gives no more or the time is over."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from workers.bench.figures import Figures, GpuUse, mean_use
from workers.bench.load import Load
from workers.bench.workloads import Asker, Lengths
from workers.errors import NodeFailed
from workers.gpus.nvml import NoNvml, open_nvml
from workers.gpus.reading import GpuReading
from workers.gpus.watch import GpuWatch

GAIN = 0.03
"""A heavier load that brings less than 3% more output tokens a second ends a ladder that nobody has set."""
MOST_FAILED = 0.1
"""Share of requests that may fail before a ladder ends."""
GPU_SECONDS = 0.5
MOST_ROUNDS = 40_000
EVERY_GPU = 64


@dataclass(frozen=True, slots=True)
class Step:
    """One load of a workload. `make` makes its asker, anew where it is a trace."""

    workload: str
    load: Load
    make: Callable[[], Asker]


@dataclass(frozen=True, slots=True)
class Rung:
    """A step that was measured. `told` and `lengths`: its requests, in words and in tokens."""

    workload: str
    told: str
    lengths: Lengths
    figures: Figures


class LoadMaker(Protocol):
    """What sends a load and returns its figures: ours, or vLLM's own."""

    @property
    def name(self) -> str:
        """What it is, in words."""

    async def measure(self, load: Load, asker: Asker, gpus: "GpuRounds", keep: Callable[[Figures], None]) -> None:
        """Send one load and give `keep` its figures; what came so far where it is cancelled."""


class FirstThatWorks:
    """Measures with `first`; where its first load breaks off, that is said and `second` measures from then on."""

    def __init__(self, first: LoadMaker, second: LoadMaker, say: Callable[[str], None]) -> None:
        self._maker = first
        self._second: LoadMaker | None = second
        self._say = say

    @property
    def name(self) -> str:
        """Of what measures now."""
        return self._maker.name

    async def measure(self, load: Load, asker: Asker, gpus: "GpuRounds", keep: Callable[[Figures], None]) -> None:
        """Measure one load."""
        second, self._second = self._second, None
        try:
            await self._maker.measure(load, asker, gpus, keep)
        except NodeFailed as error:
            if second is None:
                raise
            self._say(f"{error}\n{second.name} instead")
            self._maker = second
            await second.measure(load, asker, gpus, keep)


class GpuRounds:
    """GPU readings while a ladder runs. Bounded: those of the last five hours."""

    def __init__(self) -> None:
        """Nothing is read before `watch`."""
        self._rounds: deque[tuple[float, tuple[GpuReading, ...]]] = deque(maxlen=MOST_ROUNDS)
        self.count = 0
        """GPUs that are read."""
        self.why_not = ""

    def watch(self, stack: ExitStack, is_here: bool, visible: str | None, count: int = EVERY_GPU) -> None:
        """Read this machine's GPUs until `stack` is closed; `why_not` says why where that cannot be."""
        if not is_here:
            self.why_not = "the node is on another machine; run the bench there"
            return
        try:
            nvml = open_nvml(visible, count)
            self.count = len(nvml.indexes)
            stack.enter_context(GpuWatch(nvml, GPU_SECONDS, self._take))
        except NoNvml as reason:
            self.why_not = str(reason)

    def use(self, since: float, until: float) -> GpuUse:
        """The mean use of each GPU between two moments (monotonic seconds)."""
        return mean_use(list(self._rounds), since, until)

    def _take(self, readings: tuple[GpuReading, ...]) -> None:
        self._rounds.append((time.monotonic(), readings))


async def climb(
    steps: Sequence[Step],
    maker: LoadMaker,
    gpus: GpuRounds,
    until: float,
    climbs_all: bool,
    keep: Callable[[Rung], None],
    say: Callable[[str], None],
) -> None:
    """Measure the steps of one workload in their order; each rung is kept as soon as it is measured.

    `until`: no step begins that would end behind it (monotonic seconds). `climbs_all`: loads that somebody has chosen
    are all measured; others end where a heavier load brings nothing.
    """
    best = 0.0
    for step in steps:
        if time.monotonic() + step.load.ramp + step.load.window > until:
            say(f"{step.workload}: no time is left for {step.load.told}: --minutes")
            return
        say(f"{step.workload}: {step.load.told} for {step.load.window:g} s")
        found: list[Figures] = []
        asker = step.make()
        try:
            await maker.measure(step.load, asker, gpus, found.append)
        finally:
            for figures in found:
                keep(Rung(step.workload, asker.told, asker.lengths, figures))
        reason = _why_stop(found[-1], best, climbs_all)
        if reason:
            say(f"{step.workload}: {reason}")
            return
        best = max(best, found[-1].tokens_out)


def _why_stop(figures: Figures, best: float, climbs_all: bool) -> str:
    asked = figures.whole + figures.failed + figures.cut
    if figures.failed > MOST_FAILED * asked:
        return f"{figures.failed} of {asked} requests failed; heavier loads are left out"
    if not climbs_all and best and figures.tokens_out < (1 + GAIN) * best:
        return "a heavier load brings no more; the rest is left out"
    return ""
