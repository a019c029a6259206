"""What the runs of clients tell meanwhile."""

import sys


def say(line: str) -> None:
    """A line on standard error; standard output is the table's."""
    print(f"[clients] {line}", file=sys.stderr, flush=True)
