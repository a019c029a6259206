"""Where logs are written. Not compiled: structlog keeps a weak reference to it, which compiled objects do not take."""

import sys


class LogStream:
    """Standard error, as far as it can be written: a full disk or a reader that is gone costs lines, not a request."""

    def __init__(self) -> None:
        self.failed = 0
        """Writes that failed, each of one line or of some request lines."""

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self.failed += 1

    def flush(self) -> None:
        """Every write has been flushed."""
