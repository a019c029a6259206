"""Runs the project's own commands as a person would, and ends them with the tests, however those end."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from workers.parent_death import die_with_parent

BIN = Path(sys.executable).parent

Found = TypeVar("Found")


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` (its first word is a console script) with its output in `log`; at the end SIGINT, then SIGKILL."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(find: Callable[[], Found | None], process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> Found:
    """What `find` returns once it is not None. Fails with the process's output when it ends or time runs out."""
    deadline = time.monotonic() + seconds
    while (found := find()) is None:
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            why = "is not ready in time" if ended is None else f"ended with {ended}"
            raise AssertionError(f"{process.args!r} {why}:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
    return found
