"""Merges the nodes of all sources: the config, names in the DNS, registrations in Redis."""

from collections.abc import Callable, Sequence

import structlog

from gateway.fleet.node_spec import NodeSpec

log = structlog.get_logger("fleetgate.discovery")


class NodeSources:
    """The nodes of each source. Where two sources have the same URL, the earlier one in `order` wins."""

    def __init__(self, order: Sequence[str], on_change: Callable[[list[NodeSpec]], None]) -> None:
        """`on_change` is called with all nodes whenever they have changed."""
        self._by_source: dict[str, tuple[NodeSpec, ...]] = dict.fromkeys(order, ())
        self._on_change = on_change

    def update(self, source: str, specs: Sequence[NodeSpec]) -> None:
        """Replace the nodes of `source`."""
        if source in self._by_source and self._by_source[source] == tuple(specs):
            return
        before = self.specs()
        self._by_source[source] = tuple(specs)
        after = self.specs()
        if after == before:
            return
        had, have = {spec.url for spec in before}, {spec.url for spec in after}
        came = [spec.name for spec in after if spec.url not in had]
        left = [spec.name for spec in before if spec.url not in have]
        if came or left:
            log.info("fleet_changed", source=source, added=came, removed=left)
        self._on_change(after)

    def specs(self) -> list[NodeSpec]:
        """All nodes, each once."""
        merged: dict[str, NodeSpec] = {}
        for specs in self._by_source.values():
            for spec in specs:
                merged.setdefault(spec.url, spec)
        return list(merged.values())
