"""How long a request has its place, and so how long those that wait will wait for one.

By Little's law a full fleet of `places` gives back `places` / (mean time that one is held) of them a second. Counting
how often one becomes free would tell the demand instead, wherever the fleet is not full.
"""

from math import inf

WEIGHT = 0.05
"""Of the last request, in the mean."""

ENOUGH = 8
"""Requests that have to have ended before the mean is believed."""


class ServiceTime:
    """The mean time that requests of one model held their places, by those that have ended lately. In seconds."""

    __slots__ = ("_count", "_mean")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def note(self, seconds: float) -> None:
        """One has ended."""
        self._count += 1
        self._mean += max(WEIGHT, 1 / self._count) * (seconds - self._mean)

    def wait_for(self, ahead: float, places: float) -> float:
        """Seconds until one of `places` is free for a request that `ahead` others go before; infinite where too little
        is known."""
        if self._count < ENOUGH or places <= 0:
            return inf
        return (ahead + 1.0) * self._mean / places
