"""The processes of a demo: started as an operator would start them, and all ended with it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from gateway.server.process import ListenError, listen

STOP_SECONDS = 20.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]
Process = subprocess.Popen[bytes]
Output = int | None
"""Where a process writes: DEVNULL, PIPE, or None for the demo's own terminal."""


class DemoError(Exception):
    """The demo cannot go on; says why and what to do."""


def command(name: str) -> str:
    """The console script beside this interpreter, else the one on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"The command {name} is not installed beside this one: install fleetgate again.")
    return found


def typed(name: str) -> str:
    """How the command is typed in a terminal that stands where this one does."""
    path = Path(command(name))
    on_path = shutil.which(name)
    if on_path is not None and Path(on_path).samefile(path):
        return name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def start(words: list[str], output: Output) -> Process:
    """In a process group of its own, so that Ctrl-C reaches it through us, in order; whoever starts it stops it. A pipe
    has both of its outputs."""
    errors = subprocess.STDOUT if output == subprocess.PIPE else output
    return subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)


def stop(processes: Iterable[Process], say: Say) -> None:
    """End them, and what they started: all are told first, then waited for."""
    running = [each for each in processes if each.poll() is None]
    try:
        for each in running:
            each.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for each in running:
            each.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        say(f"[demo] not everything stops within {STOP_SECONDS:.0f} s: sending SIGKILL.")
    finally:
        for each in running:
            with contextlib.suppress(ProcessLookupError):  # all of its group has ended
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()


def interrupt_once() -> None:
    """Have Ctrl-C, SIGTERM and the terminal's end raise KeyboardInterrupt, and only the first of them: what is started
    is stopped then, within `STOP_SECONDS`."""

    def interrupt(*_: object) -> None:
        for number in _ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDINGS:
        signal.signal(number, interrupt)


def require_port(port: int) -> None:
    """DemoError where somebody listens there."""
    try:
        listen("127.0.0.1", port).close()
    except ListenError as error:
        raise DemoError(
            f"{error}; choose others with --port and --admin-port (make demo PORT=8081 ADMIN_PORT=9092)"
        ) from None


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with listen("127.0.0.1", 0) as sock:
        return int(sock.getsockname()[1])


def wait_until_up(url: str, started: Process, name: str, seconds: float, last_lines: Callable[[], str]) -> None:
    """Wait until `url` answers 200; DemoError where the process ends first or the time is over."""

    def is_up() -> bool:
        if started.poll() is not None:
            raise DemoError(f"{name} ended with status {started.returncode} before it was ready.{last_lines()}")
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(0.25),
        retry=retry_if_exception_type(httpx.TransportError) | retry_if_result(lambda up: not up),
    )
    try:
        retrying(is_up)
    except RetryError:
        raise DemoError(f"{name} was not ready within {seconds:.0f} s.{last_lines()}") from None
