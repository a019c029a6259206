"""How often something that recurs is logged: at once, and from then on once an interval, with how often it was."""


class LogThrottle:
    """Events by a key, such as the address that they came from. Of more than `keys` the oldest are forgotten."""

    def __init__(self, seconds: float = 60.0, keys: int = 1000) -> None:
        self._seconds = seconds
        self._keys = keys
        self._counts: dict[str, tuple[float, int]] = {}  # when it is due again, and how often it was since

    def due(self, key: str, now: float) -> int:
        """Note an event. Returns how many there were since the last one that was logged, this one included; 0 where
        it is not to be logged. `now` is any clock in seconds that never goes back."""
        until, count = self._counts.get(key, (now, 0))
        if now < until:
            self._counts[key] = (until, count + 1)
            return 0
        self._counts.pop(key, None)
        self._counts[key] = (now + self._seconds, 0)
        if len(self._counts) > self._keys:
            del self._counts[next(iter(self._counts))]
        return count + 1
