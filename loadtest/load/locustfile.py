"""Locust's side of a load: users that send on time, whatever the answers take, and results of all machines in one.

A user of locust is one source of arrivals. Its task never waits for an answer: it sleeps until the next moment of its
own clock (`arrivals.py`) and spawns a greenlet for the session that comes then. So the number of users is a number of
arrivals a second, in the web page as on the command line, and a slow system has more requests under way, not fewer.

The plan comes in `FLEETGATE_LOAD_PLAN`, a file of the machine where locust or its master runs; workers are handed it
by the master.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import User, events
from locust.runners import MasterRunner, WorkerRunner

from loadtest.load.ask import client_of
from loadtest.load.generator import Generator
from loadtest.load.plan import plan_from_json
from loadtest.load.tally import Tally

NOTICE_SECONDS = 0.5
"""How soon a source that waits for its next arrival sees that the run is over."""
END, LAST = "fleetgate_end", "fleetgate_last"
LAST_SECONDS = 15.0


def send(user: Any) -> None:
    """The task of one user: all of its arrivals, until the run is over."""
    generator: Generator = user.environment.fleetgate
    clients: dict[str, Any] = {}
    for moment, tenant, scenario, session in generator.sources():
        while not generator.ending and (wait := moment - generator.now()) > 0:
            gevent.sleep(min(wait, NOTICE_SECONDS))
        if generator.ending:
            return
        if tenant not in clients:
            clients[tenant] = client_of(generator.plan.url, generator.plan.keys[tenant], generator.plan.timeout)
        generator.start(moment, tenant, scenario, session, clients[tenant])
    while not generator.ending:
        gevent.sleep(NOTICE_SECONDS)


class Source(User):  # type: ignore[misc]  # locust's class is Any to those who check without it
    """One user of locust: a source of arrivals."""

    tasks = (send,)


def _add_options(parser: Any) -> None:
    """A custom option is what the master hands to its workers."""
    told = os.environ.get("FLEETGATE_LOAD_PLAN", "")
    plan = Path(told).read_text() if told else ""
    parser.add_argument("--fleetgate-plan", default=plan, include_in_web_ui=False, is_secret=True)


def _begin(environment: Any, **_: Any) -> None:
    environment.fleetgate_total, environment.fleetgate_lasts = Tally(), 0
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line a request costs as much as some of its events
    started = os.environ.get("FLEETGATE_LOAD_STARTED")
    if started and not isinstance(environment.runner, WorkerRunner):
        Path(started).touch()
    if not isinstance(environment.runner, MasterRunner):
        runner, options = environment.runner, environment.parsed_options
        part, parts = (runner.worker_index, options.expect_workers) if isinstance(runner, WorkerRunner) else (0, 1)
        environment.fleetgate = Generator(environment, plan_from_json(options.fleetgate_plan), part, max(1, parts))


def _end(environment: Any, **_: Any) -> None:
    """Locust goes on when this returns: so what is under way has its grace."""
    generator = getattr(environment, "fleetgate", None)
    if generator is not None:
        generator.finish()
        if not isinstance(environment.runner, WorkerRunner):
            environment.fleetgate_total.merge(Tally.from_json(generator.take()))


def _end_worker(environment: Any, **_: Any) -> None:
    """A master that quits ends its own run before it tells its workers: this has them send all they have before."""
    generator = getattr(environment, "fleetgate", None)
    if generator is not None:
        generator.finish()
    environment.runner.send_message(LAST, generator.take() if generator is not None else Tally().to_json())


def _save(environment: Any, **_: Any) -> None:
    """The whole result, written where the plan says."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    if isinstance(runner, MasterRunner):
        workers = runner.worker_count
        runner.send_message(END)
        end = time.monotonic() + environment.parsed_options.stop_timeout + LAST_SECONDS
        while environment.fleetgate_lasts < workers and time.monotonic() < end:
            gevent.sleep(0.1)
    target = os.environ.get("FLEETGATE_LOAD_RESULT")
    if target:
        Path(target).write_text(json.dumps(environment.fleetgate_total.to_json()))


def _report(data: dict[str, Any], **_: Any) -> None:
    generator = _this_generator()
    if generator is not None:
        data["fleetgate"] = generator.take()


def _add(data: dict[str, Any], **_: Any) -> None:
    environment = _ENVIRONMENTS[0]
    if "fleetgate" in data:
        environment.fleetgate_total.merge(Tally.from_json(data["fleetgate"]))


_ENVIRONMENTS: list[Any] = []
"""The one of this process: locust tells it to some of its events and not to those about reports."""


def _remember(environment: Any, **_: Any) -> None:
    _ENVIRONMENTS[:] = [environment]
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(LAST, _add_last)
    elif isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(END, _end_worker, concurrent=True)


def _add_last(environment: Any, msg: Any, **_: Any) -> None:
    environment.fleetgate_total.merge(Tally.from_json(msg.data))
    environment.fleetgate_lasts += 1


def _this_generator() -> Generator | None:
    return getattr(_ENVIRONMENTS[0], "fleetgate", None) if _ENVIRONMENTS else None


events.init_command_line_parser.add_listener(_add_options)
events.init.add_listener(_remember)
events.test_start.add_listener(_begin)
events.test_stopping.add_listener(_end)
events.test_stop.add_listener(_save)
events.report_to_master.add_listener(_report)
events.worker_report.add_listener(_add)
