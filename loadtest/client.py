"""A lean load client: one process, raw asyncio protocols on uvloop, its report as JSON on standard output.

    python -m loadtest.client --port 8080 --callers 32 --seconds 3
    python -m loadtest.client --port 8080 --callers 100 --events 100000 --rate 50 --seconds 4 --watch PID

A caller is one connection that asks, reads the answer to its end, and (with `--repeat`, always for plain
requests) asks again. The window opens once every caller has had its first byte: opening costs are outside it.
`--watch` reads the CPU time and memory of a process tree at the window's ends, so both count the same work.
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import time
from dataclasses import dataclass
from typing import Self, cast

import uvloop

from loadtest import proc, tally
from loadtest.answers import MARK, STAMP_DIGITS
from loadtest.asks import Target, request
from loadtest.reader import Answer
from loadtest.tally import Report, Tally, percentile

OPEN_SECONDS = 60.0
NOTHING = proc.Cost(0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class Load:
    """What to do: `events` 0 is plain; `seconds` 0 lasts until every caller is done; `ramp` spreads the opening."""

    callers: int
    events: int = 0
    rate: float = 50.0
    seconds: float = 3.0
    ramp: float = 0.2
    repeat: bool = True
    delays: bool = False
    watch: int = 0


class Caller(asyncio.Protocol):
    """One connection. It counts into the shared tally."""

    def __init__(self, question: bytes, load: Load, counts: Tally) -> None:
        """`question` is the request's bytes, sent as soon as the connection stands."""
        self._question = question
        self._load = load
        self._counts = counts
        self._answer = Answer()
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[bool] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: ask."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut before the end, unless it was this side that ended it."""
        if not self.over.done():
            self.fail()

    def data_received(self, data: bytes) -> None:
        """Count what came; ask again or end where the answer is whole."""
        answer = self._answer
        events, silent = answer.events, not answer.body_bytes
        whole = answer.feed(data)
        self._counts.events += answer.events - events
        if silent and answer.body_bytes:
            self._settle(True)
            self._counts.ttft.append(time.perf_counter() - self._asked)
        if self._load.delays:
            self._note_delay(data)
        if whole:
            self._finish()

    def stop(self) -> None:
        """End now; what is under way is not lost but cut by us."""
        self._settle(False)
        if not self.over.done():
            self.over.set_result(None)
        if self._transport:
            self._transport.abort()

    def fail(self) -> None:
        """Cut, or never connected: what was asked for and did not come is lost."""
        self._counts.broken += 1
        self._counts.lost_events += max(0, self._load.events - self._answer.events)
        self.stop()

    def _ask(self) -> None:
        self._answer = Answer()
        self._asked = time.perf_counter()
        if self._transport:
            self._transport.write(self._question)

    def _finish(self) -> None:
        self._counts.latency.append(time.perf_counter() - self._asked)
        if self._is_right():
            self._counts.whole += 1
        else:
            self._counts.broken += 1
            self._counts.lost_events += max(0, self._load.events - self._answer.events)
        if self._load.repeat:
            self._ask()
        else:
            self.stop()

    def _is_right(self) -> bool:
        answer = self._answer
        streamed = answer.events == self._load.events and answer.done
        return answer.status == 200 and (streamed or not self._load.events)

    def _settle(self, opened: bool) -> None:
        if not self.opened.done():
            self.opened.set_result(opened)

    def _note_delay(self, data: bytes) -> None:
        """The first event of these bytes is their oldest: the others came no later than it."""
        at = data.find(MARK) + 1
        stamp = data[at : at + STAMP_DIGITS]
        if at and len(stamp) == STAMP_DIGITS and stamp.isdigit():
            self._counts.delay.append((time.monotonic_ns() // 1000 - int(stamp)) / 1e6)


async def open_callers(target: Target, load: Load, counts: Tally) -> list[Caller]:
    """Open all connections, spread over `load.ramp` seconds."""
    loop = asyncio.get_running_loop()
    question = request(target, load.events, load.rate)
    callers = [Caller(question, load, counts) for _ in range(load.callers)]
    start = loop.time()
    for index, caller in enumerate(callers):
        await asyncio.sleep(max(0.0, start + load.ramp * index / load.callers - loop.time()))
        try:
            await loop.create_connection(lambda caller=caller: caller, target.host, target.port)  # type: ignore[misc]
        except OSError:
            caller.fail()
    return callers


async def wait_until_open(callers: list[Caller]) -> int:
    """Wait until every caller has had its first byte or failed, at most OPEN_SECONDS; how many are open."""
    done, _ = await asyncio.wait([caller.opened for caller in callers], timeout=OPEN_SECONDS)
    return sum(opened.result() for opened in done)


async def wait_until_over(callers: list[Caller], load: Load) -> None:
    """Wait out the window: `load.seconds`, or until every caller is done, bounded by twice the time it takes."""
    longest = load.seconds or 2 * load.events / load.rate + OPEN_SECONDS
    await asyncio.wait([caller.over for caller in callers], timeout=longest)


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
