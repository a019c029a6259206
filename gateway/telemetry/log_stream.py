"""The stream of logs. Not compiled: structlog keeps a weak reference to it, which compiled objects do not support."""

import sys


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
