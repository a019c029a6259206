"""Runs a node in the foreground: says what is happening until it answers, then waits, then ends all of it."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx

from workers.cache import Say, cache_home
from workers.cpu_node import CpuNode, vllm_command, vllm_environment
from workers.errors import NodeFailed
from workers.node_process import NodeProcess

START_TIMEOUT_SECONDS = 600.0
HEARTBEAT_SECONDS = 10.0
GRACE_SECONDS = 15.0  # for open requests
STARTING_GRACE_SECONDS = 2.0  # nobody is served yet, and a starting vLLM does not listen to SIGTERM
LAST_LINES = 30

# What vLLM writes to its log, and what that means to somebody who waits. The last one found is where it stands.
_STAGES = (
    (re.compile(r"Initializing a V1 LLM engine|EngineCore"), "starting the engine"),
    (re.compile(r"Starting to load model|Loading safetensors"), "loading the model"),
    (re.compile(r"Loading weights took"), "preparing the cache"),
    (re.compile(r"KV cache size|KV cache layout"), "warming up"),
    (re.compile(r"Starting vLLM server|Route: /v1"), "opening the port"),
)


@dataclass(slots=True)
class Ending:
    """What the person asked for by signals: how often, and the first one's number."""

    signals: list[int] = field(default_factory=list)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler: only takes note, the loops below look."""
        self.signals.append(number)


def run_node(node: CpuNode, python: Path, model: Path, log: Path, say: Say) -> int:
    """Start the node, tell when it answers, and stay until it ends or SIGINT or SIGTERM comes.

    Returns vLLM's exit code; 128 + n where signal n ended it, with the n that came to us where we had to kill it.
    Nothing of it is left over. Raises NodeFailed where it does not come up, with the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"starting vLLM on {node.url} (usually 40 to 60 seconds); its log: {log}")
    environ = vllm_environment(node, os.environ)
    grace = STARTING_GRACE_SECONDS
    with _noted_signals() as ending:
        # Not the current directory: python -m puts it on the path, and a repository's modules would shadow vLLM's.
        process = NodeProcess(vllm_command(node, python, model), environ, cache_home(os.environ), log)
        try:
            if _wait_until_ready(node, process, ending, log, say):
                grace = GRACE_SECONDS
                say(f"ready: {node.url} serves {node.served_model_name}")
                while process.wait(0.5) is None and not ending.signals:
                    pass
            if ending.signals:
                say("ending vLLM")
        finally:
            # Somebody who signals twice does not want to wait.
            code = process.end(0.0 if len(ending.signals) > 1 else grace)
    return _shell_code(code, ending)


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    """The end of a log, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line[:300]}" for line in lines[-count:])


@contextmanager
def _noted_signals() -> Iterator[Ending]:
    ending = Ending()
    before = {number: signal.signal(number, ending.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shell_code(code: int, ending: Ending) -> int:
    """As a shell counts: 128 + n for signal n."""
    if code == -signal.SIGKILL and ending.signals:
        return 128 + ending.signals[0]
    return code if code >= 0 else 128 - code


def _wait_until_ready(node: CpuNode, process: NodeProcess, ending: Ending, log: Path, say: Say) -> bool:
    """True once /health answers 200, False where a signal came first. Raises NodeFailed."""
    started = told = time.monotonic()
    with httpx.Client(base_url=node.url, timeout=2.0, trust_env=False) as client:
        while not ending.signals:
            now = time.monotonic()
            if (code := process.wait(0.25)) is not None:
                raise NodeFailed(
                    f"vLLM ended with exit code {code} before it was ready. The end of {log}:\n{last_lines(log)}"
                )
            if _is_healthy(client):
                return True
            if now - started > START_TIMEOUT_SECONDS:
                raise NodeFailed(
                    f"vLLM did not answer within {now - started:.0f} s. The end of {log}:\n{last_lines(log)}"
                )
            if now - told > HEARTBEAT_SECONDS:
                told = now
                say(f"  ... {now - started:.0f} s: {stage(log.read_text(encoding='utf-8', errors='replace'))}")
    return False


def stage(log_text: str) -> str:
    """What vLLM is doing, by what it has logged so far."""
    return next((name for pattern, name in reversed(_STAGES) if pattern.search(log_text)), "loading its libraries")


def _is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
