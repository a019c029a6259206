"""Service classes: which requests go first where not all can be served at once.

A tenant has a class, and may have lower ones; its key, the request's `service_tier` and the header
`x-fleetgate-class` may lower the class of a request, and never raise it:

    tenant       its class, else `ServiceClasses.default`
    key          its class, where that is lower
    header       the class of that name, where that is lower; an unknown name is an error
    service_tier the highest class that has the tier, where that is lower; `auto` and unknown tiers say nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.core.errors import InvalidRequest

CLASS_HEADER: Final = b"x-fleetgate-class"


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """`share`: its part of the tokens against other classes that wait. `tiers`: OpenAI's names for it, the first of
    which answers echo. `yields_at`: seconds of the expected wait of higher classes from which it gets no place; None:
    never. `priority`: what nodes are told, lower first; 0 is what a node takes without being told. `rank`: 0 is the
    highest."""

    name: str
    share: float = 1.0
    tiers: tuple[str, ...] = ()
    yields_at: float | None = None
    priority: int = 0
    rank: int = 0

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What answers say of it."""
        return ((CLASS_HEADER, self.name.encode()),)


class ServiceClasses:
    """All classes, the highest first, and the one of tenants that have none."""

    def __init__(self, classes: Sequence[ServiceClass], default: str) -> None:
        self.all = tuple(classes)
        self._by_name = {each.name: each for each in classes}
        self._by_tier: dict[str, ServiceClass] = {}
        for each in classes:
            for tier in each.tiers:
                self._by_tier.setdefault(tier, each)
        self.default_name = default
        self.default = self._by_name[default]

    def rank(self, name: str) -> int:
        """0 for the highest class, and for a name that is not there any more."""
        found = self._by_name.get(name)
        return 0 if found is None else found.rank

    def named(self, name: str | None) -> ServiceClass | None:
        return None if name is None else self._by_name.get(name)

    def of(self, tenant: str | None, key: str | None, header: bytes | None, tier: Any) -> ServiceClass:
        """The class of a request, by the class names of its tenant and key (None: they have none), its header and its
        `service_tier`. A name that a tenant or key has and the configuration does not counts as none."""
        chosen = self.named(tenant) or self.default
        for lower in (self.named(key), self._asked(header), self._by_tier.get(tier) if type(tier) is str else None):
            if lower is not None and lower.rank > chosen.rank:
                chosen = lower
        return chosen

    def _asked(self, header: bytes | None) -> ServiceClass | None:
        if header is None:
            return None
        found = self._by_name.get(header.decode("latin-1").strip().lower())
        if found is None:
            known = ", ".join(self._by_name)
            raise InvalidRequest(
                f"The header x-fleetgate-class must be one of: {known}.",
                param="x-fleetgate-class",
                code="unknown_service_class",
            )
        return found


USUAL_CLASSES = ServiceClasses(
    (
        ServiceClass("interactive", 16.0, ("priority",), None, -10, 0),
        ServiceClass("standard", 4.0, ("default",), None, 0, 1),
        ServiceClass("batch", 1.0, ("flex",), 2.0, 10, 2),
    ),
    "standard",
)
"""The classes of a configuration that names none."""
