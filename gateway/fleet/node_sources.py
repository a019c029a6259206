"""Which nodes there are, by all that tell of them: the config, names in the DNS, registrations in Redis."""

from collections.abc import Callable, Sequence

import structlog

from gateway.fleet.node import NodeSpec

log = structlog.get_logger("fleetgate.discovery")


class NodeSources:
    """Merges the sources. Of two that name the same URL the earlier in `order` is believed."""

    def __init__(self, order: Sequence[str], take: Callable[[list[NodeSpec]], None]) -> None:
        """`take` is given the whole list whenever it has changed."""
        self._told: dict[str, tuple[NodeSpec, ...]] = dict.fromkeys(order, ())
        self._take = take

    def update(self, source: str, specs: Sequence[NodeSpec]) -> None:
        """What `source` knows now; it replaces what it knew before."""
        if source in self._told and self._told[source] == tuple(specs):
            return
        before = self.specs()
        self._told[source] = tuple(specs)
        after = self.specs()
        if after == before:
            return
        came = [spec.name for spec in after if spec.url not in {old.url for old in before}]
        left = [spec.name for spec in before if spec.url not in {new.url for new in after}]
        if came or left:
            log.info("fleet_changed", source=source, came=came, left=left)
        self._take(after)

    def specs(self) -> list[NodeSpec]:
        """All nodes, each once."""
        merged: dict[str, NodeSpec] = {}
        for specs in self._told.values():
            for spec in specs:
                merged.setdefault(spec.url, spec)
        return list(merged.values())
