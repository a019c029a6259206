"""The view that one gateway process has of a node, as it is sent to the others and added up by them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

WAITS = 64
"""Latest times to the first token that a view of a node carries."""


class AnswerBreaks(NamedTuple):
    """Answers for `model` that broke off on a node of late: all that it `lost`, those that were `resumed`, and those
    that ended with an error instead. The rest was asked for anew, or its client left in the pause."""

    model: str
    lost: int
    resumed: int
    not_resumed: int


class PeerView(NamedTuple):
    """`state` of the node, requests `in_flight`, `pending` prompt tokens, `waits` for the first token in seconds
    (the latest at the end), the last `error`, and the answers that broke off there, one entry a model."""

    state: str
    in_flight: int
    pending: int
    waits: tuple[float, ...]
    error: str | None
    breaks: tuple[AnswerBreaks, ...] = ()


ViewsByNode = Mapping[str, PeerView]
"""The views of one process, by the nodes' names."""


def spell(views: ViewsByNode) -> str:
    """The form in which views are sent. Older gateways know no breaks: a view without them has no place for them."""
    rounded = {
        name: view._replace(waits=tuple(round(wait, 4) for wait in view.waits[-WAITS:]))[: None if view.breaks else -1]
        for name, view in views.items()
    }
    return json.dumps(rounded, separators=(",", ":"))


def read(spelled: str | bytes) -> ViewsByNode:
    """Raises ValueError where another version has written another form; what it has added behind this one is left."""
    try:
        spelled_nodes: dict[str, list[Any]] = json.loads(spelled)
        return {
            name: PeerView(str(state), int(in_flight), int(pending), tuple(map(float, waits)), error, _read(more))
            for name, (state, in_flight, pending, waits, error, *more) in spelled_nodes.items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None


def _read(more: list[Any]) -> tuple[AnswerBreaks, ...]:
    return tuple(
        AnswerBreaks(str(model), int(lost), int(resumed), int(not_resumed))
        for model, lost, resumed, not_resumed, *_ in (more[0] if more else ())
    )


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
        add_up(each for view in views for each in view.breaks),
    )


def add_up(breaks: Iterable[AnswerBreaks]) -> tuple[AnswerBreaks, ...]:
    """One entry a model, in the order in which they first come."""
    sums: dict[str, AnswerBreaks] = {}
    for each in breaks:
        model, lost, resumed, not_resumed = sums.get(each.model) or AnswerBreaks(each.model, 0, 0, 0)
        sums[model] = AnswerBreaks(model, lost + each.lost, resumed + each.resumed, not_resumed + each.not_resumed)
    return tuple(sums.values())


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
