"""Starting and ending the processes of a load test, so that none outlives it.

Each child leads a session of its own: Ctrl-C at the terminal reaches only this process, which then ends the
child's whole group. Should this process itself be killed, the kernel ends the child (PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
STOP_SECONDS = 10.0
LIBC = ctypes.CDLL(None)


class StartError(Exception):
    """A process ended, or did not answer in time: the message holds the end of its log."""


class Child:
    """A running process and its log; a context manager that ends it with all its descendants."""

    def __init__(self, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start `argv` with `environment` over this process's own. Raises OSError where it cannot start."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(environment or {}),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def __enter__(self) -> "Child":
        """The child is already running."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """End the child whatever happened."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process id, also the id of its group and session."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def interrupt(self) -> None:
        """What Ctrl-C does in its own terminal; its descendants are left to it."""
        os.kill(self.pid, signal.SIGINT)

    def stop(self) -> None:
        """Ask the group to end, and after STOP_SECONDS kill it."""
        _signal_group(self.pid, signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal_group(self.pid, signal.SIGKILL)
            self._process.wait()


def end_on_signals() -> None:
    """Make Ctrl-C and SIGTERM unwind this process in order, so that every child is ended on the way out."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda found, _: sys.exit(128 + found))


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_answers(child: Child, port: int, question: bytes, seconds: float) -> None:
    """Send `question` (an HTTP request) until it is answered with 200. Raises StartError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.ended:
            raise StartError(f"ended at once:\n{child.log_tail()}")
        if _status(port, question) == 200:
            return
        time.sleep(0.1)
    raise StartError(f"no answer within {seconds:.0f} s:\n{child.log_tail()}")


def wait_until_listens(child: Child, port: int, seconds: float) -> None:
    """Until `port` takes a connection. Raises StartError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not child.ended:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=5.0):
            return
        time.sleep(0.1)
    raise StartError(f"it takes no connection:\n{child.log_tail()}")


def _status(port: int, question: bytes) -> int:
    try:
        with socket.create_connection((HOST, port), timeout=5.0) as connection:
            connection.sendall(question)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status
    except (OSError, http.client.HTTPException):
        return 0


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class StartedProcesses(ABC):
    """Processes that are started together; a context manager that ends what was entered into `_stack`."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start all, and wait until they answer. Raises StartError."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        self._stack.close()

    @abstractmethod
    def _start(self) -> None:
        """Start all, entering each into `_stack`."""
