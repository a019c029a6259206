"""How nodes are probed, as configured."""

from dataclasses import dataclass, field

QUIET_ROUNDS, QUIET_SECONDS = 5, 10.0
"""Models, and the metrics of a node without requests, are read every fifth interval, or every 10 s if that is more
often."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Seconds between probes (with a tenth of jitter), seconds for one, and how many may fail in a row.

    `canary`: each node is asked to show what it can do; otherwise it is trusted to hold budgets. `native`: a node
    that has shown that it holds budgets is relied on. `find_knee`: how many requests at once a node works best with is
    found from its metrics, where it is not configured.
    """

    interval: float
    timeout: float
    failure_threshold: int
    canary: bool = True
    native: bool = True
    find_knee: bool = True

    quiet_pause: float = field(init=False)
    """Seconds between two readings of what hardly changes."""

    def __post_init__(self) -> None:
        pause = max(self.interval, min(QUIET_ROUNDS * self.interval, QUIET_SECONDS))
        object.__setattr__(self, "quiet_pause", pause)
