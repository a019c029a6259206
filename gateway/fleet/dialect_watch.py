"""Logs when all requests of one dialect fail on a model, once, and when one is answered again."""

import time

import structlog

from gateway.core.fleet.failing_dialects import FailingDialect, FailingDialects
from gateway.core.telemetry.request_stats import RequestStats

log = structlog.get_logger("fleetgate.fleet")


class DialectWatch:
    """As this process sees it."""

    def __init__(self) -> None:
        self._found = FailingDialects()
        self._told: set[tuple[str, str]] = set()

    def request_ended(self, event: RequestStats) -> None:
        """An observer of requests."""
        self._found.note(event, time.monotonic())

    def failing(self) -> list[FailingDialect]:
        return list(self._found.failing(time.monotonic()))

    def refresh(self) -> None:
        """Log what has changed."""
        now = {(each.model, each.dialect): each for each in self.failing()}
        for key, found in now.items():
            if key not in self._told:
                log.error(
                    "model_dialect_failing",
                    model=found.model,
                    dialect=found.dialect,
                    requests=found.requests,
                    for_s=round(found.seconds, 1),
                    error=found.error,
                    tenant=found.tenant,
                )
        for model, dialect in self._told - now.keys():
            log.warning("model_dialect_recovered", model=model, dialect=dialect)
        self._told = set(now)
