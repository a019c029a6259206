"""The nodes of one model, and sums over them that requests read: kept up as nodes change, walked by no request."""

from collections.abc import Mapping
from math import inf, isinf
from typing import Any

from gateway.fleet.node import Node


class NodeCount:
    """What was last counted of a node."""

    __slots__ = ("bound", "bounded", "cards", "node", "ready", "serving")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cards = node.cards
        self.ready = node.ready
        self.serving = node.ready and node.failing is None
        self.bound = node.bound
        self.bounded = node.bounded

    def holds(self, node: Node) -> bool:
        """Whether it is still so, apart from bounds."""
        return (
            self.ready == node.ready
            and self.serving == (node.ready and node.failing is None)
            and (self.cards is node.cards or self.cards == node.cards)
        )


class ModelNodes:
    """`count` nodes serve the model; `ready` of them, and `serving`: ready ones that do not fail all that they are
    asked. `name`: None for the nodes of all models."""

    __slots__ = (
        "_bounds",
        "_card",
        "_members",
        "_nodes",
        "_unbounded",
        "_windows",
        "count",
        "name",
        "ready",
        "serving",
    )

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.count = 0
        self.ready = 0
        self.serving = 0
        self._bounds = 0.0
        self._unbounded = 0
        self._windows: dict[int, int] = {}
        self._members: set[Node] = set()
        self._nodes: tuple[Node, ...] | None = None
        self._card: Mapping[str, Any] | None = None

    @property
    def window(self) -> int | None:
        """The smallest context window, in tokens; None where no node says."""
        return min(self._windows, default=None)

    @property
    def places(self) -> float:
        """The bounds of the ready nodes together, as far as this process may use them; infinite where one has none."""
        return inf if self._unbounded else self._bounds

    def nodes(self, order: Mapping[Node, int]) -> tuple[Node, ...]:
        """All, by the place that `order` gives them."""
        if self._nodes is None:
            last = len(order)
            self._nodes = tuple(sorted(self._members, key=lambda node: order.get(node, last)))
        return self._nodes

    def reorder(self) -> None:
        """The order of the fleet has changed."""
        self._nodes = self._card = None

    def card(self, order: Mapping[Node, int]) -> Mapping[str, Any]:
        """One node's own entry for the model: of the first that is ready, else of the first."""
        if self._card is None:
            nodes = self.nodes(order)
            first = next((node for node in nodes if node.ready), nodes[0])
            self._card = first.cards[self.name or ""]
        return self._card

    def add(self, counted: NodeCount) -> None:
        """A node serves the model, as it was counted."""
        self._members.add(counted.node)
        self._change(counted, 1)

    def remove(self, counted: NodeCount) -> None:
        """The reverse of `add`, with the same count."""
        self._members.discard(counted.node)
        self._change(counted, -1)

    def rebound(self, before: float, after: float) -> None:
        """The bound of a ready node has changed."""
        self._add_bound(before, -1)
        self._add_bound(after, 1)

    def _change(self, counted: NodeCount, by: int) -> None:
        self._nodes = self._card = None
        self.count += by
        self.ready += by * counted.ready
        self.serving += by * counted.serving
        if counted.ready:
            self._add_bound(counted.bound, by)
        card = counted.cards.get(self.name) if self.name is not None else None
        window = None if card is None else card.get("max_model_len")
        if type(window) is int:
            found = self._windows.get(window, 0) + by
            if found:
                self._windows[window] = found
            else:
                del self._windows[window]

    def _add_bound(self, bound: float, by: int) -> None:
        if isinf(bound):
            self._unbounded += by
        else:
            self._bounds += by * bound
