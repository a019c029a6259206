"""The second listener: metrics and control. Ordinary FastAPI with typed models, so /openapi.json on it is right.

FastAPI's pages for people (/docs, /redoc) are left out: they run scripts that come from elsewhere.
"""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from gateway.admin.auth import SECURITY_HEADERS, AdminAccess
from gateway.admin.tenants import explain_redis
from gateway.api.public import add_health
from gateway.core.bodies import parse_body
from gateway.core.errors import InvalidRequest
from gateway.core.json_text import dump
from gateway.fleet.fleet import Fleet
from gateway.pipeline import Pipeline
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics
from gateway.telemetry.process_facts import read_process_facts

BEARER = Security(HTTPBearer(auto_error=False, description="An admin token."))
"""Says in /openapi.json that a token is needed, for what is made of it; `AdminAccess` checks it."""


class MetricsPage:
    """What Prometheus scrapes. `refresh` brings the gauges up to date."""

    def __init__(self, metrics: Metrics, refresh: Callable[[], None]) -> None:
        self._metrics = metrics
        self._refresh = refresh

    async def show(self) -> Response:
        """All processes of this gateway, in Prometheus' text format."""
        self._refresh()
        return Response(self._metrics.page(), headers={"content-type": CONTENT_TYPE})


class _StrictRequest(Request):
    """Its JSON is read as clients' is: no key twice, no NaN, no half character, bounded nesting."""

    async def json(self) -> Any:
        try:
            return parse_body(await self.body())
        except InvalidRequest as error:
            raise HTTPException(422, str(error)) from None


class StrictRoute(APIRoute):
    """A route whose body is read strictly: of a key that stands twice nobody knows which value was meant."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class RouteGroup(Protocol):
    """Routes about one thing, below /admin/. `tag` is its name in /openapi.json."""

    tag: ClassVar[str]

    def add_to(self, router: APIRouter) -> None: ...


def build_admin(
    pipeline: Pipeline, fleet: Fleet, access: AdminAccess, page: MetricsPage, *groups: RouteGroup
) -> FastAPI:
    """The admin application, `access` in front of all of it."""
    app = FastAPI(
        title="fleetgate admin",
        version=read_process_facts().version,
        description="What operators ask of a gateway, and change in it. The token is `admin.token`, or one of "
        "`admin.tokens`.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(access.around)
    add_health(app, pipeline, fleet)
    app.get("/metrics", tags=["metrics"], dependencies=[BEARER])(page.show)
    for group in groups:
        router = APIRouter(prefix="/admin", route_class=StrictRoute, tags=[group.tag], dependencies=[BEARER])
        group.add_to(router)
        app.include_router(router)
    explain_redis(app)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        """FastAPI's own answer repeats what was sent: a secret, or what JSON cannot carry (NaN, half a character)."""
        found = [{name: item[name] for name in ("type", "loc", "msg")} for item in error.errors()]
        return Response(dump({"detail": found}), 422, media_type="application/json")

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        """Answered outside of `access`; the server logs it."""
        return JSONResponse({"detail": "Internal error: see the log."}, 500, SECURITY_HEADERS)

    return app
