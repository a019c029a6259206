"""What an event, or a plain request, costs some proxies at the same time: where a difference of a few percent matters.

    python -m loadtest.together fleetgate fleetgate-budgets vllm-router
    python -m loadtest.together --requests fleetgate fleetgate-traced

Each has its own node and its own client, all run in the same seconds, and each round begins with another one. So a
machine that is slower for a while is slower for all of them: their ratios spread by two or three percent, where those
of measurements one after the other spread by ten.
"""

import argparse
import statistics
import threading
from contextlib import ExitStack

from loadtest.measure import QUICK, Bench, Extent, ask, hold, per, warm_up
from loadtest.proxies import EVERYONE, OWN, Proxy
from loadtest.shipped import add_options, built


def measure(proxies: list[Proxy], extent: Extent, requests: bool = False) -> list[float]:
    """CPU per event, or plain request, in µs of each, in one round. Raises StartError, subprocess.SubprocessError."""
    costs: dict[str, float] = {}

    def load(proxy: Proxy, bench: Bench) -> None:
        report = ask(bench, extent) if requests else hold(bench, extent)
        costs[proxy.name] = per(report.cpu_seconds, report.whole if requests else report.events)

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


def table(names: list[str], rounds: list[list[float]], of: str = "event") -> str:
    """Median and spread of the costs and of the ratios to the first one."""
    lines = [f"| proxy | µs per {of} | ratio |", "| --- | ---: | ---: |"]
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
    parser = argparse.ArgumentParser(description="The cost of an event or a request, of several proxies at once.")
    parser.add_argument("proxies", nargs="+", choices=sorted(known), metavar="proxy", help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", action="store_true", help="plain requests of 32 clients each, in place of events")
    add_options(parser)
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works, not to quote")
    options = parser.parse_args(arguments)
    proxies = built([known[name] for name in options.proxies], options, print)
    rounds = []
    for number in range(options.rounds):
        turn = number % len(proxies)
        order = proxies[turn:] + proxies[:turn]
        costs = measure(order, QUICK if options.quick else Extent(), options.requests)
        found = dict(zip((proxy.name for proxy in order), costs, strict=True))
        rounds.append([found[name] for name in options.proxies])
    print(table(options.proxies, rounds, "request" if options.requests else "event"))


if __name__ == "__main__":
    main()
