"""Runs a plan: locust's processes, the faults beside them, and the result that they leave."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loadtest.load.environment import locust_argv
from loadtest.load.plan import LoadPlan
from loadtest.load.tally import Tally
from loadtest.load.timetable import Fault
from loadtest.processes import HOST, Child, StartError, free_port, wait_until_listens

ROOT = Path(__file__).parents[2]
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
END_SECONDS = 90.0
"""What locust may take to start and to end beside the load and its grace."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Locust:
    """How many users, how fast they come, in how many processes; `port` of the web page, 0 for none.

    `listen` is where workers of other machines come to, empty for none; `remote` is how many are waited for.
    """

    users: int
    spawn_rate: float = 10.0
    workers: int = 0
    port: int = 0
    listen: str = ""
    listen_port: int = 5557
    remote: int = 0


@dataclass(slots=True)
class Inflicted:
    """The faults as they happened: seconds of the run, what was done, until when, and what went wrong with it."""

    log: list[dict[str, Any]] = field(default_factory=list)


def run_plan(
    plan: LoadPlan, locust: Locust, faults: Sequence[Fault], inflict: Callable[[Fault], None], say: Say
) -> tuple[Tally, Inflicted]:
    """Run it to its end. Raises StartError where locust fails, with the end of its log."""
    argv = locust_argv()
    with TemporaryDirectory(prefix="fleetgate-locust-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        planned, result, started = folder / "plan.json", folder / "result.json", folder / "started"
        planned.write_text(plan.to_json())
        planned.chmod(0o600)
        environment = {
            "FLEETGATE_LOAD_PLAN": str(planned),
            "FLEETGATE_LOAD_RESULT": str(result),
            "FLEETGATE_LOAD_STARTED": str(started),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        }
        command = [*argv, "-f", str(LOCUSTFILE), "--host", plan.url, "--stop-timeout", f"{plan.grace:g}s"]
        port = locust.listen_port if locust.listen else free_port()
        main = stack.enter_context(
            Child([*command, *_main_flags(plan, locust, port)], folder / "locust.log", environment)
        )
        if locust.workers:
            wait_until_listens(main, port, END_SECONDS)
        for number in range(locust.workers):
            flags = ["--worker", "--master-host", HOST, "--master-port", str(port)]
            stack.enter_context(Child([*command, *flags], folder / f"worker-{number}.log", environment))
        done = Inflicted()
        thread = threading.Thread(target=_play, args=(faults, inflict, done, main, started, say), daemon=True)
        thread.start()
        if locust.port:
            wait_for_page(main, plan.grace + END_SECONDS)
        else:
            _wait(main, plan.seconds + plan.grace + END_SECONDS)
        thread.join()
        if not result.exists():
            raise StartError(f"locust left no result:\n{main.log_tail(30)}")
        return Tally.from_json(json.loads(result.read_text())), done


def worker_argv(master: str, port: int) -> list[str]:
    """A generator on another machine than its master."""
    return [*locust_argv(), "-f", str(LOCUSTFILE), "--worker", "--master-host", master, "--master-port", str(port)]


def _main_flags(plan: LoadPlan, locust: Locust, port: int) -> list[str]:
    flags = ["--users", str(locust.users), "--spawn-rate", f"{locust.spawn_rate:g}"]
    if locust.port:
        flags += ["--web-port", str(locust.port), "--web-host", HOST, "--run-time", f"{plan.seconds:g}s"]
    else:
        flags += ["--headless", "--only-summary", "--run-time", f"{plan.seconds:g}s"]
    count = locust.workers + locust.remote
    if count:
        flags += ["--master", "--master-bind-port", str(port), "--expect-workers", str(count)]
        flags += ["--master-bind-host", locust.listen or HOST]
    return [*flags, "--exit-code-on-error", "0"]


def _play(
    faults: Sequence[Fault], inflict: Callable[[Fault], None], done: Inflicted, main: Child, started: Path, say: Say
) -> None:
    """Each fault at its second from the load's start, in a thread of its own: some last while others begin."""
    while not main.ended and not started.exists():
        time.sleep(0.05)
    began = time.monotonic()
    running = []
    for fault in faults:
        while not main.ended and time.monotonic() - began < fault.at:
            time.sleep(0.05)
        if main.ended:
            break
        thread = threading.Thread(target=_inflict, args=(fault, inflict, done, began, say))
        thread.start()
        running.append(thread)
    for thread in running:
        thread.join()


def _inflict(fault: Fault, inflict: Callable[[Fault], None], done: Inflicted, began: float, say: Say) -> None:
    at = time.monotonic() - began
    say(f"{at:.0f} s: {fault}")
    trouble = ""
    try:
        inflict(fault)
    except (OSError, StartError, subprocess.SubprocessError) as error:  # told with the result; the load goes on
        trouble = str(error) or type(error).__name__
        say(f"{fault}: {trouble}")
    done.log.append({"fault": str(fault), "at": at, "until": time.monotonic() - began, "trouble": trouble})


def wait_for_page(main: Child, seconds: float) -> None:
    """Until locust's page is ended: Ctrl-C here is handed to locust, which then has `seconds` to leave its result."""
    try:
        while not main.ended:
            time.sleep(0.1)
    except SystemExit:  # by `end_on_signals`; a second one ends this, too
        main.interrupt()
        _wait(main, seconds)


def _wait(main: Child, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not main.ended:
        if time.monotonic() > end:
            raise StartError(f"locust does not end:\n{main.log_tail(30)}")
        time.sleep(0.1)
