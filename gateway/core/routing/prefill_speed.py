"""How fast a node computes prompts, learnt from the first bytes of its answers."""

SMALLEST = 256
"""Tokens: below that a first byte tells more about the network and the batch than about the prefill."""

SHARE = 0.1
"""Of a new sample in the average: after about twenty of them an old speed has faded."""

OUTLIER = 2.0
"""A sample counts as at most this many times slower or faster than the average: a busy moment is not a slow node."""

ENOUGH = 5
"""Samples before the average is told to anybody."""

FASTEST = 1 / 100_000
"""Seconds per token. No node that is worth a gateway is faster: a shorter time was not spent on the prompt."""


class PrefillSpeed:
    """An exponential average of seconds per uncached prompt token."""

    __slots__ = ("_average", "_samples")

    def __init__(self) -> None:
        self._average = 0.0
        self._samples = 0

    @property
    def pace(self) -> float | None:
        """Seconds per uncached prompt token, None before enough was learnt."""
        return self._average if self._samples >= ENOUGH else None

    def learn(self, ahead: float, tokens: int, seconds: float) -> None:
        """A prompt of `tokens` that were not in the cache had its first byte after `seconds`.

        Where something was `ahead` of it, the time was not its own, and how much of it was is a guess: no lesson.
        """
        if ahead > 0 or tokens < SMALLEST or seconds <= 0:
            return
        sample = max(seconds / tokens, FASTEST)
        self._samples += 1
        if self._samples == 1:
            self._average = sample
            return
        bounded = min(max(sample, self._average / OUTLIER), self._average * OUTLIER)
        self._average += SHARE * (bounded - self._average)
