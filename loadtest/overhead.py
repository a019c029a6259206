"""The gateway beside its rivals, in one run.

    python -m loadtest.overhead [--install] [--rounds 5] [--proxies fleetgate,nginx,...] [--policies] [--json FILE]
    python -m loadtest.overhead --streams-1000

The gateway is measured as its image has it, compiled, and run by --python; with --source as this tree has it.

What is measured and what it does not show: docs/benchmarks.md.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from loadtest import many, measure, proc, proxies, results
from loadtest.install import install
from loadtest.processes import end_on_signals
from loadtest.proxies import Proxy
from loadtest.rounds import run_rounds
from loadtest.shipped import add_options, built

BASE = "vllm-router"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The gateway's overhead beside its rivals'.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--proxies", default="", help="comma-separated; all that are installed by default")
    parser.add_argument("--policies", action="store_true", help="also measure fleetgate with every policy on")
    add_options(parser)
    parser.add_argument("--install", action="store_true", help="install the rivals that are missing")
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works, not to quote")
    parser.add_argument("--streams-1000", action="store_true", help="only the thousand streams through fleetgate")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, as docs/benchmarks.md has it")
    return parser.parse_args(arguments)


def chosen(names: str, policies: bool) -> list[Proxy]:
    """The proxies asked for, all by default. Raises SystemExit where one is unknown."""
    everyone = {proxy.name: proxy for proxy in (*proxies.EVERYONE, *proxies.OWN)}
    wanted = names.split(",") if names else [proxy.name for proxy in proxies.EVERYONE]
    unknown = sorted(set(wanted) - set(everyone))
    if unknown:
        raise SystemExit(f"no such proxy: {', '.join(unknown)}; there are {', '.join(everyone)}")
    if policies and proxies.POLICIES.name not in wanted:
        wanted.append(proxies.POLICIES.name)
    return [everyone[name] for name in wanted]


def compare(options: argparse.Namespace, console: Console) -> dict[str, object]:
    """Run the rounds, print the table, and return everything for JSON."""
    wanted = built(chosen(options.proxies, options.policies), options, console.print)
    present = [proxy for proxy in wanted if _is_present(proxy, console)]
    extent = measure.QUICK if options.quick else measure.Extent()
    machine = proc.machine()
    found = run_rounds(present, extent, options.rounds, console.print)
    names = [results.DIRECT, *(proxy.name for proxy in present)]
    console.print(results.table(found, names[1:], BASE))
    if options.markdown:
        options.markdown.write_text(results.markdown(found, names[1:], BASE) + "\n")
    return {
        "machine": machine,
        "extent": asdict(extent),
        "proxies": {proxy.name: {"version": proxy.version, "note": proxy.note} for proxy in present},
        "summary": results.summary(found, names[1:], BASE),
        "rounds": [{name: asdict(sample) for name, sample in each.items()} for each in found],
    }


def crowd(options: argparse.Namespace, console: Console) -> dict[str, object]:
    """The thousand streams, direct first: what the load generator itself is late by is no fault of the gateway."""
    size = many.Crowd(seconds=3.0) if options.quick else many.Crowd()
    [ours] = built([proxies.FLEETGATE], options, console.print)
    found = {proxy.name if proxy else results.DIRECT: many.run(proxy, size) for proxy in (None, ours)}
    for name, figures in found.items():
        console.print(name, {key: round(figure, 2) for key, figure in figures.items()})
    return {"machine": proc.machine(), "crowd": asdict(size), "found": found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison or the crowd."""
    options = parse(list(arguments) if arguments is not None else None)
    console = results.console()
    end_on_signals()
    if options.install:
        install(chosen(options.proxies, False), console.print)
    found = crowd(options, console) if options.streams_1000 else compare(options, console)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _is_present(proxy: Proxy, console: Console) -> bool:
    if not proxy.executable:
        console.print(f"{proxy.name}: absent (not installed)")
    return bool(proxy.executable)


if __name__ == "__main__":
    main()
