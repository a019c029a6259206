"""One session of an agent, in a home and a folder of its own, and what is wrong with it."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.agents.agent import DONE, NOTES, Agent, Run
from tests.clients.agents.fleet import AgentFleet, Key
from tests.real.processes import BIN

SECONDS = 300.0
"""The longest that one start of an agent may take, on a busy machine."""
_MOST_BRIEF = 3
"""Requests for one answer: beside it a title, or a second try where the model ended within its thought."""
_SOON = 60.0
"""By when an agent has given up on a wrong key."""
_SIDE_REQUEST = 10_000
"""Bytes: a request for a title is far shorter than a turn, which has the tools."""
_AFTER_DEATH = "I have gone on."
_AGAIN = "Thank you. That is all."


@dataclass(slots=True)
class Session:
    """Where an agent runs and what it printed; `faults` says by part what was wrong; `extra`: words of its command."""

    agent: Agent
    fleet: AgentFleet
    key: Key
    home: Path
    work: Path
    output: str = ""
    extra: Sequence[str] = ()
    faults: dict[str, list[str]] = field(default_factory=dict)

    def blame(self, part: str, why: str) -> None:
        """Note a fault of a part."""
        self.faults.setdefault(part, []).append(why)


def new_session(agent: Agent, fleet: AgentFleet, key: Key, folder: Path) -> Session:
    """A home directory in which `fleetgate connect` has set the agent up, and a folder with a file to work on."""
    home, work = folder / "home", folder / "work"
    for made in (home, work):
        made.mkdir(parents=True)
    (work / "notes.txt").write_text(NOTES)
    session = Session(agent, fleet, key, home, work)
    words = [str(BIN / "fleetgate"), "connect", agent.connect, "--url", fleet.url, "--key", key.key, "--write", "--yes"]
    done = subprocess.run(words, env=_environment(session), capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        session.blame("connect", done.stderr or done.stdout)
    return session


def work_through(session: Session) -> None:
    """Have the agent copy the notes, then say something more in the same conversation where it can."""
    agent = session.agent
    before = len(session.fleet.requests(session.key))
    first = agent.prompt("Copy notes.txt to copy.txt.", agent.turns(session.work))
    _start(session, Run(session.work, first))
    copied = session.work / "copy.txt"
    if not copied.exists() or copied.read_text() != NOTES:
        session.blame("tools", "copy.txt is not what it was to be")
    if DONE not in session.output:
        session.blame("tools", "the last answer was not shown")
    if not agent.shows_thinking(session.output):
        session.blame("thinking", "no thinking was shown")
    most = agent.requests
    if agent.goes_on:
        _start(session, Run(session.work, agent.prompt("And now?", [_AGAIN]), again=True))
        if _AGAIN not in session.output:
            session.blame("session", "the conversation did not go on")
        most += agent.requests - len(agent.turns(session.work)) + 1
    judge(session, session.fleet.new_requests(session.key, before), most)


def outlive_a_node(session: Session) -> None:
    """Have the node of the next answer die in the middle: the agent is to notice nothing, and to ask no second time."""
    agent, fleet = session.agent, session.fleet
    before = len(fleet.requests(session.key))
    fleet.let_nodes_die()
    asked = agent.prompt("Go on. [[think=60]]", [_AFTER_DEATH])
    _start(session, Run(session.work, asked, again=agent.goes_on, extra=agent.to_stream))
    fleet.heal_nodes()
    if _AFTER_DEATH not in session.output:
        session.blame("node_dies", "the answer was not shown")
    requests = fleet.new_requests(session.key, before)
    if not any(request["attempts"] > 1 for request in requests):
        session.blame("node_dies", "no node died")
    if [request["status"] for request in requests if request["ending"] != "ok"]:
        session.blame("node_dies", "an answer was lost")
    if len(requests) > agent.requests - len(agent.turns(session.work)) + 1:
        session.blame("node_dies", f"the agent asked again: {len(requests)} requests")


def answer_briefly(session: Session) -> None:
    """Have the agent answer a question, without tools: for a real node, whose tiny model calls none."""
    agent = session.agent
    before = len(session.fleet.requests(session.key))
    session.extra = agent.brief(session.work)
    _start(session, Run(session.work, "What is the capital of France? Tell me about it.", extra=session.extra))
    if not agent.shows_thinking(session.output):
        session.blame("thinking", "no thinking was shown")
    judge(session, session.fleet.new_requests(session.key, before), _MOST_BRIEF)


def try_a_wrong_key(session: Session) -> None:
    """The agent has to end soon, and to say why. Its files have a wrong key from then on."""
    for path in session.home.rglob("*"):
        if path.is_file() and session.key.key in (text := path.read_text(errors="replace")):
            path.write_text(text.replace(session.key.key, "fg-this-key-is-nobodys"))
    began = time.monotonic()
    status = _run(session, Run(session.work, "Hello.", extra=session.extra), "wrong-key.log")
    if time.monotonic() - began > _SOON:
        session.blame("wrong_key", f"it took {time.monotonic() - began:.0f} s to give up")
    said = " ".join(session.output.split())
    if "API key is not valid" not in said and "401" not in said:
        session.blame("wrong_key", f"it ended with {status} and did not tell why")


def _start(session: Session, run: Run) -> None:
    status = _run(session, run, "again.log" if run.again else "first.log")
    if status != 0:
        session.blame("answer", f"ended with {status}: {session.output[-500:]}")


def _run(session: Session, run: Run, name: str) -> int:
    """Start the agent; its output is `session.output`, and in the file of that name."""
    agent, log = session.agent, session.work.parent / name
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                agent.command(agent.binary(), run),
                input=run.prompt.encode() if agent.stdin else None,
                stdin=None if agent.stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(session),
                cwd=run.work,
                timeout=SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
    session.output = log.read_text(errors="replace")
    return status


def _environment(session: Session) -> dict[str, str]:
    """Nothing of the caller's own accounts or proxies."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(session.home), **session.agent.environment}


def judge(session: Session, requests: list[dict[str, Any]], most: int) -> None:
    """No error, no retry, and one node for the whole conversation, by the gateway's log."""
    for request in requests:
        for why in _wrong(request):
            session.blame("retries", f"{request['request_id']}: {why}")
    if len(requests) > most:
        session.blame("retries", f"{len(requests)} requests, {most} were enough")
    if not requests:
        session.blame("retries", "no request was logged")
    if {request["dialect"] for request in requests} - {session.agent.dialect}:
        session.blame("retries", "another dialect was asked in")
    turns = [request for request in requests if request["request_bytes"] > _SIDE_REQUEST]
    if len({turn["node"] for turn in turns}) > 1:
        session.blame("session", "its turns went to several nodes")
    if any(
        turn["cached_tokens"] is not None and turn["cached_tokens"] < turn["input_tokens"] / 2 for turn in turns[1:]
    ):
        session.blame("session", "a turn did not find the tokens of the last one in the node's cache")


def _wrong(request: dict[str, Any]) -> Iterator[str]:
    if request["status"] != 200 or request["ending"] != "ok":
        yield f"status {request['status']}, {request['ending']}"
    if request["attempts"] != 1:
        yield f"{request['attempts']} attempts"
