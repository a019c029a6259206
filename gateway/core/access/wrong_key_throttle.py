"""Slowing down whoever tries keys: after so many wrong ones in a minute an address has to wait for each further one.

The rule is GCRA (ITU-T I.371, "generic cell rate algorithm"; a leaky bucket that keeps one number): an address
has a theoretical arrival time. A wrong key moves it by 60 / N seconds from itself or from now, whichever is later;
while it lies more than a minute less one step ahead, wrong keys are refused unjudged and move nothing. So N may
come at once, and then one every 60 / N seconds.
"""

from gateway.core.http.addresses import source_of

ADDRESSES = 10_000
"""How many are remembered; beyond it the one that was wrong longest ago is forgotten. About 200 bytes each."""

_WINDOW = 60.0


class WrongKeyThrottle:
    """Wrong keys by the address that they came from. `now` is any clock in seconds that never goes back."""

    def __init__(self, per_minute: int, addresses: int = ADDRESSES) -> None:
        self._addresses = addresses
        self._arrivals: dict[str, float] = {}
        self._step = self._tolerance = 0.0
        self.configure(per_minute)

    def configure(self, per_minute: int) -> None:
        """Allow `per_minute` from now on. Another number than before forgets the wrong keys so far."""
        step = _WINDOW / per_minute
        if self._arrivals and step != self._step:
            self._arrivals.clear()
        self._step = step
        self._tolerance = _WINDOW - step

    def wait(self, address: str, now: float) -> float:
        """The seconds that `address` has to wait before anything from there is judged; 0 where it need not."""
        left = self._arrivals.get(source_of(address), now) - now - self._tolerance
        return left if left > 1e-9 else 0.0

    def wrong(self, address: str, now: float) -> float:
        """Note a wrong key. Returns 0, or the seconds to wait where there were too many: then it does not count."""
        source = source_of(address)
        arrival = max(self._arrivals.pop(source, now), now)
        wait = arrival - now - self._tolerance
        if wait > 1e-9:
            self._arrivals[source] = arrival
            return wait
        self._arrivals[source] = arrival + self._step
        if len(self._arrivals) > self._addresses:
            del self._arrivals[next(iter(self._arrivals))]
        return 0.0
