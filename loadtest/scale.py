"""What a request costs by the size of the fleet: CPU of the gateway and of Redis, and the gateway's memory.

    python -m loadtest.scale [--sizes 4 32 256 1000] [--rounds 1] [--seconds 5] [--json FILE]
    python -m loadtest.scale --source    # this tree as it is, not compiled

One gateway process, one Redis, and all nodes in one process, which listens on as many ports. Sixteen clients ask
plainly, each in a conversation of its own; every node has a bound, so that places are counted in Redis. What the
processes use while nobody asks is measured before and taken off.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest import proc, proxies
from loadtest.large_fleet import LargeFleet, Used
from loadtest.measure import per
from loadtest.processes import end_on_signals
from loadtest.proxies import Proxy
from loadtest.shipped import add_options, built

SIZES = (4, 32, 256, 1000)
CLIENTS = 16
RARELY = {"health": {"interval": 60.0, "slow_start": 0}}
"""Settings under which probes cost nothing worth to be taken off."""


@dataclass(frozen=True, slots=True)
class RequestCost:
    """CPU in µs a request, MB of the gateway after the load, requests a second, requests that failed."""

    nodes: int
    gateway: float
    redis: float
    resident: float
    rate: float
    broken: int


def measure_requests(gateway: Proxy, size: int, seconds: float) -> RequestCost:
    """What a request costs with `size` nodes, over `seconds` of load. Raises StartError, subprocess.SubprocessError."""
    with LargeFleet(gateway, size, RARELY) as fleet:
        fleet.load(*_flags(1.0))  # code is loaded, connections are made
        idle_began = fleet.used()
        time.sleep(min(2.0, seconds))
        began = fleet.used()
        report = fleet.load(*_flags(seconds))
        ended = fleet.used()
        idle = _between(idle_began, began, began.at - idle_began.at)
        used = _between(began, ended, ended.at - began.at)
        busy = ended.at - began.at
        return RequestCost(
            size,
            per(used.gateway - idle.gateway * busy / idle.at, report.whole),
            per(used.redis - idle.redis * busy / idle.at, report.whole),
            fleet.resident(),
            report.whole / report.seconds,
            report.broken,
        )


def _between(began: Used, ended: Used, seconds: float) -> Used:
    return Used(seconds, ended.gateway - began.gateway, ended.redis - began.redis)


def _flags(seconds: float) -> list[str]:
    return [f"--callers={CLIENTS}", f"--talks={CLIENTS}", f"--seconds={seconds}", "--ramp=0.02"]


def measure_all(
    gateway: Proxy, sizes: Sequence[int], rounds: int, seconds: float, say: Callable[[str], None]
) -> list[RequestCost]:
    """Medians over `rounds`, in each of which every size has its turn."""
    found: dict[int, list[RequestCost]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            cost = measure_requests(gateway, size, seconds)
            say(line(cost))
            found[size].append(cost)
    return [_median(costs) for costs in found.values()]


def _median(costs: Sequence[RequestCost]) -> RequestCost:
    def of(name: str) -> float:
        values: list[float] = [getattr(cost, name) for cost in costs]
        return statistics.median(values)

    broken = sum(cost.broken for cost in costs)
    return RequestCost(costs[0].nodes, of("gateway"), of("redis"), of("resident"), of("rate"), broken)


def line(cost: RequestCost) -> str:
    """One row of the table."""
    broken = f" {cost.broken} FAILED" if cost.broken else ""
    return f"| {cost.nodes:,} | {cost.gateway:.0f} | {cost.redis:.0f} | {cost.resident:.0f} |{broken}"


def main() -> None:
    """Measure, print and perhaps save."""
    parser = argparse.ArgumentParser(description="The cost of a request by the size of the fleet.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    add_options(parser)
    options = parser.parse_args()
    end_on_signals()
    [gateway] = built([proxies.FLEETGATE], options, print)
    print("| nodes | gateway, CPU µs a request | Redis, CPU µs a request | gateway, MB resident |")
    print("|---:|---:|---:|---:|")
    costs = measure_all(gateway, options.sizes, options.rounds, options.seconds, print)
    if options.rounds > 1:
        print("medians:", *map(line, costs), sep="\n")
    if options.json:
        rows = [asdict(cost) for cost in costs]
        options.json.write_text(json.dumps({"machine": proc.machine(), "requests": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
