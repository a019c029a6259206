"""Starts a server with its children as one process group, and ends all of them, however this process ends.

Three things hold that: a polite SIGTERM and then SIGKILL to the group when we end it; a keeper process
(group_keeper.py) that does the same when we die without a word; PR_SET_PDEATHSIG for the moment before it runs.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.parent_death import die_with_parent

KEEPER = Path(__file__).with_name("group_keeper.py")


class NodeProcess:
    """A started server: one process group, its output in a log file."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path, log: Path) -> None:
        """Start `command`. Raises OSError where it cannot be run."""
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a signal to our whole group must leave it alive
        )
        try:
            with log.open("wb") as output:
                self._server = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environ),
                    cwd=cwd,
                    start_new_session=True,  # Ctrl-C at the terminal comes to us alone; we tell the server
                    preexec_fn=die_with_parent(),
                )
        except OSError:
            self._tell_keeper(b"")
            raise
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(b"%d\n" % self._server.pid)
        self._keeper.stdin.flush()

    @property
    def pid(self) -> int:
        """The server's process id, which is also its group's."""
        return self._server.pid

    def exit_code(self) -> int | None:
        """None while the server runs; negative where a signal ended it."""
        return self._server.poll()

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None after `seconds`."""
        try:
            return self._server.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_end(self) -> None:
        """SIGTERM to the server, which tells its children. Harmless after its end."""
        if self.exit_code() is None:
            self._server.send_signal(signal.SIGTERM)

    def end(self, grace_seconds: float) -> int:
        """End the server and every process of its group; returns the server's exit code."""
        self.ask_to_end()
        self.wait(grace_seconds)
        # The server can be gone while an engine process is not, and the other way round.
        self._kill_group(patience_seconds=5.0)
        code = self._server.wait()
        self._tell_keeper(b".")
        return code

    def _tell_keeper(self, word: bytes) -> None:
        """The last word to the keeper, which then ends."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.write(word)
            self._keeper.stdin.close()
        self._keeper.wait()

    def _kill_group(self, patience_seconds: float) -> None:
        """SIGKILL to whoever is left in the group, until nobody answers to it.

        The patience is for machines whose first process does not collect the dead: they stay in their group.
        """
        deadline = time.monotonic() + patience_seconds
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.pid, signal.SIGKILL)
                self.wait(0.05)  # the dead server counts, too, until it is collected
                time.sleep(0.05)
