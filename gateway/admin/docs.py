"""The page on which people read and try the admin API: Swagger UI, out of this package, so that it works offline.

The page, its files and `/openapi.json` ask for no token: a browser sends none with a link. They hold no data of this
gateway. What is tried on the page is sent with the token that was given to its Authorize button.
"""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from gateway.admin.problems import AdminError

SWAGGER_UI = "5.35.0"
"""The version of swagger-ui-dist that lies here."""

SHA256: Mapping[str, str] = MappingProxyType(
    {
        "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
        "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    }
)
"""Of the files as the npm package has them, uncompressed."""

_FILES = Path(__file__).parent / "swagger_ui"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The page runs the package's own files, and asks nobody but the gateway that served it."""

OPEN_PATHS = ("/docs", "/openapi.json", *(f"/docs/{name}" for name in (*SHA256, "start.js")))
"""What asks for no token."""

_CACHED = {"cache-control": "no-cache"}
"""Browsers ask whether a file has changed before they use it again."""


PIECE = 64 * 1024
"""Bytes of an unpacked file that wait for a client at a time."""


class _UnpackedFiles:
    """The files for clients that take no gzip, who need no token: each is unpacked once."""

    def __init__(self) -> None:
        self._whole: dict[str, bytes] = {}
        self._one_at_a_time = asyncio.Lock()

    async def find(self, name: str) -> bytes:
        async with self._one_at_a_time:
            if name not in self._whole:
                self._whole[name] = await asyncio.to_thread(unpack, name)
            return self._whole[name]


async def _in_pieces(whole: bytes) -> AsyncIterator[bytes]:
    """A client that does not read holds one piece, and not the file."""
    for start in range(0, len(whole), PIECE):
        yield whole[start : start + PIECE]


def add_docs(app: FastAPI) -> None:
    """Serve the page and its files."""
    unpacked = _UnpackedFiles()

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        headers = {"content-security-policy": PAGE_POLICY}
        return FileResponse(_FILES / "index.html", headers=headers, media_type="text/html; charset=utf-8")

    @app.get("/docs/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        media_type = _TYPES.get(Path(name).suffix, "")
        if name == "start.js":
            return FileResponse(_FILES / name, headers=_CACHED, media_type=media_type)
        if name not in SHA256:
            raise AdminError(404, f"Unknown file {name!r}", "open /docs", code="unknown_path")
        packed = _FILES / f"{name}.gz"
        headers = {**_CACHED, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return FileResponse(packed, headers={**headers, "content-encoding": "gzip"}, media_type=media_type)
        whole = await unpacked.find(name)
        headers["content-length"] = str(len(whole))
        return StreamingResponse(_in_pieces(whole), headers=headers, media_type=media_type)


def unpack(name: str) -> bytes:
    """A file of Swagger UI. Raises ValueError where it is not what its package has."""
    whole = gzip.decompress((_FILES / f"{name}.gz").read_bytes())
    if hashlib.sha256(whole).hexdigest() != SHA256[name]:
        raise ValueError(f"{name} is not that of swagger-ui-dist {SWAGGER_UI}")
    return whole
