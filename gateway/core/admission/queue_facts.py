"""What is told of a queue, by metrics and `fleetgate status`."""

from collections.abc import Mapping
from typing import NamedTuple


class QueueFacts(NamedTuple):
    """The queue of one model as a process sees it. `waiting`: its requests by class; `elsewhere`: those of others, as
    far as it hears of them. `expected_wait` in seconds, 0 where none waits, infinite where no rate is known.
    `counters`: of those that wait, by class and tenant, in tokens."""

    model: str
    waiting: Mapping[str, int]
    elsewhere: int
    expected_wait: float
    counters: Mapping[tuple[str, str], float]
