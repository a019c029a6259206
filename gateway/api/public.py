"""The small public routes: models, health and readiness, and 404 or 405 for all other paths.

Models are listed in OpenAI's format, or in Anthropic's for a client that says which version of that it speaks.
"""

import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.api.errors import id_headers, method_not_allowed, unknown_path, whole_answer
from gateway.api.middleware import address_of
from gateway.api.model_pages import OfferedModel, anthropic_page, anthropic_view, openai_view, read_page_request
from gateway.api.request_head import request_id_of
from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.errors import GatewayError
from gateway.core.models import model_not_found
from gateway.fleet.fleet import Fleet
from gateway.pipeline import Pipeline

_JSON = "application/json"


def build_public(pipeline: Pipeline, fleet: Fleet) -> FastAPI:
    """The FastAPI application behind `Dispatcher`."""
    app = FastAPI(title="fleetgate", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    add_health(app, pipeline, fleet)

    @app.get("/v1/models")
    async def list_models(request: Request) -> Response:
        """The models that the caller may use, by name, in pages for Anthropic's clients."""
        models = await _offered(request, pipeline, fleet)
        if not _is_anthropic(request):
            return _answer(request, {"object": "list", "data": [openai_view(model) for model in models]})
        return _answer(request, anthropic_page(models, read_page_request(request.query_params.multi_items())))

    @app.get("/v1/models/{name:path}")
    async def show_model(request: Request, name: str) -> Response:
        view = anthropic_view if _is_anthropic(request) else openai_view
        for model in await _offered(request, pipeline, fleet):
            if model.name == name:
                return _answer(request, view(model))
        raise model_not_found(name)

    @app.exception_handler(GatewayError)
    async def refused(request: Request, error: GatewayError) -> Response:
        return _error(request, error)

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> Response:
        """The router's refusals: an unknown path, or a method that is not allowed on it."""
        path = request.url.path
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "GET")
            return _error(request, method_not_allowed(request.method, path, allowed.split(", ")))
        return _error(request, unknown_path(path))

    return app


def add_health(app: FastAPI, pipeline: Pipeline, fleet: Fleet) -> None:
    """`/health`: the process answers. `/ready`: it stays, and a model can be served (`?model=` for one).

    `?without_nodes_after=SECONDS`: so long after the start it is ready without a node too. Clients then get its errors,
    not those of a load balancer that has nobody to send them to.
    """
    started = time.monotonic()

    @app.get("/health", tags=["health"])
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", tags=["health"])
    async def ready(
        model: Annotated[str | None, Query(description="Only whether this model can be served.")] = None,
        without_nodes_after: Annotated[
            float | None,
            Query(ge=0, description="Seconds after its start from which a gateway without nodes is ready."),
        ] = None,
    ) -> JSONResponse:
        """A request can be served: a node is ready, and this gateway is not shutting down. 503 where not."""
        name = pipeline.settings.models.on_nodes(model) if model else None
        status = "shutting down" if pipeline.leaving else "ready" if fleet.serves(name) else "no node is ready"
        body: dict[str, Any] = {"status": status, "models": sorted(fleet.served)}
        waited = without_nodes_after is not None and time.monotonic() - started >= without_nodes_after
        if status == "no node is ready":
            body["detail"] = _why_not(name, len(fleet.nodes_of(name)))
            return JSONResponse(body, status_code=200 if waited else 503)
        return JSONResponse(body, status_code=200 if status == "ready" else 503)


def _why_not(model: str | None, nodes: int) -> str:
    """Without the nodes' names: everybody can read it."""
    if model is not None and not nodes:
        return f"No node serves the model {model!r}: see GET /v1/models."
    which = "of the fleet" if model is None else f"of the model {model!r}"
    return f"All nodes {which} ({nodes}) fail or are drained: see the log and `fleetgate status`."


async def _offered(request: Request, pipeline: Pipeline, fleet: Fleet) -> list[OfferedModel]:
    """By name: an order that no node and no gateway changes between two pages."""
    headers = dict(request.headers.raw)
    who = await pipeline.gate.identify(headers, address_of(request.client))
    settings, cards = pipeline.settings, fleet.cards()
    found = []
    for public, model in sorted(settings.models.offered(who, cards.keys())):
        policy = settings.policies.of(who.tenant.rules, model)
        described = settings.models.described(public)
        found.append(OfferedModel(public, cards[model], fleet.window(model), described, policy))
    return found


def _is_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _dialect(request: Request) -> Dialect:
    """The dialect of an error: that of the endpoint closest to the path, else messages' for Anthropic's clients, and
    OpenAI's by default."""
    path = request.url.path
    found = [dialect for dialect in DIALECTS if path.startswith(dialect.path)]
    if not found and _is_anthropic(request):
        found = [dialect for dialect in DIALECTS if dialect.anthropic]
    return found[0] if found else DIALECTS[0]


def _answer(request: Request, body: object) -> Response:
    return JSONResponse(body, headers=_ids(request))


def _error(request: Request, error: GatewayError) -> Response:
    status, headers, body = whole_answer(error, _dialect(request), request_id_of(dict(request.headers.raw)))
    answer = Response(body, status_code=status, media_type=_JSON)
    answer.raw_headers = list(headers)
    return answer


def _ids(request: Request) -> dict[str, str]:
    pairs = id_headers(request_id_of(dict(request.headers.raw)))
    return {name.decode(): value.decode() for name, value in pairs}
