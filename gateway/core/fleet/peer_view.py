"""The view that one gateway process has of a node, as it is sent to the others and added up by them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WAITS = 64
"""Latest times to the first token that a view of a node carries."""


class PeerView(NamedTuple):
    """`state` of the node, requests `in_flight`, `pending` prompt tokens, `waits` for the first token in seconds
    (the latest at the end), and the last `error`."""

    state: str
    in_flight: int
    pending: int
    waits: tuple[float, ...]
    error: str | None


ViewsByNode = Mapping[str, PeerView]
"""The views of one process, by the nodes' names."""


def spell(views: ViewsByNode) -> str:
    """The form in which views are sent."""
    rounded = {
        name: view._replace(waits=tuple(round(wait, 4) for wait in view.waits[-WAITS:])) for name, view in views.items()
    }
    return json.dumps(rounded, separators=(",", ":"))


def read(spelled: str | bytes) -> ViewsByNode:
    """Raises ValueError where another version has written another form."""
    try:
        spelled_nodes: dict[str, list[Any]] = json.loads(spelled)
        return {
            name: PeerView(str(state), int(in_flight), int(pending), tuple(map(float, waits)), error)
            for name, (state, in_flight, pending, waits, error) in spelled_nodes.items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None


def together(views: Sequence[PeerView]) -> PeerView:
    """Adds up the views that several processes (at least one) have of a node; `state` and, if it has one, `error` are
    those of the first."""
    if len(views) == 1:
        return views[0]
    return PeerView(
        views[0].state,
        sum(view.in_flight for view in views),
        sum(view.pending for view in views),
        tuple(wait for view in views for wait in view.waits[-WAITS:]),
        next((view.error for view in views if view.error is not None), None),
    )


def states(views: Sequence[PeerView]) -> dict[str, int]:
    """The number of processes by the state in which they see the node."""
    counted: dict[str, int] = {}
    for view in views:
        counted[view.state] = counted.get(view.state, 0) + 1
    return counted


def quantile(waits: Sequence[float], share: float) -> float | None:
    """Seconds within which `share` (0 to 1) of the streams began; None where there was none."""
    ordered = sorted(waits)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
