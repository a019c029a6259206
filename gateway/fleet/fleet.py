"""All nodes of all models, and the choice of one for a request."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from gateway.core.errors import NoNodeReady
from gateway.core.selection import round_robin
from gateway.fleet.node import Lease, Node, NodeSpec


class Fleet:
    """The nodes as this process sees them. `update` follows a config reload; leases outlive their node's removal."""

    def __init__(self, specs: Iterable[NodeSpec] = ()) -> None:
        self.nodes: tuple[Node, ...] = ()
        self._turn = 0
        self.update(specs)

    def update(self, specs: Iterable[NodeSpec]) -> tuple[Node, ...]:
        """Make the fleet the nodes of `specs`, keeping the state of those that stay; returns those that are new."""
        known = {node.spec: node for node in self.nodes}
        same_place = {node.spec.url: node for node in self.nodes}
        self.nodes = tuple(known.get(spec) or Node(spec) for spec in dict.fromkeys(specs))
        new = tuple(node for node in self.nodes if node.spec not in known)
        for node in new:  # another key or certificate: what the node serves is known until it is probed
            if node.spec.url in same_place:
                node.cards = same_place[node.spec.url].cards
        return new

    @property
    def served(self) -> "ServedModels":
        """The models of all nodes that have ever said what they serve."""
        return ServedModels(self.nodes)

    def cards(self) -> Mapping[str, Mapping[str, Any]]:
        """One node's own /v1/models entry for each model, ready nodes first."""
        found: dict[str, Mapping[str, Any]] = {}
        for node in sorted(self.nodes, key=lambda node: not node.ready):
            for name, card in node.cards.items():
                found.setdefault(name, card)
        return found

    def ready(self, model: str | None = None) -> bool:
        """Whether a node is ready that serves `model` (any model where None)."""
        return any(node.ready and (model is None or model in node.cards) for node in self.nodes)

    def lease(self, model: str | None, tried: Collection[Node] = (), pinned_to: bytes | None = None) -> Lease:
        """A place on a node that serves `model` (None: any model), round robin over those that answer their probe.

        Nodes in `tried` are left out. Where none is ready, one that only misses its probes is better than
        none: it may be busy, and a request tells more than a probe. `pinned_to` (a node tag) allows one node only.
        """
        candidates = [
            node
            for node in self.nodes
            if (model is None or model in node.cards)
            and node not in tried
            and (pinned_to is None or node.tag == pinned_to)
        ]
        candidates = [node for node in candidates if node.ready] or candidates
        if not candidates:
            wanted = f"the model {model!r}" if model is not None else "this request"
            raise NoNodeReady(f"No node is ready for {wanted}.", code="no_node_ready", retry_after=2.0)
        self._turn += 1
        return Lease(round_robin(candidates, self._turn))

    def by_tag(self, tag: bytes) -> Node | None:
        """The node that a response id names (see `response_ids`)."""
        return next((node for node in self.nodes if node.tag == tag), None)


class ServedModels(Collection[str]):
    """The names of the models on `nodes`, without copying them: this is asked on every request."""

    __slots__ = ("_nodes",)

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self._nodes = nodes

    def __contains__(self, model: object) -> bool:
        return any(model in node.cards for node in self._nodes)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for node in self._nodes for name in node.cards))

    def __len__(self) -> int:
        return sum(1 for _ in self)
