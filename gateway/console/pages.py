"""The console's files: one page, its scripts and its styles, kept in memory and served without a session.

They have no data in them. Nothing is loaded from elsewhere, and nothing runs that is not one of these files: the
content security policy says so, and Trusted Types keep the scripts from writing markup.
"""

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from gateway.admin.problems import AdminError
from gateway.core.access.browser_guard import BrowserGuard

FOLDER = Path(__file__).parent / "static"
TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


class Pages:
    """`guard` keeps the page from being shown under names that are not the gateway's."""

    def __init__(self, guard: BrowserGuard) -> None:
        self._guard = guard
        self._files = {
            path.name: (path.read_bytes(), TYPES[path.suffix])
            for path in sorted(FOLDER.iterdir())
            if path.suffix in TYPES
        }

    @property
    def paths(self) -> list[str]:
        """Those that ask for no token."""
        return ["/", "/console", *(f"/console/static/{name}" for name in self._files)]

    def add_to(self, app: FastAPI) -> None:
        app.get("/", include_in_schema=False)(self.redirect)
        app.get("/console", include_in_schema=False)(self.page)
        app.get("/console/static/{name}", include_in_schema=False)(self.file)

    async def redirect(self) -> Response:
        return RedirectResponse("/console", 307)

    async def page(self, request: Request) -> Response:
        return self._serve(request, "index.html")

    async def file(self, request: Request, name: str) -> Response:
        return self._serve(request, name)

    def _serve(self, request: Request, name: str) -> Response:
        problem = self._guard.host_problem(dict(request.scope["headers"]))
        if problem is not None:
            raise AdminError(403, problem.rstrip("."), code="cross_site_request")
        found = self._files.get(name)
        if found is None:
            raise AdminError(404, f"The console has no file {name!r}")
        body, kind = found
        return Response(body, headers={"content-type": kind, "content-security-policy": PAGE_POLICY})
