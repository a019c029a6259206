"""What must never be seen, whatever a client sends: an error of the gateway's own, an answer out of shape, a leak."""

import asyncio
import contextlib
import gc
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any

import structlog

from gateway.aio.inline_task import InlineTask
from gateway.api.client_request import ClientRequest
from gateway.limits.reservation import Reservation
from gateway.upstream.exchange import Exchange
from tests.support.gateways import RunningGateway, eventually
from tests.support.raw import Answer

_UNEXPECTED = ("_failed", "_exception", "_lost", "_refused")
_OF_CLIENTS = ("wrong_keys_throttled", "admin_tokens_throttled", "cross_site_request_refused")
"""What the gateway tells of clients that it refused."""

_OBJECTS = {"/v1/chat/completions": "chat.completion", "/v1/completions": "text_completion"}
_ENDS = ("message_stop", "response.completed", "response.incomplete", "response.failed", "error")


class Watch:
    """Collects what is logged as an error, and what the loop's exception handler is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._looked = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Listens to structlog, to the standard library's loggers and to the running loop."""
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._hear  # type: ignore[method-assign]
        root = logging.getLogger()
        before = structlog.get_config()
        root.addHandler(handler)
        structlog.configure(processors=[structlog.processors.format_exc_info, self._process])
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.seen.append(f"loop: {context!r}"))
        try:
            yield
        finally:
            loop.set_exception_handler(None)
            root.removeHandler(handler)
            structlog.configure(**before)

    def new(self) -> list[str]:
        """What was seen since this was asked last."""
        found, self._looked = self.seen[self._looked :], len(self.seen)
        return found

    def _process(self, _: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        name = str(event.get("event"))
        unexpected = name.endswith(_UNEXPECTED) and name not in _OF_CLIENTS
        if "exception" in event or method == "error" or unexpected:
            self.seen.append(f"{name}: {event.get('reason', '')} {event.get('exception', '')}")
        raise structlog.DropEvent

    def _hear(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or not record.name.startswith("uvicorn"):  # it warns of what is no HTTP
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            self.seen.append(f"{record.name}: {record.getMessage()} {trace}")


def fault_of(path: str, got: Answer) -> str | None:
    """What is wrong with an answer to a request at `path`; None where nothing is."""
    if got.status >= 500 or b"internal_error" in got.body:
        return f"status {got.status}: {got.body[:300]!r}"
    try:
        if got.headers.get("content-type", "").startswith("text/event-stream"):
            return _fault_of_events(got.body)
        body = json.loads(got.body)
    except ValueError as error:
        return f"not JSON ({error}): {got.body[:300]!r}"
    if got.status >= 400:
        return _fault_of_error(path, got, body)
    wanted = _OBJECTS.get(path)
    if not isinstance(body, dict) or (wanted is not None and body.get("object") != wanted):
        return f"out of shape: {got.body[:300]!r}"
    return None


def _fault_of_error(path: str, got: Answer, body: Any) -> str | None:
    told: Any = body if isinstance(body, dict) else {}
    error = told.get("error")
    message = error.get("message") if isinstance(error, dict) and isinstance(error.get("type"), str) else None
    if not isinstance(message, str) or not message or (path.startswith("/v1/messages") and told.get("type") != "error"):
        return f"an error out of shape: {got.body[:300]!r}"
    if len(got.body) > 20_000:
        return f"an error of {len(got.body)} bytes: {got.body[:300]!r}"
    return next((f"insides: {got.body[:300]!r}" for word in ("Traceback", 'File "') if word in message), None)


def _fault_of_events(stream: bytes) -> str | None:
    last = ""
    for event in stream.split(b"\n\n"):
        data = b"".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
        if data == b"[DONE]":
            last = "[DONE]"
        elif data:
            told = json.loads(data)
            last = "error" if "error" in told else str(told.get("type", ""))
    return None if last == "[DONE]" or last in _ENDS else f"a stream without its end: {stream[-300:]!r}"


def _none(count: Callable[[], int]) -> bool:
    return count() == 0


async def leaks(gateway: RunningGateway) -> list[str]:
    """What is still held once all clients are gone."""
    app = gateway.app
    held: dict[str, Callable[[], int]] = {
        "reservations": lambda: len(app.limiter.live) if app.limiter is not None else 0,
        "exchanges": lambda: app.relay.open_exchanges,
        "leases": lambda: sum(len(node.leases) for node in app.fleet.nodes),
        "connections": lambda: len(gateway.server.server_state.connections),
        "stories": lambda: len(gateway.server.server_state.tasks),
    }
    found = []
    for name, count in held.items():
        try:
            await eventually(partial(_none, count), 15)
        except TimeoutError:
            found.append(f"{count()} {name} are held at the end")
    gc.collect()
    kinds = (ClientRequest, InlineTask, Exchange, Reservation)
    kept = Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in kinds)
    return found + [f"{count} {name} live at the end" for name, count in kept.items()]
