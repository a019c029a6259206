"""The result of one run: its plan without keys, what was seen, what was done to the fleet. JSON, to compare runs."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest import proc
from loadtest.load.plan import LoadPlan
from loadtest.load.run import Locust
from loadtest.load.tally import TIMES, StreamTally, Tally

END_SECONDS = 1.0
"""By how much a load may end beside its planned time: what starting and stopping locust's users takes."""

LATE = 0.1
"""Seconds: a generator whose arrivals are later than that at the 99th percentile is the bottleneck itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """One tenant's scenario, or all together, in figures: times in seconds, rates a second; None of nothing."""

    name: str
    counts: Mapping[str, int]
    errors: Mapping[str, int]
    times: Mapping[str, Mapping[str, float | None]]
    asked_rate: float
    good_rate: float
    tokens_rate: float

    @property
    def good_share(self) -> float | None:
        """Of those that ended as whole answers or failed: what was good. What the end of the run cut is neither."""
        tried = self.counts["ok"] + self.counts["failed"]
        return self.counts["good"] / tried if tried else None


@dataclass(frozen=True, slots=True)
class Result:
    """See the module. `plan` and `locust` as plain data; `faults` as they happened; `began` in seconds since 1970."""

    plan: Mapping[str, Any]
    locust: Mapping[str, Any]
    machine: Mapping[str, str]
    tally: Tally
    faults: Sequence[Mapping[str, Any]]
    began: float

    @classmethod
    def of(
        cls, plan: LoadPlan, locust: Locust, tally: Tally, faults: Sequence[Mapping[str, Any]], began: float
    ) -> "Result":
        """Of a run that has ended."""
        told = {**asdict(plan), "keys": sorted(plan.keys)}
        return cls(told, asdict(locust), proc.machine(), tally, faults, began)

    @property
    def seconds(self) -> float:
        """Of load: as planned, unless it was ended before, or given another time, on locust's page."""
        return self._planned if self._as_planned else round(self.tally.ran, 1)

    @property
    def _planned(self) -> float:
        return float(self.plan["seconds"])

    @property
    def _as_planned(self) -> bool:
        return not self.tally.ran or abs(self.tally.ran - self._planned) <= END_SECONDS

    def rows(self) -> Iterator[Row]:
        """Each stream, and all of them where there are several."""
        total = StreamTally()
        for name, stream in sorted(self.tally.streams.items()):
            total.merge(stream)
            yield self._row(name, stream)
        if len(self.tally.streams) > 1:
            yield self._row("all", total)

    def total(self) -> StreamTally:
        """All streams in one."""
        total = StreamTally()
        for stream in self.tally.streams.values():
            total.merge(stream)
        return total

    def remarks(self) -> Iterator[str]:
        """What a reader has to know about the generators and the faults."""
        if not self._as_planned:
            yield f"the load ran for {self.seconds:g} s, and not for the planned {self._planned:g}"
        late = self.tally.late.quantile(0.99)
        if late is not None:
            yield f"the generator sent arrivals {late * 1000:.0f} ms late at the 99th percentile"
        if late is not None and late > LATE:
            yield "that is late: its machine is too busy for what is to be measured, or it needs more WORKERS"
        if self.tally.dropped:
            yield f"{self.tally.dropped} arrivals were not sent: a generator had {self.plan['most']} under way"
        for fault in self.faults:
            told = f"fault {fault['fault']}: from {fault['at']:.0f} s to {fault['until']:.0f} s"
            yield f"{told}; {fault['trouble']}" if fault["trouble"] else told

    def to_json(self) -> dict[str, Any]:
        """All of it, and its figures for other programs."""
        return {
            "version": 1,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)),
            "plan": dict(self.plan),
            "locust": dict(self.locust),
            "machine": dict(self.machine),
            "faults": list(self.faults),
            "figures": [{**asdict(row), "good_share": row.good_share} for row in self.rows()],
            "tally": self.tally.to_json(),
        }

    def _row(self, name: str, stream: StreamTally) -> Row:
        times = {
            key: {"p50": seen.quantile(0.5), "p90": seen.quantile(0.9), "p99": seen.quantile(0.99), "mean": seen.mean}
            for key, seen in ((key, stream.times[key]) for key in TIMES)
        }
        counts = {key: int(value) for key, value in stream.to_json()["counts"].items()}
        rates = (counts[key] / self.seconds for key in ("asked", "good", "output_tokens"))
        return Row(name, counts, dict(stream.errors.most_common()), times, *rates)


def read_result(path: Path) -> Result:
    """The result of an earlier run. Raises ValueError for other files."""
    try:
        given = json.loads(path.read_text())
        began = float(time.mktime(time.strptime(given["began"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone)
        tally = Tally.from_json(given["tally"])
        return Result(given["plan"], given["locust"], given["machine"], tally, given["faults"], began)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"COMPARE: {path} is no result.json of a load: {error!r}") from None
