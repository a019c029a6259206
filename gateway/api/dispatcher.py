"""The front door: which requests are the data plane's, and how each of them begins.

Its paths are found in one dictionary; what is not found there (the small routes, and what does not exist) is
FastAPI's, by way of ASGI.
"""

from gateway.aio.inline_task import InlineTask
from gateway.api.body import RequestBounds
from gateway.api.call import ClientCall
from gateway.api.cycle import Connection
from gateway.api.errors import method_not_allowed
from gateway.api.middleware import Middleware
from gateway.api.request_head import Endpoint, RequestHead
from gateway.core.dialects import DIALECTS, StoredResponses
from gateway.pipeline import Pipeline

_STORED = "/v1/responses/"


class Dispatcher:
    """What a connection hands its requests to."""

    def __init__(self, pipeline: Pipeline, bounds: RequestBounds, middleware: Middleware) -> None:
        self._pipeline = pipeline
        self._bounds = bounds
        self.middleware = middleware
        self._routes = {dialect.path: Endpoint(dialect) for dialect in DIALECTS}
        self._responses = StoredResponses()

    def find(self, head: RequestHead) -> Endpoint | None:
        """The endpoint that a request is for; None where it is not the data plane's."""
        route = self._routes.get(head.path)
        if route is None and head.path.startswith(_STORED):
            route = self._stored(head.path)
        return None if route is not None and self.middleware.asks_first(head) else route

    def open(self, connection: Connection, route: Endpoint, head: RequestHead, body: bytes | None) -> ClientCall:
        """The request for `route` that has come on `connection`; `body` is None where it is still to come."""
        call = ClientCall(connection, head, body, route, self._bounds, self._begin)
        if self.middleware.tell:
            call.add_headers(self.middleware.headers(head.fields))
        if self._pipeline.leaving:
            call.keep_alive = False
        return call

    def _begin(self, call: ClientCall) -> None:
        route, head, connection = call.route, call.head, call.connection
        method = "GET" if head.method == "HEAD" else head.method
        if method != route.method:
            call.fail(method_not_allowed(head.method, head.path, (route.method,)))
            call.close()
            return
        if route.stored is None:
            coroutine = self._pipeline.answer(call, route.dialect)
        else:
            response_id, suffix = route.stored
            query = f"?{head.query.decode('latin-1')}" if head.query else ""
            coroutine = self._pipeline.stored(call, route.dialect, method, response_id, suffix + query)
        InlineTask(coroutine, connection.loop, connection.tasks, call.close).start()

    def _stored(self, path: str) -> Endpoint | None:
        """The endpoint of a path below /v1/responses/: an id, and behind it nothing or `/cancel`."""
        response_id, slash, action = path.removeprefix(_STORED).partition("/")
        if not response_id or (slash and action != "cancel") or not response_id.replace("_", "").isalnum():
            return None
        return Endpoint(self._responses, "POST" if action else "GET", (response_id, f"{slash}{action}"))
