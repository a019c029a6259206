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
from typing import Any, cast

import structlog
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.telemetry.request_trace import RequestTrace
from gateway.core.telemetry.spans import SpanFacts, Value, spans_of

log = structlog.get_logger("fleetgate.traces")

MOST_WORDS = 300
"""Characters of an error that are logged."""

BATCH, SHARE = 128, 8
"""Requests that wake the export's thread, and the share of a small queue that they may be: one has about four spans."""

MOST_SPANS = 512
"""Spans in one export."""

KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_RECORDED = SpanContext(1, 1, False, _SAMPLED)
"""Of what is in the processor's queue: it takes nothing that is not recorded."""

_UNSET = Status(StatusCode.UNSET)


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


class _UnsentRequest(ReadableSpan):
    """A request that waits for its export. Its spans are made of `facts` in the export's thread."""

    def __init__(self, facts: list[SpanFacts], trace: int, state: bytes, resource: Resource) -> None:
        super().__init__("request", context=_RECORDED, resource=resource)
        self.facts = facts
        self.trace = trace
        self.state = state


class _SpanMaker:
    """Makes OpenTelemetry's spans. The library's own tracer takes ten times as long, for spans that are under way."""

    def __init__(self, resource: Resource, scope: InstrumentationScope, limits: SpanLimits) -> None:
        self._resource = resource
        self._scope = scope
        self._most = limits.max_span_attributes
        self._longest = limits.max_span_attribute_length

    def spans_of(self, request: _UnsentRequest) -> list[ReadableSpan]:
        state = TraceState.from_header([request.state.decode("latin-1")]) if request.state else None
        return [self._span(facts, request.trace, state) for facts in request.facts]

    def _span(self, facts: SpanFacts, trace: int, state: TraceState | None) -> ReadableSpan:
        parent = None
        if facts.parent is not None:
            parent = SpanContext(trace, facts.parent, facts.kind == "server", _SAMPLED, state)
        return ReadableSpan(
            facts.name,
            context=SpanContext(trace, facts.span or random.getrandbits(64) or 1, False, _SAMPLED, state),
            parent=parent,
            resource=self._resource,
            attributes=self._bounded(facts.attributes),
            kind=KINDS[facts.kind],
            status=_UNSET if facts.error is None else Status(StatusCode.ERROR, facts.error),
            start_time=facts.began,
            end_time=max(facts.began, facts.ended),
            instrumentation_scope=self._scope,
        )

    def _bounded(self, attributes: Mapping[str, Value]) -> Mapping[str, Value]:
        """Within the limits of `OTEL_ATTRIBUTE_*` and `OTEL_SPAN_ATTRIBUTE_*`."""
        if self._longest is None and (self._most is None or len(attributes) <= self._most):
            return attributes
        found: Any = BoundedAttributes(self._most, attributes, max_value_len=self._longest)
        return cast(Mapping[str, Value], found)


class _CountedExporter(SpanExporter):
    """Counts what is sent and what fails, and logs once that the collector is away and once that it is back. Called in
    the export's thread."""

    def __init__(self, inner: SpanExporter, maker: _SpanMaker) -> None:
        self._inner = inner
        self._maker = maker
        self._failing = False
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        facts = sum(len(request.facts) for request in spans if isinstance(request, _UnsentRequest))
        try:
            made = [
                span
                for request in spans
                if isinstance(request, _UnsentRequest)
                for span in self._maker.spans_of(request)
            ]
        except Exception as error:
            log.warning("trace_export_error", exc_info=error)
            return self._note(facts, SpanExportResult.FAILURE)
        done = SpanExportResult.SUCCESS
        for start in range(0, len(made), MOST_SPANS):
            done = self._send(made[start : start + MOST_SPANS])
        return done

    def _send(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            done = self._inner.export(spans)
        except Exception as error:
            log.warning("trace_export_error", exc_info=error)
            done = SpanExportResult.FAILURE
        return self._note(len(spans), done)

    def _note(self, count: int, done: SpanExportResult) -> SpanExportResult:
        if done is SpanExportResult.SUCCESS:
            self.exported += count
            if self._failing:
                log.info("trace_export_recovered", failed=self.failed)
        else:
            self.failed += count
            if not self._failing:
                log.warning("trace_export_failed", spans=count, remedy="see telemetry.traces.endpoint")
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
        self._resource = Resource.get_empty()
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
        # Variables stand over these: Resource.create reads OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.
        facts = {
            "service.name": settings.service,
            "service.version": settings.version,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
        given = Resource.create().attributes
        own = {name: value for name, value in facts.items() if name not in given or name == "service.name"}
        self._resource = Resource.create(own)
        scope = InstrumentationScope("fleetgate", settings.version)
        self._exporter = _CountedExporter(exporter, _SpanMaker(self._resource, scope, SpanLimits()))
        batch = min(BATCH, max(1, settings.queue // SHARE))
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=settings.queue, max_export_batch_size=batch)

    @property
    def counts(self) -> dict[str, int]:
        """Spans by what became of them."""
        exporter = self._exporter
        if exporter is None:
            return {}
        return {"exported": exporter.exported, "failed": exporter.failed, "dropped": self._dropped}

    @property
    def waiting(self) -> int:
        """Spans that are neither sent nor given up."""
        exporter = self._exporter
        return 0 if exporter is None else self._taken - exporter.exported - exporter.failed

    def export(self, stats: RequestStats, trace: RequestTrace) -> None:
        """Hand a request that has ended to the thread that exports."""
        exporter, processor = self._exporter, self._processor
        if exporter is None or processor is None:
            return
        spans = spans_of(stats, trace)
        if self.waiting + len(spans) > self._settings.queue:
            self._dropped += len(spans)  # all or none: half a trace misleads
            return
        self._taken += len(spans)
        processor.on_end(_UnsentRequest(spans, trace.trace, trace.state, self._resource))

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
