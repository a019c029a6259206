"""All nodes of all models, and which of them a request may be given."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import structlog

from gateway.core.errors import FleetFull, NoNodeReady
from gateway.core.fleet.breaker import BreakerRules
from gateway.core.fleet.model_cards import KnownCards
from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.fleet.model_nodes import ModelNodes, NodeCount
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
        self.known_cards = KnownCards()
        self.gateways = 1
        self.shared = False
        self.bounded = False
        """Whether a node has a bound."""
        self.on_bounds: Callable[[], None] | None = None
        """Called when a node has got a bound that it had not."""
        self.on_free: Callable[[Lease], None] | None = None
        """Called when a request on one of the nodes has ended. Set before there are any."""
        self.on_change: Callable[[Node], None] | None = None
        """Called when a node has been told anything, has come, or has left."""
        self._begun = False
        self._order: dict[Node, int] = {}
        self._tags: dict[bytes, Node] = {}
        self._names: dict[str, Node] = {}
        self._counted: dict[Node, NodeCount] = {}
        self._bounded = 0
        self._all = ModelNodes(None)
        self._models: dict[str, ModelNodes] = {}
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
        gone = [known[url] for url in known.keys() - nodes.keys()]
        self.nodes = tuple(nodes.values())
        self._order = {node: number for number, node in enumerate(self.nodes)}
        self._tags = {node.tag: node for node in reversed(self.nodes)}
        self._names = {node.name: node for node in reversed(self.nodes)}
        for each in (self._all, *self._models.values()):
            each.reorder()
        for node in gone:
            node.leave()
        on_change = self._changed  # one object for all
        for node in self.nodes:
            if node.on_change is None:
                node.on_change = on_change
                self._changed(node)
        self._begun = self._begun or bool(nodes)
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
        if before is None or found is None:
            log.info("node_concurrency_found", node=node.name, max_concurrency=found)
        if before is None and self.on_bounds is not None:
            self.on_bounds()

    def _changed(self, node: Node) -> None:
        """Count `node` as it is now."""
        counted = self._counted.get(node)
        if node not in self._order:
            if counted is not None:
                self._uncount(counted)
            node.on_change = None
        elif counted is None or not counted.holds(node):
            if counted is not None:
                self._uncount(counted)
            self._count(NodeCount(node))
        elif counted.bound != (bound := node.bound) or counted.bounded != node.bounded:
            self._bounded += node.bounded - counted.bounded
            counted.bounded = node.bounded
            if counted.ready:
                for each in self._counted_in(counted):
                    each.rebound(counted.bound, bound)
            counted.bound = bound
        self.bounded = self._bounded > 0
        node.on_free = self.on_free if node.bounded else None
        if self.on_change is not None:
            self.on_change(node)

    def _counted_in(self, counted: NodeCount) -> list[ModelNodes]:
        return [self._all, *[self._models[name] for name in counted.cards]]

    def _count(self, counted: NodeCount) -> None:
        self._counted[counted.node] = counted
        self._bounded += counted.bounded
        for name in counted.cards:
            if name not in self._models:
                self._models[name] = ModelNodes(name)
        for each in self._counted_in(counted):
            each.add(counted)

    def _uncount(self, counted: NodeCount) -> None:
        del self._counted[counted.node]
        self._bounded -= counted.bounded
        for each in self._counted_in(counted):
            each.remove(counted)
            if each.name is not None and not each.count:
                del self._models[each.name]

    @property
    def served(self) -> Collection[str]:
        """The models of all nodes that have ever said what they serve: seen as they are at each look."""
        return self._models.keys()

    def cards(self) -> Mapping[str, Mapping[str, Any]]:
        """One node's own /v1/models entry for each model, ready nodes first."""
        return {name: each.card(self._order) for name, each in self._models.items()}

    def window(self, model: str) -> int | None:
        """The smallest context window, in tokens, of the nodes that serve `model`; None where none of them says."""
        found = self._models.get(model)
        return None if found is None else found.window

    def places(self, model: str) -> float:
        """The places of the model's ready nodes, as far as this process may use them."""
        found = self._models.get(model)
        return 0.0 if found is None else found.places

    def nodes_of(self, model: str | None) -> Sequence[Node]:
        """The nodes that serve `model`, whatever their state; all where None."""
        found = self._all if model is None else self._models.get(model)
        return () if found is None else found.nodes(self._order)

    def count_of(self, model: str) -> int:
        """How many nodes serve `model`."""
        found = self._models.get(model)
        return 0 if found is None else found.count

    def serves(self, model: str | None = None) -> bool:
        """Whether a node is ready that serves `model` (any model where None), and does not fail all that it is asked:
        the last one is given requests all the same."""
        found = self._all if model is None else self._models.get(model)
        return found is not None and found.serving > 0

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
        serving = self.nodes_of(model)
        if pinned_to is not None:
            pinned = self._tags.get(pinned_to)
            serving = [] if pinned is None or (model is not None and model not in pinned.cards) else [pinned]
        if tried:
            serving = [node for node in serving if node not in tried]
        return [node for node in serving if node.has_place(now)] or second_choice(serving, model, now, moves)

    def has_another(self, node: Node) -> bool:
        """Whether a node is ready that could do the work of `node`."""
        return any(self._models[name].ready > node.ready for name in node.cards if name in self._models)

    def has_place_beside(self, node: Node, model: str | None, now: float) -> bool:
        """Whether another node could be given what `node` has of `model` (None: any). True until the next await."""
        return any(other is not node and other.has_place(now) for other in self.nodes_of(model))

    def refused(self, node: Node, error: str, now: float) -> None:
        """`node` took no connection for a request."""
        if node.refused(error, now):
            self._log_taken_out(node)

    def convict(self, node: Node, error: str, failed_at: float, now: float) -> None:
        """Another node answered a request that failed on `node` at `failed_at`."""
        if node.convict(error, failed_at, now, spare=not self.has_another(node)):
            self._log_taken_out(node)

    def check_failed(self, node: Node, error: str, now: float) -> None:
        """`node` failed a client's request, and then the prober's own."""
        if node.check_failed(error, now, spare=not self.has_another(node)):
            self._log_taken_out(node)

    def fell_silent(self, node: Node, now: float) -> bool:
        """All answers of `node` stand still; whether there is another one to go to."""
        another = self.has_another(node)
        if node.fell_silent(now, spare=not another):
            self._log_taken_out(node)
        return another

    def _log_taken_out(self, node: Node) -> None:
        log.warning("node_taken_out", node=node.name, cause=node.breaker.cause.value, error=node.last_error)

    def by_tag(self, tag: bytes) -> Node | None:
        """The node that a response id names (see `response_ids`)."""
        return self._tags.get(tag)

    def by_name(self, name: str) -> Node | None:
        return self._names.get(name)


def second_choice(serving: Sequence[Node], model: str | None, now: float, moves: bool) -> Sequence[Node]:
    """Those of `serving` that get a request where none is ready with a place; see `Fleet.candidates`."""
    # A stored response can be read where it lies until the node is gone: only new work is kept off.
    usable = [node for node in serving if node.drain is None or model is None]
    if not usable:
        wanted = f"the model {model!r}" if model is not None else "this request"
        raise NoNodeReady(f"No node is ready for {wanted}; retry in 2 s.", code="no_node_ready", retry_after=2.0)
    up = [node for node in usable if node.ready] or usable
    roomy = [node for node in up if model is None or has_room(node, moves)]
    if not roomy:
        raise all_full()
    return [node for node in roomy if node.busy_until <= now] or roomy


def all_full() -> FleetFull:
    return FleetFull(f"All nodes are at capacity; retry in {FULL_RETRY_SECONDS:g} s.", retry_after=FULL_RETRY_SECONDS)


def has_room(node: Node, moves: bool) -> bool:
    """Whether `node` is within its bound, or that of requests that move to it."""
    if not moves:
        return node.in_flight < node.bound
    return node.spec.max_concurrency is None or node.in_flight < node.bound + max(1.0, SPARE * node.bound)
