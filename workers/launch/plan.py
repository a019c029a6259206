"""Everything that one launch is to do, decided before anything is started."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.argv import Binding
from workers.catalog.prices import PriceKind, PriceList
from workers.plan import prices_of
from workers.profile import Profile
from workers.registration import Capacity, Cost


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the launcher waits, in seconds. `settle` is the time in which gateways read that the node drains, and
    may still send to it: 0 where none is told.
    """

    startup: float = 1800.0
    drain: float = 600.0
    settle: float = 5.0
    stop: float = 30.0
    heartbeat: float = 5.0
    watch: float = 5.0
    proof: float = 60.0
    backoff: float = 1.0
    startups: int = 5


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One node to run: its command, and what the gateways are told. `advertise` is the address they reach it by.

    `once`: when the server ends, the launcher ends with the server's exit code, instead of starting it again.
    """

    node_id: str
    profile: str
    served_name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    binding: Binding
    advertise: str
    capacity: Capacity
    price: Cost | None
    has_budgets: bool
    api_key: str | None = None
    weight: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    patience: Patience = Patience()
    once: bool = False

    @property
    def local_url(self) -> str:
        """Where the launcher reaches its own server."""
        return local_url(self.binding)


def local_url(binding: Binding) -> str:
    """Where the launcher reaches its own server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(binding.host, binding.host)
    return f"http://[{host}]:{binding.port}" if ":" in host else f"http://{host}:{binding.port}"


def price_of(
    profile: Profile, kind: PriceKind, prices: PriceList, day: datetime.date, given: float | None = None
) -> Cost | None:
    """The price of the whole node on a day: `given` US dollars per GPU hour, else the newest of that kind; None where
    none is known.
    """
    known = (price.usd_per_gpu_hour for price in prices_of(profile, prices, day) if price.kind == kind)
    per_gpu = given if given is not None else next(known, None)
    return None if per_gpu is None else Cost(usd_per_hour=per_gpu * profile.hardware.gpus, kind=kind)
