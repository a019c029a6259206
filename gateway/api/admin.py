"""The second listener: metrics and control. Ordinary FastAPI with typed models, so /docs on it is right."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Response
from fastapi.exceptions import HTTPException
from pydantic import BaseModel

from gateway.api.public import add_health
from gateway.core.tenants import same_secret
from gateway.fleet.fleet import Fleet
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


class AdminAccess:
    """Checks the admin token, which may be absent on loopback."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, authorization: Annotated[str | None, Header()] = None) -> None:
        if self._token is None:
            return
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not same_secret(presented.strip().encode(), self._token):
            raise HTTPException(401, "Send 'Authorization: Bearer TOKEN' with the admin token.")


def build_admin(
    fleet: Fleet,
    metrics: Metrics,
    token: str | None,
    open_metrics: bool,
    refresh: Callable[[], None],
    reload: Callable[[], Awaitable[ReloadResult]],
) -> FastAPI:
    """The admin application. `refresh` brings the gauges up to date; `reload` re-reads the configuration."""
    app = FastAPI(title="fleetgate admin", redirect_slashes=False)
    access = Depends(AdminAccess(token))
    add_health(app, fleet)

    @app.get("/metrics", dependencies=[] if open_metrics else [access])
    async def prometheus() -> Response:
        """All processes of this gateway, in Prometheus' text format."""
        refresh()
        return Response(metrics.page(), headers={"content-type": CONTENT_TYPE})

    @app.get("/admin/nodes", dependencies=[access])
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

    @app.post("/admin/reload", dependencies=[access])
    async def reload_config(response: Response) -> ReloadResult:
        """Read the configuration again, in every process. Open streams are not touched."""
        result = await reload()
        if not result.ok:
            response.status_code = 400
        return result

    return app
