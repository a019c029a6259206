"""Logs: one JSON line a request, one a notable event. Never a prompt, never a key."""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

from gateway.core.events import RequestEnded


def configure_logging(format: Literal["json", "text"], level: str) -> None:
    """Send structlog's and the standard library's records (uvicorn, asyncio) to stderr in one format."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if format == "text"
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    errors: list[Processor] = [] if format == "text" else [structlog.processors.format_exc_info]
    severity = getattr(logging, level.upper())
    structlog.configure(
        processors=[*(p for p in shared if not isinstance(p, structlog.stdlib.ExtraAdder)), *errors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(severity)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line a probe is noise
    logging.getLogger("uvicorn.error").setLevel(max(severity, logging.WARNING))


class RequestLog:
    """Writes the line of each request."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("fleetgate.request")

    def request_ended(self, event: RequestEnded) -> None:
        """Times are written in milliseconds."""
        usage = event.usage
        self._log.info(
            "request",
            request_id=event.request_id,
            dialect=event.dialect,
            tenant=event.tenant,
            model=event.model,
            node=event.node,
            stream=event.stream,
            status=event.status,
            ending=event.ending,
            attempts=event.attempts,
            request_bytes=event.request_bytes,
            input_tokens=usage.input if usage else None,
            cached_tokens=usage.cached if usage else None,
            output_tokens=usage.output if usage else None,
            reasoning_tokens=usage.reasoning if usage else None,
            ttft_ms=None if event.ttft is None else round(event.ttft * 1000, 1),
            duration_ms=round(event.duration * 1000, 1),
        )
