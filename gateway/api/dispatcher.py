"""The dispatcher: which requests are the data plane's, and how each of them begins.

The data plane's paths are found in one dictionary. All other paths (the small routes, and paths that do not exist) are
the ASGI application's.
"""

from collections.abc import Callable

from gateway.aio.inline_task import InlineTask
from gateway.api.body import RequestBounds
from gateway.api.client_request import ClientRequest
from gateway.api.errors import method_not_allowed
from gateway.api.middleware import Middleware
from gateway.api.request_head import Endpoint, RequestHead
from gateway.api.server_connection import ServerConnection
from gateway.core.dialects import DIALECTS, StoredResponses
from gateway.pipeline import Pipeline

_STORED = "/v1/responses/"
PLAYGROUND = "/console/playground"
"""In front of the endpoints that the console's playground asks, on the admin listener."""
_ACTIONS = {"": ("GET", "DELETE"), "/cancel": ("POST",), "/input_items": ("GET",)}
"""What may follow the id of a response in a path, and the methods that it takes."""


class Dispatcher:
    """A `RequestHandler`: connections hand their requests to it."""

    def __init__(self, pipeline: Pipeline, bounds: RequestBounds, middleware: Middleware) -> None:
        self._pipeline = pipeline
        self._bounds = bounds
        self.middleware = middleware
        self.may_play: Callable[[RequestHead], bool] = _nobody
        """Whether a request of the admin listener comes from the playground of somebody who has signed in."""
        self._endpoints = {path: Endpoint(dialect) for dialect in DIALECTS for path in (dialect.path, *dialect.also_at)}
        self._responses = StoredResponses()

    def find(self, head: RequestHead) -> Endpoint | None:
        """The endpoint that a request is for; None where it is not the data plane's."""
        endpoint = self._endpoints.get(head.path)
        if endpoint is None and head.path.startswith(_STORED):
            endpoint = self._stored(head.path)
        return None if endpoint is not None and self.middleware.is_preflight(head) else endpoint

    def find_played(self, head: RequestHead) -> Endpoint | None:
        """The endpoint that a request of the console's playground is for; None where it is none, or may not come."""
        if not head.path.startswith(PLAYGROUND) or not self.may_play(head):
            return None
        return self._endpoints.get(head.path.removeprefix(PLAYGROUND))

    def open(
        self, connection: ServerConnection, endpoint: Endpoint, head: RequestHead, body: bytes | None
    ) -> ClientRequest:
        """The request for `endpoint` that has come on `connection`; `body` is None where it is still to come."""
        request = ClientRequest(connection, head, body, endpoint, self._bounds, self._begin)
        if self.middleware.adds_headers:
            request.add_headers(self.middleware.headers(head.fields))
        if self._pipeline.leaving:
            request.keep_alive = False
        return request

    def _begin(self, request: ClientRequest) -> None:
        endpoint, head, connection = request.endpoint, request.head, request.connection
        method = "GET" if head.method == "HEAD" else head.method
        if method not in endpoint.methods:
            request.fail(method_not_allowed(head.method, head.path, endpoint.methods))
            request.close()
            return
        if endpoint.stored is None:
            coroutine = self._pipeline.answer(request, endpoint.dialect)
        else:
            response_id, suffix = endpoint.stored
            query = f"?{head.query.decode('latin-1')}" if head.query else ""
            coroutine = self._pipeline.stored(request, endpoint.dialect, method, response_id, suffix + query)
        InlineTask(coroutine, connection.loop, connection.tasks, request.close).start()

    def _stored(self, path: str) -> Endpoint | None:
        """The endpoint of a path below /v1/responses/: an id, and behind it nothing or an action."""
        response_id, slash, action = path.removeprefix(_STORED).partition("/")
        methods = _ACTIONS.get(f"{slash}{action}")
        if methods is None or not response_id or not response_id.replace("_", "").isalnum():
            return None
        return Endpoint(self._responses, methods, (response_id, f"{slash}{action}"))


def _nobody(_: RequestHead) -> bool:
    return False
