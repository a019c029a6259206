"""`make load`: loads on a gateway that is started here, or on a foreign one.

    python -m loadtest.load [--scenario mixed] [--users 100] [--seconds 60] [--faults '20 kill 1 for 5']
    python -m loadtest.load --url https://gateway --key sk-... --scenario agents --users 200

Without --url three fake nodes, a Redis and a gateway with two tenants are started and ended.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest import results
from loadtest.answers import MODEL
from loadtest.load.compare import compare
from loadtest.load.fleet import FleetSize, LoadFleet, drain, tell_admin
from loadtest.load.plan import LoadPlan, PlanError, read_keys, streams_of
from loadtest.load.report import write_html
from loadtest.load.result import Result, read_result
from loadtest.load.run import ROOT, Locust, run_plan, worker_argv
from loadtest.load.scenarios import describe
from loadtest.load.timetable import Fault, TimetableError, read_timetable
from loadtest.load.view import table_of
from loadtest.processes import HOST, StartError, end_on_signals

USERS = 100
SHORT = 0.1
"""Of all lengths where the nodes are fakes on this machine, for one process of each to carry it."""


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Empty values are as if not given, as make hands its variables on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="a gateway that runs already; without it one is started")
    parser.add_argument("--key", default="", help="KEY or TENANT:KEY,TENANT:KEY, for --url; also $LOAD_KEY")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--admin", default="", help="its admin listener, for drains and reloads")
    parser.add_argument("--admin-token", default=os.environ.get("FLEETGATE_ADMIN__TOKEN", ""))
    parser.add_argument("--scenario", default="", help="`list` shows them; or a trace that ends in .jsonl")
    parser.add_argument("--users", type=_positive(int, USERS), default=USERS, help="sources of arrivals")
    parser.add_argument("--seconds", type=_positive(float, 60.0), default=60.0)
    parser.add_argument("--grace", type=_positive(float, 30.0), default=30.0, help="for what is under way at the end")
    parser.add_argument("--rate", type=_positive(float, 1.0), default=1.0, help="factor of all arrivals")
    parser.add_argument("--scale", type=_positive(float, None), help="factor of all lengths: 1 with --url, else 0.1")
    parser.add_argument("--speed", type=_positive(float, 1.0), default=1.0, help="how fast a trace is replayed")
    parser.add_argument("--ttft", type=_positive(float, None), help="objective, seconds to the first token")
    parser.add_argument("--gap", type=_positive(float, None), help="objective, seconds between two tokens")
    parser.add_argument("--faults", default="", help="a timetable, or a file of one")
    parser.add_argument("--workers", type=_positive(int, 0), default=0, help="generators here, under a master")
    parser.add_argument("--listen", default="", help="address where generators of other machines come to")
    parser.add_argument("--listen-port", type=_positive(int, 5557), default=5557)
    parser.add_argument("--remote", type=_positive(int, 0), default=0, help="how many of those are waited for")
    parser.add_argument("--master", default="", help="be a generator of the master at HOST:PORT, and nothing else")
    parser.add_argument("--web", type=_positive(int, 0), default=0, help="port of locust's page, to begin there")
    parser.add_argument("--nodes", type=_positive(int, 3), default=3, help="fake nodes to start")
    parser.add_argument("--gateway-workers", type=_positive(int, 1), default=1, help="processes of the gateway")
    parser.add_argument("--out", type=Path, default=Path("load-report"), help="folder of report.html and result.json")
    parser.add_argument("--compare", default="", help="result.json of an earlier run")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def _positive(kind: Callable[[str], Any], default: Any) -> Callable[[str], Any]:
    """A number above 0; empty is as if not given."""

    def number(text: str) -> Any:
        value = kind(text) if text else default
        if text and not 0 < value < 1e9:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print a table, write the report."""
    options = options_of(arguments)
    console = results.console()
    if options.scenario == "list":
        print(describe())
        return
    if options.master:
        host, _, port = options.master.rpartition(":")
        if not host or not port.isdecimal():
            sys.exit(f"load: MASTER is HOST:PORT, not {options.master!r}")
        argv = worker_argv(host, int(port))
        os.execve(argv[0], argv, {**os.environ, "PYTHONPATH": str(ROOT)})
    end_on_signals()
    try:
        before = read_result(Path(options.compare)) if options.compare else None
        result = _run(options, console)
    except (PlanError, TimetableError, StartError, OSError, ValueError, subprocess.SubprocessError) as error:
        sys.exit(f"load: {error}")
    console.print(table_of(result))
    for line in result.remarks():
        console.print(line)
    if before is not None:
        console.print(compare(before, result))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "result.json").write_text(json.dumps(result.to_json()) + "\n")
    write_html(result, options.out / "report.html", before)
    console.print(f"report: {(options.out / 'report.html').resolve()}")


def _run(options: argparse.Namespace, console: Console) -> Result:
    locust = Locust(
        users=options.users,
        spawn_rate=max(1.0, options.users / 5),
        workers=options.workers,
        port=options.web,
        listen=options.listen,
        listen_port=options.listen_port,
        remote=options.remote,
    )
    with contextlib.ExitStack() as stack:
        if options.url:
            keys = read_keys(options.key or os.environ.get("LOAD_KEY", ""))
            plan = _plan(options, options.url.rstrip("/").removesuffix("/v1"), keys, foreign=True)
            faults = read_timetable(_text(options.faults), None)
            if faults and not options.admin:
                raise TimetableError("FAULTS on a foreign gateway need its admin listener: --admin URL")
            inflict = _foreign(options.admin, options.admin_token)
        else:
            faults = read_timetable(_text(options.faults), options.nodes)
            size = FleetSize(options.nodes, options.gateway_workers)
            _plan(options, "http://nowhere", dict.fromkeys(size.tenants, ""), foreign=False)  # before anything starts
            fleet = stack.enter_context(LoadFleet(size))
            plan = _plan(options, fleet.url, fleet.keys, foreign=False)
            inflict = fleet.inflict
            console.print(f"gateway {fleet.url}, admin {fleet.admin_url}, {options.nodes} fake nodes")
        if locust.port:
            console.print(f"locust's page: http://{HOST}:{locust.port}; Ctrl-C there, or here, ends it")
        began = time.time()
        tally, inflicted = run_plan(plan, locust, faults, inflict, console.print)
    return Result.of(plan, locust, tally, inflicted.log, began)


def _plan(options: argparse.Namespace, url: str, keys: dict[str, str], foreign: bool) -> LoadPlan:
    scenario = options.scenario or "mixed"
    is_trace = scenario.endswith(".jsonl")
    if is_trace and not Path(scenario).is_file():
        raise PlanError(f"SCENARIO: there is no file {scenario}")
    return LoadPlan(
        url=url,
        model=options.model,
        keys=keys,
        streams=() if is_trace else streams_of(scenario, list(keys)),
        seconds=options.seconds,
        grace=options.grace,
        rate=options.rate,
        scale=options.scale or (1.0 if foreign else SHORT),
        steering="budget" if foreign else "marks",
        trace=str(Path(scenario).resolve()) if is_trace else "",
        speed=options.speed,
        ttft=options.ttft,
        gap=options.gap,
        seed=options.seed,
    )


def _foreign(admin: str, token: str) -> Callable[[Fault], None]:
    def inflict(fault: Fault) -> None:
        if fault.action == "drain":
            drain(fault.node, admin, token, fault.lasts)
        else:
            tell_admin(admin, token, "reload")

    return inflict


def _text(given: str) -> str:
    path = Path(given)
    return path.read_text() if given and len(given) < 200 and path.is_file() else given


if __name__ == "__main__":
    main()
