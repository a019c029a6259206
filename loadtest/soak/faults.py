"""The faults of a soak: every kind, again and again, and a quiet end."""

from collections.abc import Iterator

from loadtest.load.timetable import Fault

PERIOD = 45.0
QUIET = 15.0
"""Seconds at the end of the load without a fault."""
CYCLE = (
    (4.0, "kill", 0, 4.0),
    (11.0, "stall", 1, 6.0),
    (19.0, "redis-hang", None, 3.0),
    (24.0, "drain", 2, 5.0),
    (31.0, "redis-away", None, 3.0),
    (36.0, "reload", None, 0.0),
    (38.0, "drain", 0, 4.0),
)
"""Second of a period, what, which node, for how long."""


def faults_of(seconds: float, nodes: int) -> Iterator[Fault]:
    """All that fit; the nodes take turns."""
    round_number, begins = 0, 0.0
    while begins < seconds:
        for at, action, node, lasts in CYCLE:
            if begins + at + lasts <= seconds - QUIET:
                name = "" if node is None else str((node + round_number) % nodes + 1)
                yield Fault(begins + at, action, name, lasts)
        round_number, begins = round_number + 1, begins + PERIOD
