"""Sends the spans of recorded requests to a collector, by OpenTelemetry's library: OTLP over HTTP, in a thread of its
own.

Only imported where traces are on: the library is an optional extra (`fleetgate[otel]`). What the collector does not
take in time is dropped and counted; no request waits for it.
"""

import asyncio
import logging
import os
import random
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation import set_span_in_context

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.telemetry.request_trace import RequestTrace
from gateway.core.telemetry.spans import SpanFacts, spans_of

log = structlog.get_logger("fleetgate.traces")

MOST_WORDS = 300
"""Characters of an error that are logged."""

KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """`endpoint`: the collector's URL for traces; None: as `OTEL_EXPORTER_OTLP_*` says. `timeout` of one export and
    `flush` at the end, in seconds. `queue`: spans that wait at most."""

    endpoint: str | None
    headers: Mapping[str, str]
    timeout: float | None
    queue: int
    flush: float
    service: str
    version: str


class _GivenIds(IdGenerator):
    """The ids of the next span, where they are known: nodes were told those of attempts before their spans were
    made."""

    def __init__(self) -> None:
        self.trace = 0
        self.span: int | None = None

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        given, self.span = self.span, None
        return given or random.getrandbits(64) or 1


class _CountedExporter(SpanExporter):
    """Counts what is sent and what fails, and logs once that the collector is away and once that it is back. Called in
    the export's thread."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            done = self._inner.export(spans)
        except Exception as error:
            log.warning("trace_export_error", exc_info=error)
            done = SpanExportResult.FAILURE
        if done is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._failing:
                log.info("trace_export_recovered", failed=self.failed)
        else:
            self.failed += len(spans)
            if not self._failing:
                log.warning("trace_export_failed", spans=len(spans), remedy="see telemetry.traces.endpoint")
        self._failing = done is not SpanExportResult.SUCCESS
        return done

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class TraceExport:
    """The spans of one process. Its thread begins with `start`, in the process that serves."""

    def __init__(self, settings: ExportSettings) -> None:
        self._settings = settings
        self._ids = _GivenIds()
        self._provider: TracerProvider | None = None
        self._exporter: _CountedExporter | None = None
        self._processor: BatchSpanProcessor | None = None
        self._taken = 0
        self._dropped = 0

    def start(self) -> None:
        """Begin the thread that exports. OpenTelemetry refuses some values of its variables: then nothing is recorded,
        and requests go on."""
        try:
            self._start()
        except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
            if self._processor is not None:
                self._processor.shutdown()  # type: ignore[no-untyped-call]
            self._exporter = self._processor = None
            words = f"{type(error).__name__}: {error}"[:MOST_WORDS]
            log.error("traces_unavailable", error=words, remedy="mend or unset the variables OTEL_*")

    def _start(self) -> None:
        # The exporter logs each retry; `_CountedExporter` says the same once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        settings = self._settings
        exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers=dict(settings.headers) or None,
            timeout=settings.timeout,
        )
        self._exporter = _CountedExporter(exporter)
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=settings.queue, max_export_batch_size=min(512, settings.queue)
        )
        # Variables stand over these: Resource.create reads OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.
        facts = {
            "service.name": settings.service,
            "service.version": settings.version,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
        given = Resource.create().attributes
        own = {name: value for name, value in facts.items() if name not in given or name == "service.name"}
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(own), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("fleetgate", settings.version)

    @property
    def counts(self) -> dict[str, int]:
        """Spans by what became of them."""
        exporter = self._exporter
        if exporter is None:
            return {}
        return {"exported": exporter.exported, "failed": exporter.failed, "dropped": self._dropped}

    def export(self, stats: RequestStats, trace: RequestTrace) -> None:
        """Make the spans of a request that has ended."""
        exporter = self._exporter
        if exporter is None:
            return
        spans = spans_of(stats, trace)
        if self._taken - exporter.exported - exporter.failed + len(spans) > self._settings.queue:
            self._dropped += len(spans)  # all or none: half a trace misleads
            return
        self._taken += len(spans)
        state = TraceState.from_header([trace.state.decode("latin-1")]) if trace.state else None
        for facts in spans:
            self._make(facts, trace.trace, state)

    def _make(self, facts: SpanFacts, trace: int, state: TraceState | None) -> None:
        context = None
        if facts.parent is not None:
            parent = SpanContext(trace, facts.parent, True, TraceFlags(TraceFlags.SAMPLED), state)
            context = set_span_in_context(NonRecordingSpan(parent))
        self._ids.trace, self._ids.span = trace, facts.span
        attributes: Any = facts.attributes
        span = self._tracer.start_span(
            facts.name, context, KINDS[facts.kind], attributes=attributes, start_time=facts.began
        )
        if facts.error is not None:
            span.set_status(Status(StatusCode.ERROR, facts.error))
        span.end(max(facts.began, facts.ended))

    async def stop(self) -> None:
        """Send what waits, for `flush` seconds at most, and end the thread."""
        processor, exporter = self._processor, self._exporter
        if processor is None or exporter is None:
            return
        self._processor = self._exporter = None
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            processor.shutdown()  # type: ignore[no-untyped-call]
            loop.call_soon_threadsafe(done.set)

        # A daemon: the process may end although a collector holds on to its last export.
        threading.Thread(target=shut_down, name="trace export's end", daemon=True).start()
        try:
            async with asyncio.timeout(self._settings.flush):
                await done.wait()
        except TimeoutError:
            exporter.shutdown()  # the export that is under way fails soon, those after it at once
            log.warning("traces_lost", spans=self._taken - exporter.exported - exporter.failed)
