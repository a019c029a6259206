"""The second half of `make test-clients`: agents that people use, each through a session with calls of tools.

The nodes are fake ones, which lead each agent through the same work: read a file, write another, compare, answer. Each
agent runs without a person, set up by `fleetgate connect`, in a home of its own. With `--node vllm` a real vLLM with a
tiny model answers a question, without tools. Exit 1 where one failed.
"""

import argparse
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.agents.agent import Agent
from tests.clients.agents.fleet import AgentFleet, Key, agent_fleet
from tests.clients.agents.known import AGENTS
from tests.clients.agents.session import (
    Session,
    answer_briefly,
    new_session,
    outlive_a_node,
    try_a_wrong_key,
    work_through,
)
from tests.clients.environments import HERE, EnvironmentMissing
from tests.clients.matrix import table
from tests.clients.say import say

HEADER = (
    "agent",
    "version",
    "asks in",
    "tool calls",
    "thinking",
    "no retries",
    "session",
    "a node dies",
    "wrong key",
    "result",
)
Step = Callable[[Session], None]
STEPS: dict[str, Sequence[Step]] = {
    "fake": (work_through, outlive_a_node, try_a_wrong_key),
    "vllm": (answer_briefly, try_a_wrong_key),
}
UNTRIED: dict[str, Collection[str]] = {"fake": (), "vllm": ("tools", "session", "node_dies")}
PARTS = ("tools", "thinking", "retries", "session", "node_dies", "wrong_key")


@dataclass(frozen=True, slots=True)
class AgentOutcome:
    """What a session came to; `missing` says why there was none, `untried` has parts that it did not come to."""

    agent: Agent
    faults: dict[str, list[str]]
    missing: str = ""
    log: str = ""
    untried: Collection[str] = ()

    @property
    def result(self) -> str:
        """passed, failed, or not run."""
        return "not run" if self.missing else "failed" if self.faults else "passed"

    def row(self) -> tuple[str, ...]:
        """The cells, in the order of HEADER."""
        agent = self.agent
        if self.missing:
            return (agent.name, *["-"] * (len(HEADER) - 2), self.result)
        cells = {part: "-" if part in self.untried else "FAILED" if part in self.faults else "yes" for part in PARTS}
        if not agent.goes_on and cells["session"] == "yes":
            cells["session"] = "has none"
        thinking = agent.thinking if cells["thinking"] == "yes" else "FAILED"
        shown = (cells["tools"], thinking, *(cells[part] for part in PARTS[2:]))
        return (agent.name, version_of(agent), agent.dialect, *shown, self.result)

    def notes(self) -> list[str]:
        """What a cell has no room for."""
        if self.missing:
            return [f"{self.agent.name}: not run, {self.missing}"]
        return [f"{self.agent.name}: {part}: {why} ({self.log})" for part, all_ in self.faults.items() for why in all_]


def main() -> int:
    """Parse the command line, run the agents, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.agents.run", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only agents whose name contains TEXT")
    parser.add_argument("--node", choices=("fake", "vllm"), default="fake", help="what stands behind the gateway")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    agents = [agent for agent in AGENTS if options.only.lower() in f"{agent.name} {agent.connect}".lower()]
    folder = Path(tempfile.mkdtemp(prefix="fleetgate-agents-"))
    say(f"logs are in {folder}")
    missing = {agent.name: why for agent in agents if (why := _missing(agent))}
    with agent_fleet(folder, len(agents), options.node) as fleet:
        pairs = zip(agents, fleet.keys, strict=True)
        outcomes = [
            _outcome(agent, fleet, key, folder, missing.get(agent.name, ""), options.node) for agent, key in pairs
        ]
    print(table(HEADER, [outcome.row() for outcome in outcomes]))
    print("".join(f"\n- {note}" for outcome in outcomes for note in outcome.notes()))
    return 0 if agents and all(outcome.result != "failed" for outcome in outcomes) else 1


def version_of(agent: Agent) -> str:
    """The pinned version of an agent."""
    package = json.loads((HERE / "package-agents.json").read_text())["dependencies"]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (HERE / "requirements-aider.txt").read_text(), re.MULTILINE))
    return str({**package, **pins}[agent.package])


def _missing(agent: Agent) -> str:
    try:
        agent.binary()
    except EnvironmentMissing as missing:
        return str(missing)
    return ""


def _outcome(agent: Agent, fleet: AgentFleet, key: Key, folder: Path, missing: str, node: str) -> AgentOutcome:
    if missing:
        return AgentOutcome(agent, {}, missing)
    began, place = time.monotonic(), folder / agent.connect
    session = new_session(agent, fleet, key, place)
    for step in STEPS[node]:
        if not session.faults:
            step(session)
    outcome = AgentOutcome(agent, session.faults, log=str(place), untried=UNTRIED[node])
    say(f"{agent.name}: {outcome.result} in {time.monotonic() - began:.0f} s")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
