"""How fast a node computes prompts, learnt from the first bytes of its answers."""

SMALLEST = 256
"""Tokens: below that a first byte tells more about the network and the batch than about the prefill."""

SHARE = 0.1
"""Of a new sample in the average: after about twenty of them an old speed has faded."""

OUTLIER = 2.0
"""A sample counts as at most this many times slower or faster than the average: a busy moment is not a slow node."""


class PrefillSpeed:
    """An exponential average; `pace` is seconds per uncached prompt token, None before anything was learnt."""

    __slots__ = ("pace",)

    def __init__(self) -> None:
        self.pace: float | None = None

    def learn(self, ahead: float, tokens: int, seconds: float) -> None:
        """A prompt of `tokens` that were not in the cache had its first byte after `seconds`.

        Where something was `ahead` of it, the time was not its own, and how much of it was is a guess: no lesson.
        """
        if ahead > 0 or tokens < SMALLEST or seconds <= 0:
            return
        sample = seconds / tokens
        if self.pace is None:
            self.pace = sample
        else:
            bounded = min(max(sample, self.pace / OUTLIER), self.pace * OUTLIER)
            self.pace += SHARE * (bounded - self.pace)
