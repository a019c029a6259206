"""The gateway alone, beside the least a relay in Python can do: the figure to watch from change to change.

    python -m loadtest.relay [--rounds 3] [--json FILE]

The ratio to the floor is taken within each round, so it can be compared between days and machines; the
microseconds cannot.
"""

import argparse
import json
from pathlib import Path

from loadtest import measure, proc, proxies, results
from loadtest.processes import end_on_signals
from loadtest.rounds import run_rounds

BOTH = (proxies.FLEETGATE, proxies.FLOOR)


def main() -> None:
    """Measure both in paired rounds, print and perhaps save."""
    parser = argparse.ArgumentParser(description="The gateway beside a bare relay.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="short windows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_signals()
    console, machine = results.console(), proc.machine()
    extent = measure.QUICK if options.quick else measure.Extent()
    found = run_rounds(BOTH, extent, options.rounds, console.print)
    names = [proxy.name for proxy in BOTH]
    console.print(results.table(found, names, proxies.FLOOR.name, results.COSTS))
    if options.json:
        summary = results.summary(found, names, proxies.FLOOR.name)
        options.json.write_text(json.dumps({"machine": machine, "summary": summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
