"""When requests come: at moments that are drawn beforehand, whatever the system does.

A closed loop waits for an answer before it asks again, so a slow system slows its own load down and looks better than
it is. Here every source draws its next moment from the one before, and never from an answer.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Sessions of one source: `every` seconds on average, exponentially far apart.

    With `burst` above 0 they come in the first `burst` seconds of each `period` only, as many in all.
    """

    every: float
    burst: float = 0.0
    period: float = 0.0

    def moments(self, dice: random.Random) -> Iterator[float]:
        """Seconds from the start, rising, without an end. A Poisson process each, so the sum of many is one too."""
        share = self.burst / self.period if self.burst and self.period else 1.0
        busy = 0.0
        while True:
            busy += dice.expovariate(1 / (self.every * share))
            yield busy if share == 1.0 else self._stretched(busy)

    def _stretched(self, busy: float) -> float:
        """`busy` seconds of bursts, as seconds with the silences between them."""
        periods, rest = divmod(busy, self.burst)
        return periods * self.period + rest
