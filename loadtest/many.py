"""A thousand streams through one process: is anything lost, what does a stream hold, how late is an event."""

from dataclasses import dataclass

from loadtest.measure import Bench, warm_up
from loadtest.proxies import Proxy


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many streams, at how many events a second each, for how many seconds."""

    streams: int = 1000
    rate: float = 20.0
    seconds: float = 30.0


def run(proxy: Proxy | None, crowd: Crowd) -> dict[str, float]:
    """Relay the crowd to its end. Memory in KiB, delays in ms from the node's write to the client's read."""
    with Bench(proxy) as bench:
        warm_up(bench)
        report = bench.load(*_flags(crowd))
    return {
        "streams_opened": report.opened,
        "streams_broken": report.broken,
        "events_lost": report.lost_events,
        "kib_per_stream": (report.memory_open - report.memory_before) / 1024 / crowd.streams,
        "cpu_us_per_event": report.cpu_seconds * 1e6 / max(1, report.events),
        "event_delay_p50_ms": report.delay_p50 * 1e3,
        "event_delay_p99_ms": report.delay_p99 * 1e3,
        "event_delay_max_ms": report.delay_max * 1e3,
    }


def _flags(crowd: Crowd) -> list[str]:
    shape = [f"--callers={crowd.streams}", f"--rate={crowd.rate}", f"--events={round(crowd.rate * crowd.seconds)}"]
    return [*shape, "--once", "--seconds=0", "--ramp=3.7", "--delays"]
