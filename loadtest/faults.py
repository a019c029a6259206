"""What clients lose when a node goes wrong: two nodes, one of them bad, behind the gateway and behind its rivals.

    python -m loadtest.faults [--only fleetgate vllm-router smg] [--json FILE]

The nodes are fakes in processes of their own, broken through their control port. Everybody runs with its defaults but
for two settings of the gateway: a node or a stream from which nothing comes is given up after `SILENCE` seconds, for a
load test should not wait for the 30 and 20 of production. Clients give up after `PATIENCE` seconds. A request is lost
where its client got an error, half an answer, or none. It is wrong where the answer looks whole and says something
else than a third node, which is asked directly.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest import proxies
from loadtest.processes import HOST, Child, StartError, end_on_signals, free_port, wait_until_answers
from loadtest.stage import START_SECONDS, FakeNode, Got, Stage, tell

SILENCE = 3.0
READY = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
LISTED = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
Scene = Callable[[Stage], Awaitable[str]]


def broken(count: int, stream: bool, **fault: Any) -> Scene:
    """`count` requests at once while the bad node has `fault`."""

    async def play(stage: Stage) -> str:
        stage.bad.set_fault(**fault)
        return tell(await stage.asking(count, stream))

    return play


def harmed(count: int, harm: Callable[[FakeNode], None]) -> Scene:
    """`count` streams that are under way, on both nodes, when the bad one is harmed."""

    async def play(stage: Stage) -> str:
        asking = stage.asking(count, True, "[[answer=300]]")
        await asyncio.sleep(1.5)
        await asyncio.to_thread(harm, stage.bad)
        return tell(await asking)

    return play


async def wedged(stage: Stage) -> str:
    """Requests that come while one node stands still with streams under way; those that it had are not counted."""
    before = [asyncio.create_task(stage.ask(f"[[answer=2000]] {number}", True)) for number in range(4)]
    await asyncio.sleep(1.0)
    stage.bad.set_fault(kind="wedge")
    said = tell(await stage.asking(8, True))
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
    answered: list[Got] = []
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
    return tell(answered)


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
    ("resets within an event, 20 streams", broken(20, True, kind="reset", after=5, part=0.5)),
    ("runs out of memory after 5 events, 20 streams", broken(20, True, kind="error_event", after=5)),
    ("stalls after 5 events, 8 streams", broken(8, True, kind="stall", after=5)),
    ("is killed with streams under way, 20 streams", harmed(20, FakeNode.kill)),
    ("stands still with streams under way, 8 streams", harmed(8, lambda node: node.set_fault(kind="wedge"))),
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
            {"FLEETGATE_TIMEOUTS__NODE_HANG": f"{SILENCE:g}", "FLEETGATE_TIMEOUTS__STALL": f"{SILENCE:g}"},
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
        bad, good, reference = (FakeNode(folder, *FLAGS) for _ in range(3))
        for node in (bad, good, reference):
            stack.callback(node.stop)
        port, admin = free_port(), free_port()
        argv, environment, question = command(name, [bad.url, good.url], port, admin)
        child = stack.enter_context(Child(argv, folder / "proxy.log", environment))
        wait_until_answers(child, port, question, START_SECONDS)
        stage = Stage(
            f"http://{HOST}:{port}", f"http://{HOST}:{admin}" if name == "fleetgate" else "", bad, good, reference
        )
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
    parser.add_argument("--scenes", default="", help="only those whose title has this in it")
    given = parser.parse_args()
    end_on_signals()
    console = Console()
    table = Table("fault", *given.only)
    found: dict[str, dict[str, str]] = {}
    for title, scene in [scene for scene in SCENES if given.scenes in scene[0]]:
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
