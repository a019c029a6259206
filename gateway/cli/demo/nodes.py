"""The demo's nodes: one real vLLM, or two without a model. One that is killed is started again."""

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal

from gateway.cli.demo.processes import DemoError, Process, Say, command, free_port, start, stop, wait_until_up

NodeKind = Literal["vllm", "fake"]

MODEL = "nemotron-3-ultra"
SETUP_SECONDS = 3600.0
READY_SECONDS = 60.0
"""Between its first answer on /health and its own word, at most."""

PAUSE_SECONDS = 10.0
"""Before a node that has gone is started again: long enough to see that it is missing."""

MOST_RESTARTS = 5


@dataclass(slots=True)
class DemoNode:
    """A node and its process. `gone_at`: when it was found to have ended (monotonic), None while it runs."""

    port: int
    process: Process
    says_ready: threading.Event
    """Set once it has said so itself."""
    restarts: int = 0
    gone_at: float | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        """As logs and metrics call it."""
        return f"127.0.0.1:{self.port}"


def usual_count(kind: NodeKind) -> int:
    """Two where a node costs nothing, so that one can be killed."""
    return 2 if kind == "fake" else 1


def missing(kind: NodeKind) -> list[str]:
    """What has to be installed first, each with its size and how long that takes; empty where all is there."""
    if kind == "fake":
        return []
    asked = [command("fleetgate-worker"), "tiny-model", "--dry-run"]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DemoError("vLLM cannot run on this machine (see above); `--node fake` (make demo NODE=fake) can.")
    return done.stdout.splitlines()


@contextmanager
def running_nodes(kind: NodeKind, count: int, say: Say) -> Iterator[list[DemoNode]]:
    """Ready nodes. The first is up before the others start: it may install what all of them need."""
    nodes: list[DemoNode] = []
    try:
        for number in range(count):
            port = free_port()
            nodes.append(_started(kind, port, say))
            if number == 0:
                _wait(nodes[0])
        for node in nodes[1:]:
            _wait(node)
        yield nodes
    finally:
        stop([node.process for node in nodes], say)


def look_after(nodes: Sequence[DemoNode], kind: NodeKind, say: Say) -> None:
    """Tell which node has ended since the last look, and start it again after a while."""
    now = time.monotonic()
    for node in nodes:
        if node.process.poll() is None:
            continue
        if node.gone_at is None:
            node.gone_at = now
            if node.restarts >= MOST_RESTARTS:
                raise DemoError(f"node {node.name} ended for the {MOST_RESTARTS + 1}th time.")
            say(f"[demo] node {node.name} is gone; it is started again in {PAUSE_SECONDS:.0f} s.")
        elif now - node.gone_at >= PAUSE_SECONDS:
            node.process.wait()
            node.process = _started(kind, node.port, say).process
            node.restarts, node.gone_at = node.restarts + 1, None
            say(f"[demo] node {node.name} starts again, as process {node.process.pid}.")


def _started(kind: NodeKind, port: int, say: Say) -> DemoNode:
    """A fake node says nothing; a vLLM what it installs, and how far it has come."""
    ready = threading.Event()
    if kind == "fake":
        ready.set()
        return DemoNode(port, start(_command(kind, port), subprocess.DEVNULL), ready)
    node = DemoNode(port, start(_command(kind, port), subprocess.PIPE), ready)
    assert node.process.stdout is not None
    threading.Thread(target=pass_on, args=(node.process.stdout, ready, say), daemon=True).start()
    return node


def pass_on(output: IO[bytes], ready: threading.Event, say: Say) -> None:
    """Say what a node says, line by line; sets `ready` once it says that it is."""
    for line in output:
        words = line.decode(errors="replace").rstrip().rpartition("\r")[2]  # the end of what overwrites itself
        say(f"[vllm] {words}")
        if words.startswith("ready:"):
            ready.set()


def _wait(node: DemoNode) -> None:
    """Until it answers and has said that it is ready: what it says is not to come between what is said next."""
    wait_until_up(f"{node.url}/health", node.process, f"node {node.name}", SETUP_SECONDS, str)
    node.says_ready.wait(READY_SECONDS)


def _command(kind: NodeKind, port: int) -> list[str]:
    if kind == "fake":
        pace = ["--rate", "80", "--thinking-tokens", "60", "--answer-tokens", "160"]
        return [command("fleetgate-worker"), "fake", "--port", str(port), "--served-model-name", MODEL, *pace]
    return [command("fleetgate-worker"), "cpu-node", "--port", str(port), "--served-model-name", MODEL]
