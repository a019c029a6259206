"""The front door: which endpoint a path is, and an answer for everything that goes wrong on the way.

Data-plane paths are found in one dictionary before FastAPI's router is asked (it costs about 45 µs a request);
everything else, the small routes and what is not there, is FastAPI's.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway.api.call import ClientCall
from gateway.api.errors import method_not_allowed
from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.errors import GatewayError
from gateway.pipeline import Pipeline

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
_STORED = "/v1/responses/"


@dataclass(slots=True)
class Bounds:
    """What is accepted of a client: bytes of a body and seconds for it to arrive. A reload replaces the values."""

    max_body: int
    body_timeout: float


class Front:
    """The public ASGI application."""

    def __init__(self, pipeline: Pipeline, bounds: Bounds, rest: AsgiApp) -> None:
        """`rest` is the FastAPI application behind the data plane."""
        self._pipeline = pipeline
        self._bounds = bounds
        self._rest = rest
        self._dialects = {dialect.path: dialect for dialect in DIALECTS}
        self._responses = self._dialects[_STORED.rstrip("/")]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        dialect = self._dialects.get(path)
        if dialect is not None:
            await self._serve(scope, receive, send, dialect, None)
        elif path.startswith(_STORED) and _stored_id(path) is not None:
            await self._serve(scope, receive, send, self._responses, _stored_id(path))
        else:
            await self._rest(scope, receive, send)

    async def _serve(
        self, scope: Any, receive: Any, send: Any, dialect: Dialect, stored: tuple[str, str] | None
    ) -> None:
        call = ClientCall(scope, receive, send, dialect, self._bounds.max_body, self._bounds.body_timeout)
        try:
            if stored is None:
                self._check_method(scope, "POST")
                await self._pipeline.answer(call, dialect)
            else:
                self._check_method(scope, "POST" if stored[1] else "GET")
                query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
                await self._pipeline.stored(call, dialect, scope["method"], stored[0], stored[1] + query)
        except GatewayError as error:
            call.fail(error)
        finally:
            await call.close()

    def _check_method(self, scope: Any, allowed: str) -> None:
        if scope["method"] != allowed:
            raise method_not_allowed(scope["method"], scope["path"], (allowed,))


def _stored_id(path: str) -> tuple[str, str] | None:
    """The response id in a path below /v1/responses/ and what follows it: nothing or `/cancel`."""
    response_id, slash, action = path.removeprefix(_STORED).partition("/")
    if not response_id or (slash and action != "cancel") or not response_id.replace("_", "").isalnum():
        return None
    return response_id, f"{slash}{action}"
