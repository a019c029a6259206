"""A real vLLM that a test may kill, freeze and start again at the same address."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.processes import running, wait_for
from tests.real.progress import SET_UP_SECONDS, Progress
from workers.cpu_node import free_port


class KillableNode:
    """`up` and `kill` may follow each other any number of times; the port stays."""

    def __init__(self, directory: Path, config: pytest.Config, *arguments: str) -> None:
        """`arguments`: of vLLM, beside the usual ones."""
        self._arguments = ("--", *arguments)
        self.port = free_port("127.0.0.1")
        self._directory = directory
        self._config = config
        self._starts = 0
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._log = directory

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start it, unless it runs."""
        if self._process is not None:
            return
        self._starts += 1
        self._log = self._directory / f"cpu-node-{self._starts}.log"
        command = ["fleetgate-worker", "cpu-node", "--port", str(self.port), "--dtype", "float32"]
        command += ["--log", f"{self._log}.vllm", *self._arguments]
        self._process = self._running.enter_context(running(command, self._log))

    def up(self) -> bool:
        """Start it, unless it runs, and wait until it is ready. Returns whether it was not ready before."""
        if self._ready:
            return False
        self.begin()
        assert self._process is not None
        wait_for(Progress(self._log, self._config).url, self._process, self._log, SET_UP_SECONDS)
        self._ready = True
        return True

    def signal(self, number: signal.Signals) -> None:
        """To all processes of vLLM at once: its server and its engine are one group."""
        os.killpg(self._server(), number)

    def kill(self) -> None:
        """SIGKILL; returns when the process that started vLLM has seen it."""
        assert self._process is not None
        self.signal(signal.SIGKILL)
        self._process.wait(60)
        self.end()

    def end(self) -> None:
        self._running.close()
        self._process = None
        self._ready = False

    def _server(self) -> int:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (server,) = [int(child) for child in children if b"api_server" in Path(f"/proc/{child}/cmdline").read_bytes()]
        return server


@contextlib.contextmanager
def killable_node(directory: Path, config: pytest.Config, *arguments: str) -> Iterator[KillableNode]:
    """A node that is not started yet."""
    node = KillableNode(directory, config, *arguments)
    try:
        yield node
    finally:
        node.end()
