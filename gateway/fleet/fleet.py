"""All nodes of all models, and which of them a request may be given."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import structlog

from gateway.core.errors import FleetFull, NoNodeReady
from gateway.core.fleet.breaker import BreakerRules
from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import NodeSpec

log = structlog.get_logger("fleetgate.fleet")

SPARE = 0.1
"""The part of a configured bound, one place at the least, by which requests that move from a failed node may pass
it."""

FULL_RETRY_SECONDS = 1.0
"""What a client is told where nothing is known of when a place will be free."""


class Fleet:
    """The nodes as this process sees them. `update` follows a config reload; leases outlive their node's removal."""

    def __init__(self, specs: Iterable[NodeSpec] = (), rules: BreakerRules | None = None) -> None:
        self.nodes: tuple[Node, ...] = ()
        self.configure(rules or BreakerRules())
        self.gateways = 1
        self.shared = False
        self.bounded = False
        """Whether a node has a bound."""
        self.on_bounds: Callable[[], None] | None = None
        """Called when a node has got a bound that it had not."""
        self.on_free: Callable[[Lease], None] | None = None
        """Called when a request on one of the nodes has ended. Set before there are any."""
        self._begun = False
        self.update(specs)

    def configure(self, rules: BreakerRules) -> None:
        """Judge all nodes by `rules` from now on."""
        self.rules = rules
        for node in self.nodes:
            node.breaker.rules = rules

    def share_with(self, gateways: int) -> None:
        """`gateways` processes, this one included, use the same nodes: each keeps to its part of their places, unless
        they count them together."""
        self.gateways = max(1, gateways)
        for node in self.nodes:
            node.share(node.spec, self.gateways)

    def share_places(self, shared: bool, now: float) -> None:
        """Whether all gateways count the requests on every node together, from loop time `now` on."""
        self.shared = shared
        for node in self.nodes:
            node.shared = shared
            node.refresh(now)

    def update(self, specs: Iterable[NodeSpec]) -> tuple[Node, ...]:
        """Make the fleet the nodes of `specs`, keeping the state of those that stay; returns those that are new
        or reached in a new way. What is in flight on a node is never forgotten while its URL stays."""
        known = {node.spec.url: node for node in self.nodes}
        unbounded = [node for node in self.nodes if not node.bounded]
        nodes: dict[str, Node] = {}
        new: list[Node] = []
        for spec in specs:
            node = known.get(spec.url)
            if node is None:
                node = Node(spec, self.rules, trusted=not self._begun)
                new.append(node)
            elif node.access != spec.access:
                node.reconnect(spec, trusted=True)
                new.append(node)
            node.shared = self.shared
            node.share(spec, self.gateways)
            nodes.setdefault(spec.url, node)
        for url in known.keys() - nodes.keys():
            known[url].leave()
        self.nodes = tuple(nodes.values())
        self._begun = self._begun or bool(nodes)
        self._refresh_bounds()
        if self.on_bounds is not None and any(node.bounded for node in unbounded):
            self.on_bounds()
        return tuple(new)

    def load_told(self, node: Node, load: NodeMetrics, find_knee: bool, sent: int) -> None:
        """A page of the metrics of `node` was read: with `find_knee`, how much it can take may have shown. `sent`: as
        in `Node.load_told`."""
        before = node.max_concurrency
        node.load_told(load, find_knee, sent)
        found = node.max_concurrency
        if found == before:
            return
        self._refresh_bounds()
        if before is None or found is None:
            log.info("node_concurrency_found", node=node.name, max_concurrency=found)
        if before is None and self.on_bounds is not None:
            self.on_bounds()

    def _refresh_bounds(self) -> None:
        for node in self.nodes:
            node.on_free = self.on_free if node.bounded else None
        self.bounded = any(node.bounded for node in self.nodes)

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

    def window(self, model: str) -> int | None:
        """The smallest context window, in tokens, of the nodes that serve `model`; None where none of them says."""
        sizes = [node.cards[model].get("max_model_len") for node in self.nodes if model in node.cards]
        return min((size for size in sizes if type(size) is int), default=None)

    def serves(self, model: str | None = None) -> bool:
        """Whether a node is ready that serves `model` (any model where None), and does not fail all that it is asked:
        the last one is given requests all the same."""
        return any(
            node.ready and node.failing is None and (model is None or model in node.cards) for node in self.nodes
        )

    def candidates(
        self,
        model: str | None,
        tried: Collection[Node] = (),
        pinned_to: bytes | None = None,
        now: float = 0.0,
        moves: bool = False,
    ) -> Sequence[Node]:
        """The nodes that serve `model` (None: any model) and may be given a request at loop time `now`, at least one.
        `tried` are left out; `pinned_to` (a node's tag) allows that node only. True until the next await.

        Raises `NoNodeReady` where no node is left, and `FleetFull` where all are at capacity.

        Ready ones with a place are preferred. Where all that have room are only warming up, they are asked for more;
        where none is ready, one that misses its probes or failed before is better than none: it may be busy, and a
        request tells more than a probe. A drain is always kept, and a node's own bound but for a request that `moves`
        from a failed node: a bound that was found is no reason to lose it, and one that is configured may be passed by
        `SPARE`.
        """
        serving: Sequence[Node] = self.nodes
        if tried or pinned_to is not None:
            serving = [node for node in serving if node not in tried and (pinned_to is None or node.tag == pinned_to)]
        free = [node for node in serving if (model is None or model in node.cards) and node.has_place(now)]
        return free or self._second_choice(serving, model, now, moves)

    def _second_choice(self, nodes: Sequence[Node], model: str | None, now: float, moves: bool) -> Sequence[Node]:
        serving = [node for node in nodes if model is None or model in node.cards]
        # A stored response can be read where it lies until the node is gone: only new work is kept off.
        usable = [node for node in serving if node.drain is None or model is None]
        if not usable:
            wanted = f"the model {model!r}" if model is not None else "this request"
            raise NoNodeReady(f"No node is ready for {wanted}; retry in 2 s.", code="no_node_ready", retry_after=2.0)
        up = [node for node in usable if node.ready] or usable
        roomy = [
            node for node in up if model is None or node.in_flight < (_bound_of_moves(node) if moves else node.bound)
        ]
        if not roomy:
            raise FleetFull(
                f"All nodes are at capacity; retry in {FULL_RETRY_SECONDS:g} s.", retry_after=FULL_RETRY_SECONDS
            )
        return [node for node in roomy if node.busy_until <= now] or roomy

    def has_another(self, node: Node) -> bool:
        """Whether a node is ready that could do the work of `node`."""
        return any(
            other is not node and other.ready and not node.cards.keys().isdisjoint(other.cards) for other in self.nodes
        )

    def has_place_beside(self, node: Node, model: str | None, now: float) -> bool:
        """Whether another node could be given what `node` has of `model` (None: any). True until the next await."""
        return any(
            other is not node and other.has_place(now) and (model is None or model in other.cards)
            for other in self.nodes
        )

    def convict(self, node: Node, error: str, failed_at: float, now: float) -> None:
        """Another node answered a request that failed on `node` at `failed_at`."""
        if node.convict(error, failed_at, now, spare=not self.has_another(node)):
            log.warning("node_taken_out", node=node.name, cause=node.breaker.cause.value, error=error)

    def check_failed(self, node: Node, error: str, now: float) -> None:
        """`node` failed a client's request, and then the prober's own."""
        if node.check_failed(error, now, spare=not self.has_another(node)):
            log.warning("node_taken_out", node=node.name, cause=node.breaker.cause.value, error=error)

    def fell_silent(self, node: Node, now: float) -> bool:
        """All answers of `node` stand still; whether there is another one to go to."""
        another = self.has_another(node)
        if node.fell_silent(now, spare=not another):
            log.warning("node_taken_out", node=node.name, cause=node.breaker.cause.value, error=node.last_error)
        return another

    def by_tag(self, tag: bytes) -> Node | None:
        """The node that a response id names (see `response_ids`)."""
        return next((node for node in self.nodes if node.tag == tag), None)


def _bound_of_moves(node: Node) -> float:
    """Requests at once that a node may have with one that moves to it."""
    return math.inf if node.spec.max_concurrency is None else node.bound + max(1.0, SPARE * node.bound)


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
