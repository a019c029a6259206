"""Models that tenants of the config file name, and that no node has served since the start: most often a typo.

Where the file lists models, it is checked against them. Where it lists none, only nodes know the names, and a tenant
that names another may use nothing. So it is told once the nodes have said what they serve.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import NamedTuple

import structlog

from gateway.fleet.fleet import Fleet

log = structlog.get_logger("fleetgate.fleet")

PATIENCE = 300.0
"""Seconds for which nodes that have not said yet what they serve are waited for."""

MOST = 10_000
"""Names of models that are remembered."""


class NamedModel(NamedTuple):
    """`tenant` names `model`."""

    tenant: str
    model: str


class UnservedModel(NamedTuple):
    """`meant`: a name alike that nodes serve; None where there is none."""

    tenant: str
    model: str
    meant: str | None


class NamedModels:
    """The names of the file, beside those that nodes have served."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._named: tuple[NamedModel, ...] = ()
        self._served: set[str] = set()
        self._told: set[NamedModel] = set()
        self._since: float | None = None

    def configure(self, named: Iterable[NamedModel]) -> None:
        """Watch these from now on; none where the file lists its models."""
        self._named = tuple(named)
        self._told &= set(self._named)

    def unserved(self) -> list[UnservedModel]:
        """Those that have been told."""
        return [
            UnservedModel(*each, _closest(each.model, self._served))
            for each in self._named
            if each in self._told and each.model not in self._served
        ]

    def refresh(self, now: float) -> None:
        """Log what is found out by `now`, in loop time."""
        if self._since is None:
            self._since = now
        if len(self._served) < MOST:
            self._served.update(self._fleet.served)
        waits = any(not node.cards for node in self._fleet.nodes) and now - self._since < PATIENCE
        if not self._served or waits:
            return
        for each in self._named:
            if each.model not in self._served and each not in self._told:
                self._told.add(each)
                log.warning(
                    "tenant_model_unserved",
                    tenant=each.tenant,
                    model=each.model,
                    meant=_closest(each.model, self._served),
                    served=sorted(self._served)[:10],
                )


def _closest(name: str, names: Collection[str]) -> str | None:
    return next(iter(get_close_matches(name, names, n=1)), None)
