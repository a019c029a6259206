"""Logs: one JSON line for each request and for each event. No line has a prompt or a key (see `tracebacks`)."""

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import Processor

from gateway.core.http.addresses import source_of
from gateway.core.telemetry.log_throttle import LogThrottle
from gateway.core.telemetry.request_stats import RequestStats, log_table
from gateway.telemetry.log_stream import LogStream
from gateway.telemetry.tracebacks import escape, format_error, scrub, without_credentials

GATHER_SECONDS = 0.05

HELD_SECONDS = 10.0
"""Between two looks for requests without a valid key that no later one will tell of."""

MAX_VALUE = 2000
"""Characters of one value in a line."""

MAX_LISTED = 50
"""Members of a list in a line."""


def configure_logging(format: Literal["json", "text"], level: str, stream: LogStream) -> None:
    """Send structlog's and the standard library's records (uvicorn, asyncio) to `stream` in one format."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        # The default formatter of tracebacks prints every local variable.
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if format == "text"
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    errors: list[Processor] = [structlog.processors.ExceptionRenderer(format_error), _bound]
    severity = getattr(logging, level.upper())
    structlog.configure(
        processors=[*(p for p in shared if not isinstance(p, structlog.stdlib.ExtraAdder)), *errors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _scrub_foreign, *errors, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(severity)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line a probe is noise
    logging.getLogger("uvicorn.error").setLevel(max(severity, logging.WARNING))
    _log_uncaught_errors()


def _bound(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Bound every value, keep it in one line, and take out the passwords of URLs. `exception` is bounded before."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = escape(without_credentials(value[:MAX_VALUE]))
        elif isinstance(value, list):
            event[name] = [escape(without_credentials(str(each)[:MAX_VALUE])) for each in value[:MAX_LISTED]]
    return event


def _log_uncaught_errors() -> None:
    """Log errors that end a process or a thread, or that cannot be raised, as lines like any other."""
    log = structlog.get_logger("fleetgate")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("uncaught_exception", exc_info=error)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        log.error("uncaught_thread_exception", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        log.error("unraisable_exception", exc_info=args.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable


def _scrub_foreign(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Scrub messages of libraries: asyncio quotes callbacks with their arguments, uvicorn whole tracebacks."""
    event["event"] = scrub(str(event.get("event")), names=True)
    return event


_LEVELS = ("debug", "info", "warning", "error")


class RequestLog:
    """Writes a line for each request, at the level of its outcome. Requests without a valid key get one line a minute
    for each address, with their number, so that strangers cannot fill the disk; the last of a storm is told once its
    minute is over. Metrics count them all.

    Lines are gathered for `GATHER_SECONDS` and written together: one write each would be a tenth of what a request
    costs. `flush` writes the lines that wait.
    """

    def __init__(
        self,
        format: Literal["json", "text"],
        level: str,
        stream: LogStream,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`level`: requests below it are not logged."""
        self._clock = clock
        self._stream = stream
        self._left_out = frozenset(each for each in _LEVELS if _LEVELS.index(each) < _LEVELS.index(level))
        self._text = structlog.get_logger("fleetgate.request") if format == "text" else None
        self._ended: list[tuple[RequestStats, int]] = []
        self._strangers = LogThrottle(crowded=True)
        self._held: dict[str, RequestStats] = {}
        """By address, the last request without a valid key that has no line yet."""
        self._look: asyncio.TimerHandle | None = None
        """The next one for those, where there are any."""

    def request_ended(self, event: RequestStats) -> None:
        requests = 1
        if event.unauthenticated:
            source = source_of(event.address or "")
            requests = self._strangers.due(source, self._clock())
            if not requests:
                self._hold(source, event)
                return
            self._held.pop(source, None)
        self._log(event, requests)

    def close(self) -> None:
        """Write all that waits."""
        self._cancel_look()
        self._log_held(math.inf)
        self.flush()

    def tell_held(self) -> None:
        """Write the lines of addresses whose minute is over. Called every `HELD_SECONDS` while there are any."""
        self._cancel_look()
        self._log_held(self._clock())
        if self._held:
            self._look_again()

    def _look_again(self) -> None:
        self._look = asyncio.get_running_loop().call_later(HELD_SECONDS, self.tell_held)

    def _cancel_look(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _hold(self, source: str, event: RequestStats) -> None:
        if source in self._strangers:  # the crowd's number waits for its next line
            if self._look is None:
                self._look_again()
            self._held[source] = event

    def _log_held(self, now: float) -> None:
        for source, requests in self._strangers.overdue(now):
            event = self._held.pop(source, None)
            if event is not None:
                self._log(event, requests)
        for source in [each for each in self._held if each not in self._strangers]:
            del self._held[source]  # others have taken its place

    def _log(self, event: RequestStats, requests: int) -> None:
        if self._left_out and event.level in self._left_out:
            return
        if self._text is not None:
            getattr(self._text, event.level)("request", **log_fields(event, requests))
            return
        if not self._ended:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)
        self._ended.append((event, requests))

    def flush(self) -> None:
        """Write the lines that wait."""
        ended, self._ended = self._ended, []
        if ended:
            self._stream.write(_lines(ended))


def _lines(ended: Sequence[tuple[RequestStats, int]]) -> str:
    """One line of JSON for each. The second is formatted once for many lines: that takes longer than the JSON."""
    seconds: dict[int, str] = {}
    lines = []
    for event, requests in ended:
        second = int(event.at)
        written = seconds.get(second)
        if written is None:
            written = seconds[second] = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
        opening = (
            f'{{"event":"request","level":"{event.level}","timestamp":"{written}.{int(event.at % 1 * 1000):03d}+00:00",'
        )
        lines.append(opening + orjson.dumps(log_fields(event, requests)).decode().removeprefix("{"))
    return "\n".join([*lines, ""])


def log_fields(event: RequestStats, requests: int = 1) -> dict[str, object]:
    """The fields of a request's line, as `RequestStats` declares them."""
    kind: Any = type(event)
    line = log_table(kind).line(event)
    if event.error is not None:
        line["error"] = scrub(event.error)
    if event.unauthenticated:
        line["requests"] = requests
    return line
