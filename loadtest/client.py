"""A lean load client: one process, raw asyncio protocols on uvloop, its report as JSON on standard output.

    python -m loadtest.client --port 8080 --callers 32 --seconds 3
    python -m loadtest.client --port 8080 --callers 100 --events 100000 --rate 50 --seconds 4 --watch PID

A caller is one connection that asks, reads the answer to its end, and asks again, or with `--once` ends. The
window opens when every caller has had its first byte: opening costs are outside it. `--watch` reads the CPU time
and memory of a process tree at the window's ends, so both count the same work.
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import time
from typing import Self

import uvloop

from loadtest import proc, tally
from loadtest.asks import Target
from loadtest.caller import Load, open_callers, wait_until_open, wait_until_over
from loadtest.tally import Report, Tally, percentile

NOTHING = proc.Cost(0.0, 0, 0)


def watch(load: Load) -> proc.Cost:
    """The watched process tree's cost so far; nothing where none is watched."""
    return proc.tree_cost(load.watch) if load.watch else NOTHING


class Peak:
    """The greatest memory that the watched tree holds while it is open (proportional set, bytes)."""

    def __init__(self, load: Load) -> None:
        """Nothing is read where nothing is watched."""
        self._load = load
        self._task: asyncio.Task[None] | None = None
        self.pss_bytes = 0

    async def __aenter__(self) -> Self:
        """Read once a second from now on."""
        if self._load.watch:
            self._task = asyncio.get_running_loop().create_task(self._read_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Read no more."""
        if self._task:
            self._task.cancel()

    async def _read_on(self) -> None:
        while True:
            self.pss_bytes = max(self.pss_bytes, watch(self._load).pss_bytes)
            await asyncio.sleep(1.0)


async def run(target: Target, load: Load) -> Report:
    """Run one load and report."""
    counts = Tally()
    idle = watch(load)
    callers = await open_callers(target, load, counts)
    opened = await wait_until_open(callers)
    begin, whole, events, started = watch(load), counts.whole, counts.events, time.perf_counter()
    first = len(counts.ttft) if load.repeat else 0
    async with Peak(load) as peak:
        await wait_until_over(callers, load)
    end, seconds = watch(load), time.perf_counter() - started
    for caller in callers:
        caller.stop()
    del counts.ttft[:first]
    return Report(
        seconds=seconds,
        whole=counts.whole - whole,
        broken=counts.broken,
        events=counts.events - events,
        lost_events=counts.lost_events,
        opened=opened,
        cpu_seconds=end.cpu_seconds - begin.cpu_seconds,
        memory_before=idle.pss_bytes,
        memory_open=max(peak.pss_bytes, end.pss_bytes),
        ttft_p50=percentile(counts.ttft, 0.5),
        ttft_p99=percentile(counts.ttft, 0.99),
        latency_p50=percentile(counts.latency, 0.5),
        latency_p99=percentile(counts.latency, 0.99),
        delay_p50=percentile(counts.delay, 0.5),
        delay_p99=percentile(counts.delay, 0.99),
        delay_max=percentile(counts.delay, 1.0),
        late_events=tally.late(counts.delay),
    )


def parse(arguments: list[str] | None = None) -> tuple[Target, Load]:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A lean load client.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--events", type=int, default=0, help="events a stream; 0 asks plainly")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second a stream")
    parser.add_argument("--seconds", type=float, default=3.0, help="0: until every caller is done")
    parser.add_argument("--ramp", type=float, default=0.2, help="seconds over which callers open")
    parser.add_argument("--once", action="store_true", help="each caller asks once")
    parser.add_argument("--delays", action="store_true", help="read the relay's delay off the events")
    parser.add_argument("--talks", type=int, default=1, help="conversations, dealt to the callers")
    parser.add_argument("--watch", type=int, default=0, help="pid of the process tree to measure")
    found = vars(parser.parse_args(arguments))
    target = Target(found.pop("host"), found.pop("port"), found.pop("key"))
    return target, Load(repeat=not found.pop("once"), **found)


def main() -> None:
    """Run one load and print its report."""
    target, load = parse()
    gc.disable()
    print(json.dumps(dataclasses.asdict(uvloop.run(run(target, load)))))


if __name__ == "__main__":
    main()
