"""What is known of a node from outside: where it is, what it may have, and that it is drained."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What is known of a node before it is asked. `api_key` and `ca_file` are for talking to it; None: not needed.

    `max_concurrency`: requests at once from all gateways together (None: no bound); `weight`: its share of work
    against other nodes; `price`: US dollars an hour, None where unknown; `labels`: the operator's own names and
    values; `models`: what it may serve, empty where it may serve whatever it says. `priority_scheduling`: whether it
    is told the priority of requests; None: if it is a vLLM.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    max_concurrency: int | None = None
    weight: float = 1.0
    price: float | None = None
    labels: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    priority_scheduling: bool | None = None

    @property
    def name(self) -> str:
        """Host and port: how logs and metrics call it."""
        return self.url.partition("://")[2].rstrip("/")

    @property
    def access(self) -> tuple[str, str | None, str | None]:
        """What a connection to it depends on."""
        return self.url, self.api_key, self.ca_file


@dataclass(frozen=True, slots=True)
class Drain:
    """No new work for a node since `since`; what still runs at `until` is ended (infinite: it may finish). In loop
    time."""

    since: float = 0.0
    until: float = math.inf
