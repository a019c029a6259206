"""Ends a process group when the process that started it is gone. A script of its own, with the standard library only.

    python group_keeper.py < PIPE

The starter holds the other end of PIPE and writes the group's number as its first line, as soon as there is one: the
keeper runs before the group, so that nothing starts unwatched. After that a byte means "the group has ended, all is
well"; an end without one means that the starter died, even by SIGKILL, which no handler in it could have caught. Then
the group gets SIGTERM, and SIGKILL where that does not do: vLLM's engine and workers would otherwise live on, with the
memory of a model each.
"""

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 5.0


def keep(group: int) -> None:
    """Wait for the word or the end of standard input; see above."""
    if sys.stdin.buffer.read(1):
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.1)
            os.killpg(group, 0)  # raises when nobody is left
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    line = sys.stdin.buffer.readline()
    if line:
        keep(int(line))
