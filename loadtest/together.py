"""What an event costs some proxies at the same time: where a difference of a few percent matters.

    python -m loadtest.together fleetgate fleetgate-budgets vllm-router

Each has its own node and its own client, all run in the same seconds, and each round begins with another one. So a
machine that is slower for a while is slower for all of them: their ratios spread by two or three percent, where those
of measurements one after the other spread by ten.
"""

import argparse
import statistics
import threading
from contextlib import ExitStack

from loadtest.measure import QUICK, Bench, Extent, hold, per, warm_up
from loadtest.proxies import EVERYONE, OWN, Proxy
from loadtest.shipped import add_options, built


def measure(proxies: list[Proxy], extent: Extent) -> list[float]:
    """CPU per event in µs of each, in one round. Raises StartError, subprocess.SubprocessError."""
    costs: dict[str, float] = {}

    def load(proxy: Proxy, bench: Bench) -> None:
        report = hold(bench, extent)
        costs[proxy.name] = per(report.cpu_seconds, report.events)

    with ExitStack() as stack:
        benches = [stack.enter_context(Bench(proxy)) for proxy in proxies]
        for bench in benches:
            warm_up(bench)
        threads = [threading.Thread(target=load, args=pair) for pair in zip(proxies, benches, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [costs[proxy.name] for proxy in proxies]


def table(names: list[str], rounds: list[list[float]]) -> str:
    """Median and spread of the costs and of the ratios to the first one."""
    lines = ["| proxy | µs per event | ratio |", "| --- | ---: | ---: |"]
    for at, name in enumerate(names):
        costs = [costs[at] for costs in rounds]
        ratios = [costs[at] / costs[0] for costs in rounds]
        lines.append(
            f"| {name} | {statistics.median(costs):.1f} ({min(costs):.1f}–{max(costs):.1f}) "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}) |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    known = {proxy.name: proxy for proxy in (*EVERYONE, *OWN)}
    parser = argparse.ArgumentParser(description="The cost of an event, of several proxies at once.")
    parser.add_argument("proxies", nargs="+", choices=sorted(known), metavar="proxy", help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=7)
    add_options(parser)
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works, not to quote")
    options = parser.parse_args(arguments)
    proxies = built([known[name] for name in options.proxies], options, print)
    rounds = []
    for number in range(options.rounds):
        turn = number % len(proxies)
        order = proxies[turn:] + proxies[:turn]
        found = dict(
            zip((proxy.name for proxy in order), measure(order, QUICK if options.quick else Extent()), strict=True)
        )
        rounds.append([found[name] for name in options.proxies])
    print(table(options.proxies, rounds))


if __name__ == "__main__":
    main()
