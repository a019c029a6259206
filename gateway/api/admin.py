"""The second listener: metrics and control. Ordinary FastAPI with typed models, so /docs on it is right."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from fastapi import APIRouter, Depends, FastAPI, Response
from pydantic import BaseModel

from gateway.access.audit import Audit, Deed
from gateway.api.admin_access import AdminAccess, Who
from gateway.api.admin_tenants import explain_redis
from gateway.api.public import add_health
from gateway.fleet.fleet import Fleet
from gateway.pipeline import Pipeline
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics


class NodeStatus(BaseModel):
    """A node as the answering gateway process sees it."""

    name: str
    url: str
    ready: bool
    models: list[str]
    in_flight: int
    last_error: str | None


class ReloadResult(BaseModel):
    """What a reload did. Where `ok` is false the old configuration stays in force and `problems` says why."""

    ok: bool
    problems: list[str] = []
    needs_restart: list[str] = []


class RouteGroup(Protocol):
    """Routes about one thing."""

    def add_to(self, router: APIRouter) -> None: ...


def build_admin(
    pipeline: Pipeline,
    fleet: Fleet,
    metrics: Metrics,
    access: AdminAccess,
    audit: Audit,
    open_metrics: bool,
    refresh: Callable[[], None],
    reload: Callable[[], Awaitable[ReloadResult]],
    *groups: RouteGroup,
) -> FastAPI:
    """The admin application. `refresh` brings the gauges up to date; `reload` re-reads the configuration.

    `groups` are further routes, below /admin/.
    """
    app = FastAPI(title="fleetgate admin", redirect_slashes=False)
    guarded = [Depends(access)]
    add_health(app, pipeline, fleet)

    @app.get("/metrics", dependencies=[] if open_metrics else guarded)
    async def prometheus() -> Response:
        """All processes of this gateway, in Prometheus' text format."""
        refresh()
        return Response(metrics.page(), headers={"content-type": CONTENT_TYPE})

    @app.get("/admin/nodes", dependencies=guarded)
    async def list_nodes() -> list[NodeStatus]:
        """The fleet as this process sees it."""
        return [
            NodeStatus(
                name=node.name,
                url=node.spec.url,
                ready=node.ready,
                models=sorted(node.cards),
                in_flight=node.in_flight,
                last_error=node.last_error,
            )
            for node in fleet.nodes
        ]

    @app.post("/admin/reload", dependencies=guarded)
    async def reload_config(response: Response, who: Who) -> ReloadResult:
        """Read the configuration again, in every process. Open streams are not touched."""
        result = await reload()
        await audit.note(Deed(who, "config reloaded", "config", {"ok": result.ok}))
        if not result.ok:
            response.status_code = 400
        return result

    router = APIRouter(prefix="/admin", dependencies=guarded)
    for group in groups:
        group.add_to(router)
    app.include_router(router)
    explain_redis(app)
    return app
