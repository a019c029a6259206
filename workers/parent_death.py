"""Lets a child process die with its parent, also where the parent had no chance to say so (SIGKILL, a crash)."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> Callable[[], None]:
    """A `preexec_fn` for subprocess: the kernel sends the child SIGTERM when the thread that started it ends.

    To be started from the main thread, therefore. Grandchildren are not covered.
    """
    libc = ctypes.CDLL(None)  # loaded before the fork: between fork and exec nothing may wait for a lock
    parent = os.getpid()

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask_kernel
