"""Which running thought ends early, once shrinking the budgets of new requests does not do.

    the factor     the expected wait     running thoughts
    above floor    any                   run on
    at its floor   below `after`         run on
    at its floor   `after` or more       one ends every `interval`, of those beyond what a budget has left now: of the
                                         first class of `classes` that has any, the one farthest beyond

Several gateways share the interval: each ends one in as many intervals as there are gateways.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.pressure.squeeze import Squeeze, ThinkingClaim


@dataclass(frozen=True, slots=True)
class EarlyEndRules:
    """`after`: an expected wait in seconds (None: no thought ends early), `interval`: seconds between two ends of one
    model. `classes`: those that have thoughts ended, in this order."""

    after: float | None = None
    interval: float = 1.0
    classes: tuple[str, ...] = ("batch",)


class RunningThought(NamedTuple):
    """A thought of `tokens` so far, of a request with this claim."""

    claim: ThinkingClaim
    tokens: int


class EarlyEnds:
    """The pace of one model's early ends in one process. Times are seconds of any clock that does not go back."""

    __slots__ = ("_next_at",)

    def __init__(self) -> None:
        self._next_at = -math.inf

    def due(self, rules: EarlyEndRules, squeeze: Squeeze, floor: float, wait: float, now: float) -> bool:
        """Whether a thought is to end at `now`; `floor` is the factor's."""
        if rules.after is None or not wait >= rules.after or squeeze.factor > floor:
            return False
        return now >= self._next_at

    def ended(self, rules: EarlyEndRules, gateways: int, now: float) -> None:
        """One has been ended."""
        self._next_at = now + rules.interval * max(1, gateways)


def order_of_ends(thoughts: Sequence[RunningThought], rules: EarlyEndRules, squeeze: Squeeze) -> list[int]:
    """The places in `thoughts` of those that may end, the first one first."""
    ranks = {name: rank for rank, name in enumerate(rules.classes)}
    found = []
    for at, (claim, tokens) in enumerate(thoughts):
        rank = ranks.get(claim.traffic_class)
        beyond = tokens - squeeze.budget(claim)
        if rank is not None and beyond > 0:
            found.append((rank, -beyond, at))
    return [at for _, _, at in sorted(found)]
