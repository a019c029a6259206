"""The stream of logs. Not compiled: structlog keeps a weak reference to it, which compiled objects do not support."""

import os
import stat
import sys
from pathlib import Path


class LogStream:
    """Standard error. A write that fails (a full disk, a reader that is gone) costs lines and no request."""

    def __init__(self) -> None:
        self.failed = 0
        """Writes that failed, of one line or of several request lines."""

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self.failed += 1

    def flush(self) -> None:
        """Does nothing: `write` flushes."""

    def disk(self) -> tuple[str, float] | None:
        """Where the log is a file: its path, and the part of its disk that is free, 0 to 1."""
        try:
            number = sys.stderr.fileno()
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return None
            space = os.fstatvfs(number)
            path = str(Path(f"/proc/self/fd/{number}").readlink())
            return path, space.f_bavail / space.f_blocks if space.f_blocks else 0.0
        except (OSError, ValueError):  # closed, or no Linux
            return None
