"""What one gateway process sees of one node, in a form that the others can add to what they see."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WAITS = 64
"""Latest times to the first token that are told to others, for each node."""


class PeerView(NamedTuple):
    """`state` as an operator calls it, requests `in_flight`, `pending` prompt tokens, `waits` for the first token in
    seconds (the latest at the end), and the last `error`."""

    state: str
    in_flight: int
    pending: int
    waits: tuple[float, ...]
    error: str | None


Sights = Mapping[str, PeerView]
"""By node name: what one process sees of the fleet."""


def spell(sights: Sights) -> str:
    """For the way to another process."""
    rounded = {
        name: sight._replace(waits=tuple(round(wait, 4) for wait in sight.waits[-WAITS:]))
        for name, sight in sights.items()
    }
    return json.dumps(rounded, separators=(",", ":"))


def read(spelled: str | bytes) -> Sights:
    """Raises ValueError where this was written by a version that sees otherwise."""
    try:
        told: dict[str, list[Any]] = json.loads(spelled)
        return {
            name: PeerView(str(state), int(in_flight), int(pending), tuple(map(float, waits)), error)
            for name, (state, in_flight, pending, waits, error) in told.items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None


def together(sights: Sequence[PeerView]) -> PeerView:
    """Of one node, from several processes (at least one); `state` and, if it has one, `error` are the first's."""
    if len(sights) == 1:
        return sights[0]
    return PeerView(
        sights[0].state,
        sum(sight.in_flight for sight in sights),
        sum(sight.pending for sight in sights),
        tuple(wait for sight in sights for wait in sight.waits[-WAITS:]),
        next((sight.error for sight in sights if sight.error is not None), None),
    )


def states(sights: Sequence[PeerView]) -> dict[str, int]:
    """How many processes see the node in which state."""
    counted: dict[str, int] = {}
    for sight in sights:
        counted[sight.state] = counted.get(sight.state, 0) + 1
    return counted


def quantile(waits: Sequence[float], share: float) -> float | None:
    """Seconds within which `share` (0 to 1) of the streams began; None where there was none."""
    ordered = sorted(waits)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
