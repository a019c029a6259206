"""`make soak MINUTES=30`: mixed load with faults on a gateway, and what it still holds when all of it is over.

    python -m loadtest.soak [--minutes 3] [--workers 1] [--json FILE]

Exit status 1 where anything is left: a lease, a reservation, a connection, a task, an open file. Memory and times are
told, and judged by nobody: a busy machine would make them lie.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest import proc, results
from loadtest.answers import MODEL
from loadtest.load.ask import ask, client_of
from loadtest.load.fleet import FleetSize, LoadFleet
from loadtest.load.histogram import Histogram
from loadtest.load.plan import LoadPlan, streams_of
from loadtest.load.result import Result
from loadtest.load.run import Locust, run_plan
from loadtest.load.scenarios import SCENARIOS, Draw
from loadtest.load.turns import Answer
from loadtest.load.view import table_of
from loadtest.processes import StartError, end_on_signals
from loadtest.soak.faults import faults_of
from loadtest.soak.held import Held, count_held
from loadtest.soak.memory import Sampler, behind_warm_up, slope_of

WARM_SECONDS = 4.0
QUIET_SECONDS = 60.0
"""What may take until nothing is held: a lease of a gateway's dead client, a settlement that Redis missed."""
SETTINGS: dict[str, Any] = {
    "timeouts": {"node_hang": 3, "stall": 3, "headers": 60},  # a generator that stands still may not cost a connection
    "health": {"interval": 1},
    "log": {"level": "warning"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1, help="processes of the gateway")
    parser.add_argument("--generators", type=int, default=0, help="locust workers under a master; 0 is one without")
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    end_on_signals()
    console = results.console()
    try:
        told = soak(options, console.print)
    except (StartError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"soak: {error}")
    console.print(table_of(told.pop("result")))
    for line in told["lines"]:
        console.print(line)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    sys.exit(bool(told["leaks"]))


def soak(options: argparse.Namespace, say: Any) -> dict[str, Any]:
    """One run. Raises StartError."""
    seconds = options.minutes * 60
    size = FleetSize(nodes=3, workers=options.workers)
    with LoadFleet(size, SETTINGS) as fleet:
        plan = LoadPlan(
            url=fleet.url,
            model=MODEL,
            keys=fleet.keys,
            streams=streams_of("rough", list(fleet.keys)),
            seconds=seconds,
            scale=options.scale,
            steering="marks",
            timeout=60.0,
            seed=options.seed,
        )
        locust = Locust(options.users, spawn_rate=20.0, workers=options.generators)
        _warm(fleet)
        before = _count(fleet)
        began = time.time()
        with Sampler(lambda: fleet.gateway_pid) as sampler:
            tally, inflicted = run_plan(plan, locust, list(faults_of(seconds, size.nodes)), fleet.inflict, say)
        after, leaks, quiet = _until_quiet(fleet, before)
        resident = proc.tree_cost(fleet.gateway_pid).rss_bytes
        log = fleet.gateway_log
    result = Result.of(plan, locust, tally, inflicted.log, began)
    samples = behind_warm_up(sampler.samples)
    slope = slope_of(samples)
    lines = [*result.remarks()]
    if slope is not None and samples:
        lines.append(
            f"memory: {slope.per_hour()} over {samples[-1].at - samples[0].at:.0f} s behind the warm-up, "
            f"{slope.first / 1e6:.1f} to {slope.last / 1e6:.1f} MB; {resident / 1e6:.1f} MB at the end"
        )
    lines.append(f"p99 of the first token by quarter of the run, s: {_quarters(result)}")
    lines.append(f"idle before: {_told(before)}")
    lines.append(f"{quiet:.0f} s after the load: {_told(after)}")
    lines.append(f"keys in Redis: {after.keys}")
    lines += [f"LEFT: {leak}" for leak in leaks] or ["nothing is left"]
    tracebacks = log.count("Traceback")
    if tracebacks:
        lines.append(f"{tracebacks} tracebacks in the gateway's log:\n{log[log.index('Traceback') - 500 :][:3000]}")
    return {
        "result": result,
        "figures": result.to_json()["figures"],
        "samples": [asdict(sample) for sample in sampler.samples],
        "faults": len([each for each in inflicted.log if not each["trouble"]]),
        "before": asdict(before),
        "after": asdict(after),
        "leaks": [*leaks, *(["tracebacks in the log"] if tracebacks else [])],
        "lines": lines,
    }


def _warm(fleet: LoadFleet) -> None:
    """Wait until the nodes are checked, and ask once for what starts parts of the gateway: a body of many values."""
    time.sleep(WARM_SECONDS)
    [key, *_] = fleet.keys.values()
    with client_of(fleet.url, key, 60.0) as client:
        for scenario in ("large", "reasoning"):
            answer = Answer()
            name = f"warm {scenario}"
            turn = next(SCENARIOS[scenario].session(Draw(random.Random(name), name, "warm", 0.01)))
            ask(client, turn, MODEL, "marks", answer)
            if answer.failed:
                raise StartError(f"the first request ended with {answer.ending}:\n{fleet.gateway_log[-1000:]}")
    time.sleep(WARM_SECONDS)


def _count(fleet: LoadFleet) -> Held:
    ports = [node.port for node in fleet.nodes]
    return count_held(fleet.gateway_pid, fleet.port, fleet.admin_url, fleet.redis_port, ports)


def _until_quiet(fleet: LoadFleet, before: Held) -> tuple[Held, list[str], float]:
    began = time.monotonic()
    while True:
        held = _count(fleet)
        leaks = list(held.leaks(before))
        waited = time.monotonic() - began
        if not leaks or waited > QUIET_SECONDS:
            return held, leaks, waited
        time.sleep(1.0)


def _told(held: Held) -> str:
    return (
        f"{held.tasks:g} tasks, {held.processes} processes, {held.threads} threads, {held.files} files, "
        f"connections {held.sockets}, running in Redis {held.requests}"
    )


def _quarters(result: Result) -> str:
    quarters = [Histogram() for _ in range(4)]
    for second, seen in result.total().waits.items():
        quarters[min(3, int(4 * second / result.seconds))].merge(seen)
    return ", ".join(f"{seen.quantile(0.99) or 0:.2f}" for seen in quarters)


if __name__ == "__main__":
    main()
