"""How often something that recurs is logged: at once, and from then on once an interval, with how often it was."""


class LogThrottle:
    """Events by a key, such as the address that they came from. At most `keys` are remembered.

    Of more the oldest are forgotten. Where keys are strangers' to choose, that would be a line for each of their
    events: with `crowded` those that find no place are one, until there is room again.
    """

    def __init__(self, seconds: float = 60.0, keys: int = 1000, crowded: bool = False) -> None:
        self._seconds = seconds
        self._keys = keys
        self._crowded = crowded
        self._counts: dict[str, tuple[float, int]] = {}  # when it is due again, and how often it was since
        self._crowd = (0.0, 0)

    def due(self, key: str, now: float) -> int:
        """Note an event. Returns how many there were since the last one that was logged, this one included; 0 where
        it is not to be logged. `now` is any clock in seconds that never goes back."""
        if self._crowded and key not in self._counts and not self._room(now):
            until, count = self._crowd
            is_due = now >= until
            self._crowd = (now + self._seconds, 0) if is_due else (until, count + 1)
            return count + 1 if is_due else 0
        until, count = self._counts.get(key, (now, 0))
        if now < until:
            self._counts[key] = (until, count + 1)
            return 0
        self._counts.pop(key, None)
        self._counts[key] = (now + self._seconds, 0)
        if len(self._counts) > self._keys:
            del self._counts[next(iter(self._counts))]
        return count + 1

    def __contains__(self, key: str) -> bool:
        """Whether it is remembered, and not one of the crowd."""
        return key in self._counts

    def overdue(self, now: float) -> list[tuple[str, int]]:
        """The keys with events that were not logged, whose interval is over, each with how many there are. They count
        as logged now."""
        over = [(key, count) for key, (until, count) in self._counts.items() if count and until <= now]
        for key, _ in over:
            del self._counts[key]
            self._counts[key] = (now + self._seconds, 0)
        return over

    def _room(self, now: float) -> bool:
        """Whether one more can be remembered, of those whose interval is over as many forgotten as it takes."""
        while len(self._counts) >= self._keys:
            oldest = next(iter(self._counts))
            if self._counts[oldest][0] > now:
                return False
            del self._counts[oldest]
        return True
