"""One proxy, measured once, in front of one mock node, by four loads.

1. 100 streams held open at 50 events a second: CPU per event, memory per stream. In processes of its own: what
   streams leave behind in an allocator would hide the memory of the next ones, and not every proxy lets go of a
   stream whose client has left.
2. One stream after the other: TTFT alone.
3. 32 clients asking plainly: CPU per request.
4. 100 streams that end and start anew all the time: TTFT under load.

CPU is what the kernel charged to the proxy's process tree, user and system, so it does not matter which process
of the load generator was slow; TTFT does depend on it, so it is compared with `direct` of the same round.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest.asks import Target, request
from loadtest.processes import HOST, Child, StartedProcesses, free_port, wait_until_answers, wait_until_listens
from loadtest.proxies import Place, Proxy
from loadtest.tally import Report

START_SECONDS = 120.0
CLIENT_SECONDS = 240.0
OPENING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Extent:
    """How long and how wide each load is; times in seconds, rate in events a second."""

    clients: int = 32
    streams: int = 100
    rate: float = 50.0
    plain_seconds: float = 3.0
    stream_seconds: float = 4.0
    ttft_seconds: float = 20.0
    single_seconds: float = 3.0


QUICK = Extent(plain_seconds=1.0, stream_seconds=1.5, ttft_seconds=1.5, single_seconds=0.7)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one proxy cost in one round: CPU in µs, times in ms, memory in KiB."""

    cpu_per_request: float
    requests_per_second: float
    cpu_per_event: float
    events_per_second: float
    share_of_offered: float
    ttft_alone_p50: float
    ttft_alone_p99: float
    ttft_loaded_p50: float
    ttft_loaded_p99: float
    kib_per_stream: float
    idle_mib: float
    broken: int


class Bench(StartedProcesses):
    """A running node and proxy; a context manager."""

    def __init__(self, proxy: Proxy | None) -> None:
        """`None` measures the node directly."""
        super().__init__()
        self._proxy = proxy
        self._watched = 0
        self.port = 0

    def load(self, *flags: str) -> Report:
        """Run one load client to its end. Raises subprocess.SubprocessError."""
        key = ["--key", self._proxy.key] if self._proxy and self._proxy.key else []
        argv = [sys.executable, "-m", "loadtest.client", "--port", str(self.port), *key, *flags]
        argv += ["--watch", str(self._watched)]
        done = subprocess.run(argv, check=True, capture_output=True, timeout=CLIENT_SECONDS)
        return Report(**json.loads(done.stdout))

    def _start(self) -> None:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fleetgate-bench-")))
        self.port = free_port()
        argv = [sys.executable, "-m", "loadtest.mock_node", "--port", str(self.port)]
        self._run(argv, folder / "node.log")
        if not self._proxy:
            return
        place = Place(node=self.port, port=free_port(), folder=folder, redis=free_port())
        if self._proxy.beside:
            beside = Child(self._proxy.beside(place), folder / "beside.log")
            wait_until_listens(self._stack.enter_context(beside), place.redis, START_SECONDS)
        self.port = place.port
        self._run(self._proxy.argv(self._proxy, place), folder / "proxy.log", self._proxy)

    def _run(self, argv: list[str], log: Path, proxy: Proxy | None = None) -> None:
        child = self._stack.enter_context(Child(argv, log, proxy.environment if proxy else None))
        self._watched = child.pid
        target = Target(HOST, self.port, proxy.key if proxy else "")
        wait_until_answers(child, self.port, request(target, 0, 1.0), START_SECONDS)


def take(proxy: Proxy | None, extent: Extent) -> Sample:
    """Measure one proxy, or the node directly, once. Raises StartError, subprocess.SubprocessError."""
    with Bench(proxy) as bench:
        warm_up(bench)
        held = hold(bench, extent)
    with Bench(proxy) as bench:
        warm_up(bench)
        alone = bench.load("--callers=1", "--events=2", "--rate=200", f"--seconds={extent.single_seconds}")
        plain = ask(bench, extent)
        churned = churn(bench, extent)
    return sample(extent, held, churned, alone, plain)


def warm_up(bench: Bench) -> None:
    """Let code be loaded, connections be made and allocators settle before anything is read."""
    bench.load("--callers=8", "--seconds=0.5")
    bench.load("--callers=10", "--events=20", "--rate=100", "--once", "--seconds=0")


def hold(bench: Bench, extent: Extent) -> Report:
    """Streams that outlast the window, but not for long: nothing but events and memory."""
    events = round(extent.rate * (extent.stream_seconds + OPENING_SECONDS))
    shape = (f"--callers={extent.streams}", f"--rate={extent.rate}", f"--events={events}", "--once")
    return bench.load(*shape, f"--seconds={extent.stream_seconds}", "--ramp=0.73")


def ask(bench: Bench, extent: Extent) -> Report:
    """Clients that ask plainly, each as soon as it has its answer."""
    return bench.load(f"--callers={extent.clients}", f"--seconds={extent.plain_seconds}")


def churn(bench: Bench, extent: Extent) -> Report:
    """Streams of one second each, starting all the time while the others run."""
    shape = (f"--callers={extent.streams}", f"--rate={extent.rate}", f"--events={round(extent.rate)}")
    return bench.load(*shape, f"--seconds={extent.ttft_seconds}", "--ramp=1.03")


def sample(extent: Extent, held: Report, churned: Report, alone: Report, plain: Report) -> Sample:
    """Put the four reports together."""
    return Sample(
        cpu_per_request=per(plain.cpu_seconds, plain.whole),
        requests_per_second=plain.whole / plain.seconds,
        cpu_per_event=per(held.cpu_seconds, held.events),
        events_per_second=held.events / held.seconds,
        share_of_offered=held.events / (extent.streams * extent.rate * held.seconds),
        ttft_alone_p50=alone.ttft_p50 * 1e3,
        ttft_alone_p99=alone.ttft_p99 * 1e3,
        ttft_loaded_p50=churned.ttft_p50 * 1e3,
        ttft_loaded_p99=churned.ttft_p99 * 1e3,
        kib_per_stream=(held.memory_open - held.memory_before) / 1024 / extent.streams,
        idle_mib=held.memory_before / 1024 / 1024,
        broken=held.broken + churned.broken + alone.broken + plain.broken,
    )


def per(seconds: float, count: int) -> float:
    """CPU per piece of work in µs; nan where none was done."""
    return seconds * 1e6 / count if count else float("nan")
