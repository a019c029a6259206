"""Ten agents at once, session after session, for half an hour: no error, no retry, every conversation on one node.

python -m tests.clients.agents.soak --minutes 30 --sessions 10
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.agents.agent import Agent
from tests.clients.agents.fleet import AgentFleet, Key, agent_fleet
from tests.clients.agents.known import AGENTS
from tests.clients.agents.session import new_session, work_through
from tests.clients.matrix import table
from tests.clients.say import say

HEADER = ("agent", "at once", "sessions", "requests", "seconds, median", "seconds, most", "faults")
_RATE = 100
"""Tokens per second of each stream, as of a node of eight H200."""


@dataclass
class Tally:
    """What one agent's sessions came to."""

    at_once: int = 0
    requests: int = 0
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def row(self, agent: str) -> tuple[str, ...]:
        """The cells, in the order of HEADER."""
        median = f"{statistics.median(self.seconds):.1f}" if self.seconds else "-"
        most = f"{max(self.seconds):.1f}" if self.seconds else "-"
        counts = (str(self.at_once), str(len(self.seconds)), str(self.requests))
        return (agent, *counts, median, most, str(len(self.faults)))


def main() -> int:
    """Parse the command line, run the sessions, print what they came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.agents.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, default=10, help="at once")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for agent in AGENTS:
        agent.binary()
    folder = Path(tempfile.mkdtemp(prefix="fleetgate-soak-"))
    say(f"logs are in {folder}")
    tallies: dict[str, Tally] = defaultdict(Tally)
    end, lock = time.monotonic() + 60 * options.minutes, threading.Lock()
    with agent_fleet(folder, options.sessions, rate=_RATE) as fleet, ThreadPoolExecutor(options.sessions) as threads:
        works = [
            threads.submit(_repeat, AGENTS[number % len(AGENTS)], fleet, key, folder / str(number), end, tallies, lock)
            for number, key in enumerate(fleet.keys)
        ]
        for work in works:
            work.result()
    print(table(HEADER, [tallies[agent.name].row(agent.name) for agent in AGENTS if agent.name in tallies]))
    faults = [f"{name}: {fault}" for name, tally in tallies.items() for fault in tally.faults]
    print("".join(f"\n- {fault}" for fault in faults))
    return 1 if faults else 0


def _repeat(
    agent: Agent,
    fleet: AgentFleet,
    key: Key,
    folder: Path,
    end: float,
    tallies: dict[str, Tally],
    lock: threading.Lock,
) -> None:
    """One session after the other until `end`; the folders of those without a fault are removed."""
    with lock:
        tallies[agent.name].at_once += 1
    number = 0
    while time.monotonic() < end:
        number += 1
        place, began = folder / str(number), time.monotonic()
        before = len(fleet.requests(key))
        session = new_session(agent, fleet, key, place)
        if not session.faults:
            work_through(session)
        made = len(fleet.requests(key)) - before
        with lock:
            tally = tallies[agent.name]
            tally.seconds.append(time.monotonic() - began)
            tally.requests += made
            tally.faults += [f"{part}: {why} ({place})" for part, all_ in session.faults.items() for why in all_]
        if not session.faults:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
