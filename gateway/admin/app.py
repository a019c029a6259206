"""The second listener: metrics and control. Ordinary FastAPI with typed models, so /openapi.json on it is right.

FastAPI's own pages for people are off: they run scripts that come from elsewhere. `docs` has one that does not.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from gateway.admin.auth import SECURITY_HEADERS, AdminAccess
from gateway.admin.docs import add_docs
from gateway.admin.problems import ANSWERS, AdminError, explain_errors, with_problem
from gateway.api.public import add_health
from gateway.core.bodies import parse_body
from gateway.core.errors import InvalidRequest
from gateway.fleet.fleet import Fleet
from gateway.pipeline import Pipeline
from gateway.telemetry.metrics import Metrics

API_VERSION = "1"
"""Of the admin API, not of the gateway, which strangers are not told: `/metrics` has that."""

_DESCRIPTION = """What operators ask of a gateway, and change in it.

The token is `admin.token`, or one of `admin.tokens`: give it to **Authorize**. Where none is configured, none is asked
for.

Every error has one shape, `Problem`: `detail` says in a sentence what is wrong and what to do, `code` is for programs,
and `problems` has each field at fault.
"""
_HEALTH = "For load balancers and supervisors; they need no token."
_METRICS = "For Prometheus."

BEARER = Security(HTTPBearer(scheme_name="admin token", auto_error=False, description="An admin token."))
"""Says in /openapi.json that a token is needed, for what is made of it; `AdminAccess` checks it."""


class MetricsPage:
    """What Prometheus scrapes. `refresh` brings all metrics up to date.

    The page of a thousand nodes and 200 tenants takes half a second, so it is made in a thread, one page at a time.
    """

    def __init__(self, metrics: Metrics, refresh: Callable[[], None]) -> None:
        self._metrics = metrics
        self._refresh = refresh
        self._one_at_a_time = asyncio.Lock()

    async def show(self, request: Request) -> Response:
        """The figures of all processes of this gateway: in OpenMetrics' format for those that accept it, else in
        Prometheus' text format. docs/telemetry.md lists them."""
        async with self._one_at_a_time:
            self._refresh()
            page, content_type = await asyncio.to_thread(self._metrics.encode, request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type, "vary": "accept"})


class _StrictRequest(Request):
    """Its JSON is read as clients' is: no key twice, no NaN, no half character, bounded nesting."""

    async def json(self) -> Any:
        try:
            return parse_body(await self.body())
        except InvalidRequest as error:
            raise AdminError(422, str(error), field=error.param) from None


class StrictRoute(APIRoute):
    """A route whose body is read strictly: of a key that stands twice nobody knows which value was meant."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class RouteGroup(Protocol):
    """Routes about one thing, below /admin/. `tag` is its name in /openapi.json, `about` says what they are for."""

    tag: ClassVar[str]
    about: ClassVar[str]

    def add_to(self, router: APIRouter) -> None: ...


def build_admin(
    pipeline: Pipeline, fleet: Fleet, access: AdminAccess, page: MetricsPage, *groups: RouteGroup
) -> FastAPI:
    """The admin application, `access` in front of all of it."""
    app = FastAPI(
        title="fleetgate admin",
        version=API_VERSION,
        description=_DESCRIPTION,
        openapi_tags=[{"name": "health", "description": _HEALTH}, {"name": "metrics", "description": _METRICS}]
        + [{"name": group.tag, "description": group.about} for group in groups],
        responses=ANSWERS,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(access.around)
    add_health(app, pipeline, fleet)
    add_docs(app)
    app.get("/metrics", tags=["metrics"], summary="Metrics", dependencies=[BEARER])(page.show)
    for group in groups:
        router = APIRouter(prefix="/admin", route_class=StrictRoute, tags=[group.tag], dependencies=[BEARER])
        group.add_to(router)
        app.include_router(router)
    explain_errors(app, SECURITY_HEADERS)
    written = app.openapi
    app.openapi = lambda: with_problem(written())  # type: ignore[method-assign]
    return app
