"""How much may wait in one process, and for how long: requests and bytes of their bodies, of each tenant and of all."""

from dataclasses import dataclass, field
from math import ceil, inf

from gateway.core.admission.fair_order import Turn
from gateway.core.admission.service_classes import USUAL_CLASSES, ServiceClasses
from gateway.core.admission.token_costs import TokenCosts
from gateway.core.errors import FleetFull, QueueFull

KEPT_FOR_HIGHER = 0.05
"""The part of the queue that a class leaves to each class above it."""

LONGEST_ADVICE = 3600.0
"""Seconds of `retry-after` at the most."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What may wait. `max_wait` in seconds, 0: nothing waits. `max_waiting` requests and `max_bytes` of their bodies,
    in one process; `tenant_share` of both for a single tenant. `comments`: seconds between two comments to a client
    that waits for a stream."""

    max_wait: float = 60.0
    max_waiting: int = 4096
    max_bytes: int = 1 << 28
    tenant_share: float = 0.5
    comments: float = inf
    classes: ServiceClasses = USUAL_CLASSES
    costs: TokenCosts = field(default_factory=TokenCosts)


class QueueBounds:
    """What waits, and whether one more may. `size`: requests; `held`: bytes of their bodies."""

    def __init__(self, rules: QueueRules) -> None:
        self.rules = rules
        self.size = 0
        self.held = 0
        self.by_tenant: dict[str, tuple[int, int]] = {}
        """Requests and bytes of each tenant that has any."""

    def add(self, tenant: str, size: int) -> None:
        count, held = self.by_tenant.get(tenant, (0, 0))
        self.by_tenant[tenant] = count + 1, held + size
        self.size += 1
        self.held += size

    def remove(self, tenant: str, size: int) -> None:
        count, held = self.by_tenant[tenant]
        if count == 1:
            del self.by_tenant[tenant]
        else:
            self.by_tenant[tenant] = count - 1, held - size
        self.size -= 1
        self.held -= size

    def check(self, turn: Turn, size: int, wait: float, patience: float) -> None:
        """For a request of `size` bytes that is expected to wait `wait` seconds, and may `patience`. Raises `FleetFull`
        or `QueueFull` where it may not wait."""
        rules, tenant = self.rules, turn.tenant
        if rules.max_wait <= 0:
            raise full(wait)
        count, held = self.by_tenant.get(tenant, (0, 0))
        share = rules.tenant_share
        if count >= max(1, rules.max_waiting * share) or held + size > rules.max_bytes * share:
            raise QueueFull(
                f"The tenant {tenant} has {count} requests waiting, which is its bound; retry in {_advice(wait)} s.",
                retry_after=_advice(wait),
            )
        part = 1.0 - KEPT_FOR_HIGHER * rules.classes.rank(turn.service_class)
        if self.size >= rules.max_waiting * part or self.held + size > rules.max_bytes * part:
            raise full(wait, ", and the queue is full")
        if wait > patience and wait != inf:
            raise full(
                wait,
                f": the expected wait of {wait:.0f} s is longer than the {max(0.0, patience):.0f} s that the request "
                "may wait",
            )


def full(wait: float, why: str = "") -> FleetFull:
    """`wait`: the expected one, in seconds."""
    return FleetFull(f"All nodes are at capacity{why}; retry in {_advice(wait)} s.", retry_after=_advice(wait))


def _advice(wait: float) -> int:
    """Whole seconds after which to come again."""
    return 1 if wait == inf else max(1, ceil(min(wait, LONGEST_ADVICE)))
