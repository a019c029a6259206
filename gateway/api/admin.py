"""The second listener: metrics and control. Ordinary FastAPI with typed models, so /docs on it is right."""

from collections.abc import Callable
from typing import Protocol

from fastapi import APIRouter, Depends, FastAPI, Response

from gateway.api.admin_access import AdminAccess
from gateway.api.admin_tenants import explain_redis
from gateway.api.public import add_health
from gateway.fleet.fleet import Fleet
from gateway.pipeline import Pipeline
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics


class MetricsPage:
    """What Prometheus scrapes. `refresh` brings the gauges up to date; `is_open`: no token is asked for."""

    def __init__(self, metrics: Metrics, refresh: Callable[[], None], is_open: bool) -> None:
        self._metrics = metrics
        self._refresh = refresh
        self.is_open = is_open

    async def show(self) -> Response:
        """All processes of this gateway, in Prometheus' text format."""
        self._refresh()
        return Response(self._metrics.page(), headers={"content-type": CONTENT_TYPE})


class RouteGroup(Protocol):
    """Routes about one thing, below /admin/."""

    def add_to(self, router: APIRouter) -> None: ...


def build_admin(
    pipeline: Pipeline, fleet: Fleet, access: AdminAccess, page: MetricsPage, *groups: RouteGroup
) -> FastAPI:
    """The admin application."""
    app = FastAPI(title="fleetgate admin", redirect_slashes=False)
    guarded = [Depends(access)]
    add_health(app, pipeline, fleet)
    app.get("/metrics", dependencies=[] if page.is_open else guarded)(page.show)
    router = APIRouter(prefix="/admin", dependencies=guarded)
    for group in groups:
        group.add_to(router)
    app.include_router(router)
    explain_redis(app)
    return app
