"""What clients lose when a node goes wrong: two nodes, one of them bad, behind the gateway and behind its rivals.

    python -m loadtest.faults [--only fleetgate vllm-router smg] [--json FILE]

The nodes are fakes in processes of their own, broken through their control port. Everybody runs with its defaults but
for one setting of the gateway: a node from which nothing comes is given up after `SILENCE` seconds, for a load test
should not wait for the 30 of production. Clients give up after `PATIENCE` seconds. A request is lost where its client
got an error, half an answer, or none.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from loadtest import proxies
from loadtest.answers import MODEL
from loadtest.processes import HOST, Child, StartError, end_on_signals, free_port, wait_until_answers

SILENCE = 3.0
PATIENCE = 20.0
START_SECONDS = 60.0
CHAT = "/v1/chat/completions"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
READY = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
LISTED = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
WORKER = Path(proxies.FLEETGATE.program).with_name("fleetgate-worker")


class FakeNode:
    """A node in a process, at a port that it keeps over restarts."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._flags = flags
        self.control = ""
        self.start()

    def start(self) -> None:
        log = self._folder / f"node-{self.port}.log"
        self.child = Child([str(WORKER), "fake", "--port", str(self.port), *self._flags], log)
        wait_until_answers(self.child, self.port, HEALTH, START_SECONDS)
        self.control = json.loads(log.read_text().splitlines()[0])["control"]

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self.child.stop()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def set_fault(self, **fault: Any) -> None:
        """Exactly this fault from now on; none at all heals the node."""
        body = json.dumps({"faults": [fault] if fault else []}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.control}/fake/control", body), timeout=5).close()

    def count(self, name: str) -> int:
        with urllib.request.urlopen(f"{self.control}/fake/stats", timeout=5) as answer:
            found: int = json.load(answer)[name]
        return found


@dataclass(frozen=True, slots=True)
class Stage:
    """One proxy in front of a bad and a good node; `admin` is the gateway's, empty for rivals."""

    url: str
    admin: str
    bad: FakeNode
    good: FakeNode

    async def ask(self, text: str, stream: bool) -> bool:
        """Whether the client got a whole answer."""
        body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": text}]}
        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=None) as client:
                got = await client.post(self.url + CHAT, json=body)
        except (httpx.HTTPError, TimeoutError):
            return False
        whole = not stream or (got.content.rstrip().endswith(b"data: [DONE]") and b'"error"' not in got.content)
        return got.status_code == 200 and whole

    async def lost(self, count: int, stream: bool) -> str:
        answered = await asyncio.gather(*(self.ask(f"request {number}", stream) for number in range(count)))
        return f"{answered.count(False)} of {count} lost"


Scene = Callable[[Stage], Awaitable[str]]


def broken(count: int, stream: bool, **fault: Any) -> Scene:
    """`count` requests at once while the bad node has `fault`."""

    async def play(stage: Stage) -> str:
        stage.bad.set_fault(**fault)
        return await stage.lost(count, stream)

    return play


async def wedged(stage: Stage) -> str:
    """Requests that come while one node stands still with streams under way; those that it had are not counted."""
    before = [asyncio.create_task(stage.ask(f"[[answer=2000]] {number}", True)) for number in range(4)]
    await asyncio.sleep(1.0)
    stage.bad.set_fault(kind="wedge")
    said = await stage.lost(8, True)
    for task in before:
        task.cancel()
    await asyncio.gather(*before, return_exceptions=True)
    return said


async def client_leaves(stage: Stage) -> str:
    """How many of ten plain calls the nodes stop working on within 1.5 s after their clients left."""
    asking = [asyncio.create_task(stage.ask(f"[[answer=3000]] {number}", False)) for number in range(10)]
    await asyncio.sleep(1.0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(1.5)
    left = stage.bad.count("running") + stage.good.count("running")
    return f"{10 - left} of 10 told"


async def rolling_restart(stage: Stage) -> str:
    """Both nodes are restarted under load: drained first where the proxy can do that."""
    answered: list[bool] = []
    stopped = False

    async def client(number: int) -> None:
        while not stopped:
            answered.append(await stage.ask(f"client {number}, {len(answered)}", len(answered) % 2 == 0))

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    await asyncio.sleep(1.0)
    for node in (stage.bad, stage.good):
        if stage.admin:
            await _fleetgate("drain", node.url, "--admin", stage.admin)
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)
        if stage.admin:
            await _fleetgate("undrain", node.url, "--admin", stage.admin)
        await asyncio.sleep(3.0)
    stopped = True
    await asyncio.gather(*clients)
    return f"{answered.count(False)} of {len(answered)} lost"


async def _fleetgate(*arguments: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [proxies.FLEETGATE.program, *arguments], capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise StartError(done.stdout + done.stderr)


SCENES: tuple[tuple[str, Scene], ...] = (
    ("refuses connections, 40 plain", broken(40, False, kind="refuse")),
    ("answers 500, 40 plain", broken(40, False, kind="status", status=500)),
    ("answers 503, 40 plain", broken(40, False, kind="status", status=503)),
    ("resets before the answer, 40 plain", broken(40, False, kind="reset", after=-1)),
    ("zombie: probes green, completions 500, 40 streams", broken(40, True, kind="zombie")),
    ("takes requests and stays silent, 8 streams", broken(8, True, kind="hang")),
    ("takes requests and stays silent, 8 plain", broken(8, False, kind="hang")),
    ("stands still in mid-stream, 8 new streams", wedged),
    ("a plain answer breaks off, 20 plain", broken(20, False, kind="die", after=3)),
    ("dies after 5 events, 20 streams", broken(20, True, kind="die", after=5)),
    ("stalls after 5 events, 8 streams", broken(8, True, kind="stall", after=5)),
    ("clients leave plain calls, 10", client_leaves),
    ("both nodes restarted under load", rolling_restart),
)
FLAGS = ("--rate", "100", "--thinking-tokens", "8", "--answer-tokens", "12")


def command(name: str, nodes: Sequence[str], port: int, admin: int) -> tuple[list[str], dict[str, str], bytes]:
    """How `name` is started in front of `nodes`: argv, environment, and what it answers once it is ready."""
    if name == "fleetgate":
        argv = [proxies.FLEETGATE.program, "serve", "--port", str(port), "--admin-port", str(admin)]
        return (
            [*argv, *(part for node in nodes for part in ("--node", node))],
            {"FLEETGATE_TIMEOUTS__NODE_HANG": f"{SILENCE:g}"},
            READY,
        )
    proxy = next(rival for rival in proxies.RIVALS if rival.name == name)
    start = [proxy.executable, *(["launch"] if name == "smg" else [])]
    flags = ["--host", HOST, "--port", str(port), "--policy", "round_robin", "--prometheus-port", str(free_port())]
    return [*start, *flags, "--worker-urls", *nodes], dict(proxy.environment), LISTED


async def play(name: str, scene: Scene) -> str:
    """One scene on fresh nodes and a fresh proxy."""
    with TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        bad, good = (FakeNode(folder, *FLAGS) for _ in range(2))
        for node in (bad, good):
            stack.callback(node.stop)
        port, admin = free_port(), free_port()
        argv, environment, question = command(name, [bad.url, good.url], port, admin)
        child = stack.enter_context(Child(argv, folder / "proxy.log", environment))
        wait_until_answers(child, port, question, START_SECONDS)
        stage = Stage(f"http://{HOST}:{port}", f"http://{HOST}:{admin}" if name == "fleetgate" else "", bad, good)
        await _both_serve(stage)
        return await scene(stage)


async def _both_serve(stage: Stage) -> None:
    """Wait until both nodes get requests."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        await asyncio.gather(*(stage.ask(f"warm {number}", False) for number in range(4)))
        if all(node.count("finished") for node in (stage.bad, stage.good)):
            return
    raise StartError("one of the nodes gets no requests")


def main() -> None:
    """Play every scene with everybody that is installed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["fleetgate", "vllm-router", "smg"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    end_on_signals()
    console = Console()
    table = Table("fault", *given.only)
    found: dict[str, dict[str, str]] = {}
    for title, scene in SCENES:
        row = found.setdefault(title, {})
        for name in given.only:
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    row[name] = asyncio.run(play(name, scene))
                except (StartError, OSError) as error:
                    row[name] = f"not run: {str(error).splitlines()[0]}"
            console.print(f"{title}: {name}: {row[name]}")
        table.add_row(title, *row.values())
    console.print(table)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
