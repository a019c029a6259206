"""How long to wait before a dead server is started again, and when to give up. Pure: times come in as arguments.

A server that was ready for a while has earned a fresh start: its next delay is the first one again. One that dies
before it is ready, again and again, will not get better by being started once more.
"""

from dataclasses import dataclass

FIRST_SECONDS = 1.0
LAST_SECONDS = 60.0
HEALTHY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures in a row so far. `most` failures in a row without ever being ready mean giving up; 0 means never."""

    most: int
    failures: int = 0
    barren: int = 0
    first_seconds: float = FIRST_SECONDS

    def after(self, ready_seconds: float | None) -> "Backoff":
        """The state after a death. `ready_seconds`: how long it had been ready, None if it never was."""
        healthy = ready_seconds is not None and ready_seconds >= HEALTHY_SECONDS
        return Backoff(
            most=self.most,
            failures=1 if healthy else self.failures + 1,
            barren=self.barren + 1 if ready_seconds is None else 0,
            first_seconds=self.first_seconds,
        )

    @property
    def gives_up(self) -> bool:
        """Whether starting again has become pointless."""
        return 0 < self.most <= self.barren

    def delay(self, chance: float) -> float:
        """Seconds to wait: doubling, capped, and spread by `chance` in 0..1 so that nodes do not start in step."""
        full = min(LAST_SECONDS, self.first_seconds * 2.0 ** min(self.failures - 1, 20))
        return full * (0.75 + 0.25 * chance)
