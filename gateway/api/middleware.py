"""The layers before both the data plane and the ASGI application: trusted proxies, and CORS.

Each is there only where it is configured; neither ever waits. CORS is Starlette's middleware, for both.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gateway.api.errors import ERROR_HEADERS, ID_HEADERS
from gateway.api.request_head import Fields, RequestHead
from gateway.api.trusted_proxies import Peer, TrustedProxies
from gateway.core.http.addresses import plain_address, source_of
from gateway.core.limits.words import LIMIT_HEADERS
from gateway.core.resume.resumability import RESUMABLE_HEADER
from gateway.core.thinking.grant import GRANT_HEADERS
from gateway.core.thinking.loops import LOOP_HEADER

SHOWN_HEADERS = (*ID_HEADERS, *GRANT_HEADERS, RESUMABLE_HEADER, LOOP_HEADER, *ERROR_HEADERS, *LIMIT_HEADERS)
"""Headers of an answer that scripts of listed origins may read."""

log = structlog.get_logger("fleetgate.connection")

_FORWARDING = (b"x-forwarded-for", b"x-real-ip", b"forwarded")
"""Headers in which proxies report a client; the first is read."""

MAX_WARNED = 100
"""Addresses of which the log says that they sent one of these: anybody can."""

_PRIVATE_NETWORK = "access-control-request-private-network"

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Middleware:
    """Both, around an ASGI application and for the requests that it does not serve."""

    def __init__(self, app: AsgiApp, cors_origins: Sequence[str] = (), trusted_proxies: Sequence[str] = ()) -> None:
        self._cors = _cors(app, cors_origins) if cors_origins else None
        self.proxies = TrustedProxies(trusted_proxies)
        """Each of them stands for many clients."""
        self.adds_headers = bool(cors_origins)
        """Whether answers get headers for browsers: see `headers`."""
        self.app: AsgiApp = self._cors or app
        if trusted_proxies:
            self.app = _behind_proxies(self.app, self.proxies)
        self._warned: set[str] = set()

    def is_preflight(self, head: RequestHead) -> bool:
        """Whether a request is a CORS preflight, which the application answers."""
        return self._cors is not None and head.method == "OPTIONS" and b"access-control-request-method" in head.headers

    def address(self, peer: Peer, fields: Fields) -> str:
        """A client's address: that of its connection's peer, or the one that a trusted proxy as its peer reports."""
        return address_of(self.proxies.client(peer, fields))

    def warn_of_untrusted_proxy(self, peer: Peer, head: RequestHead) -> None:
        """Log, once for each address, that a proxy's report is not used: an operator who forgot to trust it has all its
        clients counted as one. Only the first `MAX_WARNED` addresses are logged, and remembered."""
        reported = next((name for name in _FORWARDING if name in head.headers), None)
        if reported is None:
            return
        address = address_of(peer)
        trusted = address in self.proxies
        if trusted and reported != b"forwarded":
            return
        source = source_of(address)
        if source in self._warned or len(self._warned) >= MAX_WARNED:
            return
        self._warned.add(source)
        if trusted:
            log.warning("forwarded_header_ignored", address=address, remedy="have this proxy send X-Forwarded-For, too")
        else:
            log.warning(
                "proxy_not_trusted",
                address=address,
                header=reported.decode(),
                remedy="if this is your proxy, add it to listen.trusted_proxies: without that all of its clients count "
                "as this one address; otherwise a client forged the header, and nothing needs to be done",
            )

    def headers(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """The headers for browsers of an answer to a request with these header `fields`."""
        if self._cors is None:
            return []
        if not any(name == b"origin" for name, _ in fields):
            return [(b"vary", b"Origin")]  # without Starlette: before 1.0 it assumes that there is an origin
        message: dict[str, Any] = {"type": "http.response.start", "headers": []}
        _run(self._cors.send(message, _nothing, Headers(raw=list(fields))))
        headers: list[tuple[bytes, bytes]] = message["headers"]
        return headers


def address_of(peer: Peer) -> str:
    """The address in an ASGI scope's `client`: None where there is no address (a Unix socket)."""
    return plain_address(peer[0]) if peer else "unknown"


class _Cors(CORSMiddleware):
    """Also lets pages of listed origins call a gateway in a private network (a preflight of Chrome's asks for it).

    Not where every origin may call: then nobody has reported of a page that it belongs there.
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        if self.allow_all_origins or _PRIVATE_NETWORK not in request_headers:
            return super().preflight_response(request_headers)
        asked = Headers(raw=[pair for pair in request_headers.raw if pair[0] != _PRIVATE_NETWORK.encode()])
        answer = super().preflight_response(asked)
        if answer.status_code == 200:
            answer.headers["access-control-allow-private-network"] = "true"
        return answer


def _cors(app: AsgiApp, origins: Sequence[str]) -> CORSMiddleware:
    return _Cors(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=SHOWN_HEADERS,
    )


def _behind_proxies(app: AsgiApp, proxies: TrustedProxies) -> AsgiApp:
    """`app`, with the client and the scheme that trusted proxies report in its scopes."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            peer, fields = scope["client"], scope["headers"]
            scheme = proxies.scheme(peer, fields, scope["scheme"])
            scope = {**scope, "client": proxies.client(peer, fields), "scheme": scheme}
        await app(scope, receive, send)

    return answer


async def _nothing(*_: Any) -> None:
    """Stands for the application, and for its ways to receive and to send."""


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("an ASGI layer had to wait")
