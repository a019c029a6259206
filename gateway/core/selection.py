"""Which node gets a request. Pure functions over the candidates' facts; the fleet holds the state."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def round_robin(candidates: Sequence[T], turn: int) -> T:
    """The candidate whose turn it is; `turn` counts up by one a request. Needs at least one candidate."""
    return candidates[turn % len(candidates)]
