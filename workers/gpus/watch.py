"""Reads GPUs once a second in a thread of its own, so that a driver that hangs holds up nobody who asks for them."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from workers.gpus.nvml import NoNvml, Nvml
from workers.gpus.reading import GpuReading

INTERVAL_SECONDS = 1.0
WINDOW_READINGS = 30
STALE_SECONDS = 15.0
"""Readings that are older are not handed out: the driver hangs."""
END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of one GPU: the latest reading, its mean use over the last half minute (0 to 1, None: it does not
    tell), how often each Xid error came since the watch began, and the last one's number."""

    reading: GpuReading
    mean_use: float | None
    xids: tuple[tuple[int, int], ...]
    last_xid: int | None


class GpuWatch:
    """The readings of some GPUs. Start it by `with`. `take` is called with each round of readings, in the thread."""

    def __init__(
        self,
        nvml: Nvml,
        interval: float = INTERVAL_SECONDS,
        take: Callable[[tuple[GpuReading, ...]], None] | None = None,
    ) -> None:
        """`interval`: seconds between two readings. `nvml` is closed with the watch."""
        self._nvml = nvml
        self._interval = interval
        self._take = take
        self._lock = threading.Lock()
        self._readings: deque[tuple[GpuReading, ...]] = deque(maxlen=WINDOW_READINGS)
        self._read_at = 0.0
        self._xids: Counter[tuple[int | None, int]] = Counter()
        self._last: dict[int | None, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-watch", daemon=True)

    def __enter__(self) -> Self:
        """Read once, so that there is something to ask for, and go on in the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop. A thread that the driver holds is left behind, and dies with the process."""
        self._stop.set()
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            self._nvml.close()

    def now(self) -> tuple[Watched, ...]:
        """Every GPU as last read; nothing before the first reading, or where the driver has hung for a while."""
        with self._lock:
            if not self._readings or time.monotonic() - self._read_at > STALE_SECONDS:
                return ()
            rounds = list(self._readings)
            xids, last = dict(self._xids), dict(self._last)
        return tuple(
            Watched(
                reading=latest,
                mean_use=_mean([r[place].use for r in rounds]),
                xids=tuple(sorted((code, count) for (index, code), count in xids.items() if index == latest.index)),
                last_xid=last.get(latest.index),
            )
            for place, latest in enumerate(rounds[-1])
        )

    def _run(self) -> None:
        waits = self._nvml.watch_errors()
        while not self._stop.is_set():
            readings = self._nvml.read()
            with self._lock:
                self._readings.append(readings)
                self._read_at = time.monotonic()
            if self._take is not None:
                self._take(readings)
            if not waits or not self._wait_for_errors():
                self._stop.wait(self._interval)

    def _wait_for_errors(self) -> bool:
        """Wait for the next round and count what went wrong meanwhile. False where the driver did not wait."""
        try:
            found = self._nvml.wait_for_errors(self._interval)
        except NoNvml:
            return False
        with self._lock:
            for xid in found:
                self._xids[xid.index, xid.code] += 1
                self._last[xid.index] = xid.code
        return not found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
