"""How fast a node makes tokens, learnt from the ends of its answers, and what an answer costs there.

A step of a node gives each of its answers one token. Its time grows with their number, so a token takes longest on a
full node:

    seconds of a token = pace x (IDLE + (1 - IDLE) x crowd)

`crowd` is the share of the node's places that is taken, `pace` the seconds of a token where all are. An answer slows
down the others by as much as they slow it down, so the part that grows counts twice where a node is chosen.
"""

from collections.abc import Sequence

from gateway.core.routing.prefill_speed import ENOUGH, OUTLIER, SHARE
from gateway.core.routing.selection import IDLE, level

WORTH = 0.04
"""What a second of an answer counts against a second until its first byte: enough to choose the faster of two nodes for
a long answer, and too little to leave a cache for. From 0.03 to 0.07 the replay hardly changes."""

SMALLEST = 64
"""Tokens of an answer: below that its time is the network's as much as the node's."""

SLOWER = 0.05
"""Of a sample that is slower than the average. One that is faster counts `SHARE`: a client that reads slowly holds its
answer up, and nothing makes one faster than its node."""


class DecodeSpeed:
    """An exponential average of the seconds that a token takes on the full node."""

    __slots__ = ("_average", "_samples")

    def __init__(self) -> None:
        self._average = 0.0
        self._samples = 0

    @property
    def pace(self) -> float | None:
        """Seconds per token of an answer on the full node, None before enough was learnt."""
        return self._average if self._samples >= ENOUGH else None

    def learn(self, crowd: float, tokens: int, seconds: float) -> None:
        """An answer of `tokens` took `seconds` from its first byte to its last. `crowd`: the node's, with it."""
        if tokens < SMALLEST or seconds <= 0:
            return
        sample = seconds / tokens / (IDLE + (1 - IDLE) * min(max(crowd, 0.0), 1.0))
        self._samples += 1
        if self._samples == 1:
            self._average = sample
            return
        bounded = min(max(sample, self._average / OUTLIER), self._average * OUTLIER)
        self._average += (SHARE if bounded < self._average else SLOWER) * (bounded - self._average)


def answer_costs(paces: Sequence[float | None], weights: Sequence[float], tokens: int) -> list[float]:
    """What an answer of `tokens` costs on each full node, in seconds until a first byte.

    0 where all nodes are about as fast: there the answers balance themselves, and `load_penalty` is enough.
    """
    known = level(paces, 0.0) if any(pace is not None for pace in paces) else []
    if not known or min(known) == max(known):
        return [0.0] * len(paces)
    return [WORTH * tokens * pace / weight for pace, weight in zip(known, weights, strict=True)]
