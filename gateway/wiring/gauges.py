"""The gauges: metrics that are read from the parts of a gateway, at every scrape and every few seconds."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from gateway.admission.admission import Admission
from gateway.core.memory import MemoryBudget
from gateway.fleet.fleet import Fleet
from gateway.fleet.model_watch import ModelWatch
from gateway.pressure.thinking_pressure import ThinkingPressure
from gateway.redis.client import RedisClient
from gateway.redis.presence import Presence
from gateway.telemetry.log_stream import LogStream
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.process_facts import read_process_facts
from gateway.telemetry.shortages import ResourceShortages
from gateway.upstream.relay import Relay
from gateway.usage.ledger import Ledger

if TYPE_CHECKING:
    from gateway.telemetry.trace_export import TraceExport

log = structlog.get_logger("fleetgate")

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """The parts that are read. The admission has the limiter, once there is one."""

    metrics: Metrics
    fleet: Fleet
    models: ModelWatch
    relay: Relay
    admission: Admission
    memory: MemoryBudget
    shortages: ResourceShortages
    presence: Presence
    redis: RedisClient | None
    ledger: Ledger | None
    log_stream: LogStream
    pressure: ThinkingPressure
    traces: "TraceExport | None"

    async def run(self) -> None:
        """Refresh every `SECONDS`, for ever."""
        while True:
            try:
                self.refresh()
            except Exception:
                log.exception("background_task_failed", task="gauges")
            await asyncio.sleep(SECONDS)

    def refresh(self) -> None:
        """Set all gauges. Idle connections to nodes are closed where clients cannot connect for want of files."""
        metrics, limiter = self.metrics, self.admission.limiter
        if self.ledger is not None:
            metrics.ledger_state(self.ledger.waiting, self.ledger.dropped)
        metrics.process_state(read_process_facts())
        metrics.log_state(self.log_stream.failed, self.log_stream.disk())
        if self.traces is not None:
            metrics.traces_state(self.traces.counts)
        metrics.queue_state(self.admission.queue.facts())
        metrics.memory_state(self.memory.held, self.memory.limit)
        if self.shortages.found_now("accepting connections"):
            self.relay.pools.drop_idle()
        metrics.shortages_state(self.shortages.counts)
        metrics.pressure_state(self.pressure.factors)
        metrics.models_state({each.name: each.ready for each in self.models.states()})
        metrics.failing_state([(each.model, each.dialect) for each in self.models.dialects.failing()])
        metrics.fleet_state(self.relay.open_exchanges, [node.facts for node in self.fleet.nodes])
        if self.redis is not None:
            metrics.redis_state(self.redis.up, self.redis.outages, self.presence.live)
            metrics.redis_refusals(self.redis.refusals.count, len(self.redis.refusals.standing))
        if limiter is not None:
            metrics.limits_left(limiter.shares_left())
            metrics.limits_state(len(limiter.live), limiter.waiting, limiter.dropped, limiter.failovers)
