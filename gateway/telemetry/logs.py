"""Logs: one JSON line a request, one a notable event. Never a prompt, never a key."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import Processor

from gateway.core.events import RequestEnded
from gateway.telemetry.log_stream import LOG

GATHER_SECONDS = 0.05


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
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, LOG)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(LOG)
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
    """Writes the line of each request.

    Lines are gathered for `GATHER_SECONDS` and written together: a write for each would be a tenth of what a
    request costs. `flush` writes what is left.
    """

    def __init__(self, format: Literal["json", "text"]) -> None:
        self._text = structlog.get_logger("fleetgate.request") if format == "text" else None
        self._ended: list[RequestEnded] = []

    def request_ended(self, event: RequestEnded) -> None:
        if self._text is not None:
            self._text.info("request", **_fields(event))
            return
        if not self._ended:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)
        self._ended.append(event)

    def flush(self) -> None:
        """Write the lines that wait."""
        ended, self._ended = self._ended, []
        if ended:
            LOG.write(_lines(ended))


def _lines(ended: Sequence[RequestEnded]) -> str:
    """One line of JSON each. Python writes a time slower than orjson the whole line: so once for each second."""
    seconds: dict[int, str] = {}
    lines = []
    for event in ended:
        second = int(event.at)
        written = seconds.get(second)
        if written is None:
            written = seconds[second] = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
        opening = f'{{"event":"request","level":"info","timestamp":"{written}.{int(event.at % 1 * 1000):03d}+00:00",'
        lines.append(opening + orjson.dumps(_fields(event)).decode().removeprefix("{"))
    return "\n".join([*lines, ""])


def _fields(event: RequestEnded) -> dict[str, object]:
    """What is logged of a request. Times are in milliseconds."""
    usage = event.usage
    return {
        "request_id": event.request_id,
        "dialect": event.dialect,
        "tenant": event.tenant,
        "key": event.key,
        "model": event.model,
        "node": event.node,
        "stream": event.stream,
        "status": event.status,
        "ending": event.ending,
        "attempts": event.attempts,
        "request_bytes": event.request_bytes,
        "input_tokens": usage.input if usage else None,
        "cached_tokens": usage.cached if usage else None,
        "output_tokens": usage.output if usage else None,
        "reasoning_tokens": usage.reasoning if usage else None,
        "route": event.route,
        "expected_cached_tokens": event.expected_cached,
        "ttft_ms": None if event.ttft is None else round(event.ttft * 1000, 1),
        "duration_ms": round(event.duration * 1000, 1),
    }
