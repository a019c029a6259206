"""What the generators have seen so far: counts and times of each tenant's scenarios, and how they went by second.

All of it can be added up, so that the generators of many machines make one result.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from loadtest.load.histogram import Histogram
from loadtest.load.turns import Answer

TIMES = ("ttft", "first_answer", "gap", "whole")
"""Seconds to the first token (thinking counts), to the first one of the answer, between two, and to the end."""
COUNTS = ("asked", "ok", "good", "left", "expected", "failed", "cut", "prompt_tokens", "cached_tokens", "output_tokens")
"""`good` ended well within the objective; `cut` was
under way when the run and its grace ended, and not late by then."""
SECONDS = ("asked", "ok", "good", "failed", "output_tokens")


class StreamTally:
    """One scenario of one tenant."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.times = {name: Histogram() for name in TIMES}
        self.seconds: dict[int, Counter[str]] = {}
        self.waits: dict[int, Histogram] = {}

    def asked(self, second: int) -> None:
        """A request is sent in this second of the run."""
        self.counts["asked"] += 1
        self._second(second)["asked"] += 1

    def ended(self, answer: Answer, second: int, objective: tuple[float, float]) -> None:
        """A request has ended."""
        row = self._second(second)
        self.counts["prompt_tokens"] += answer.prompt_tokens
        self.counts["cached_tokens"] += answer.cached_tokens
        self.counts["output_tokens"] += answer.output_tokens
        row["output_tokens"] += answer.output_tokens
        if answer.failed:
            self.counts["cut" if answer.ending == "cut" else "failed"] += 1
            if answer.ending != "cut":
                self.errors[answer.ending] += 1
                row["failed"] += 1
            return
        self.counts[answer.ending] += 1
        if answer.ending == "expected":
            return
        self._note_times(answer, second)
        if answer.ending == "ok":
            row["ok"] += 1
            ttft, gap = objective
            if answer.first_token is not None and answer.first_token <= ttft and (answer.gap or 0.0) <= gap:
                self.counts["good"] += 1
                row["good"] += 1

    def _note_times(self, answer: Answer, second: int) -> None:
        for name, value in (
            ("ttft", answer.first_token),
            ("first_answer", answer.first_answer),
            ("whole", answer.whole if answer.ending == "ok" else None),
        ):
            if value is not None:
                self.times[name].add(value)
        for gap in answer.gaps:
            self.times["gap"].add(gap)
        if answer.first_token is not None:
            self.waits.setdefault(second, Histogram()).add(answer.first_token)

    def merge(self, other: "StreamTally") -> None:
        """Add all that another one has."""
        self.counts.update(other.counts)
        self.errors.update(other.errors)
        for name, histogram in other.times.items():
            self.times[name].merge(histogram)
        for second, row in other.seconds.items():
            self._second(second).update(row)
        for second, histogram in other.waits.items():
            self.waits.setdefault(second, Histogram()).merge(histogram)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "counts": {name: self.counts[name] for name in COUNTS},
            "errors": dict(self.errors.most_common()),
            "times": {name: histogram.to_json() for name, histogram in self.times.items()},
            "seconds": {str(second): dict(row) for second, row in sorted(self.seconds.items())},
            "waits": {str(second): histogram.to_json() for second, histogram in sorted(self.waits.items())},
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "StreamTally":
        """What `to_json` made."""
        made = cls()
        made.counts, made.errors = Counter(given["counts"]), Counter(given["errors"])
        made.times = {name: Histogram.from_json(given["times"][name]) for name in TIMES}
        made.seconds = {int(second): Counter(row) for second, row in given["seconds"].items()}
        made.waits = {int(second): Histogram.from_json(row) for second, row in given["waits"].items()}
        return made

    def _second(self, second: int) -> Counter[str]:
        return self.seconds.setdefault(second, Counter())


class Tally:
    """All streams by `TENANT SCENARIO`, and the generators' own troubles."""

    def __init__(self) -> None:
        self.streams: dict[str, StreamTally] = {}
        self.late = Histogram()
        """Seconds by which a request was sent after its moment: the generator's fault, never the system's."""
        self.dropped = 0
        """Arrivals that were not sent, as a generator had too many under way."""
        self.ran = 0.0
        """Seconds of load, until its end was told; 0 before."""

    def stream(self, tenant: str, scenario: str) -> StreamTally:
        """That stream, from now on if it is new."""
        return self.streams.setdefault(f"{tenant} {scenario}", StreamTally())

    def merge(self, other: "Tally") -> None:
        """Add all that another one has."""
        for name, stream in other.streams.items():
            self.streams.setdefault(name, StreamTally()).merge(stream)
        self.late.merge(other.late)
        self.dropped += other.dropped
        self.ran = max(self.ran, other.ran)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        streams = {name: stream.to_json() for name, stream in sorted(self.streams.items())}
        return {"streams": streams, "late": self.late.to_json(), "dropped": self.dropped, "ran": self.ran}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Tally":
        """What `to_json` made."""
        made = cls()
        made.streams = {name: StreamTally.from_json(row) for name, row in given["streams"].items()}
        made.late = Histogram.from_json(given["late"])
        made.dropped = int(given["dropped"])
        made.ran = float(given.get("ran", 0.0))
        return made
