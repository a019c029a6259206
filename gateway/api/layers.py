"""The layers of ASGI that reach the data plane, which is none: what trusted proxies say of a client, and what browsers
are told about pages of other origins (CORS). There only where they are configured; neither ever waits.
"""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.api.heads import Fields, Head
from gateway.core.grants.grant import TOLD_HEADERS
from gateway.core.limits.words import LIMIT_HEADERS

SHOWN_HEADERS = (
    *("x-request-id", "request-id"),
    *TOLD_HEADERS,
    *("retry-after", "retry-after-ms", "x-should-retry"),
    *LIMIT_HEADERS,
    *("www-authenticate", "allow", "accept-encoding"),
)
"""What scripts of listed origins may read of an answer beside its body."""

_PRIVATE_NETWORK = "access-control-request-private-network"

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
Peer = tuple[str, int] | None


class Layers:
    """Both, around an ASGI application and for requests that do not pass it."""

    def __init__(self, app: AsgiApp, cors_origins: Sequence[str] = (), trusted_proxies: Sequence[str] = ()) -> None:
        self._cors = _cors(app, cors_origins) if cors_origins else None
        self._proxies = _proxies(_nothing, trusted_proxies) if trusted_proxies else None
        self.proxies: Collection[str | None] = self._proxies.trusted_hosts if self._proxies is not None else ()
        """The addresses that are believed; each stands for many clients."""
        self.tell = bool(cors_origins)
        """Whether answers have something to tell browsers: see `headers`."""
        self.app: AsgiApp = self._cors or app
        if trusted_proxies:
            self.app = _proxies(self.app, trusted_proxies)

    def asks_first(self, head: Head) -> bool:
        """Whether this is a browser's question for permission (a preflight), which the application answers."""
        return self._cors is not None and head.method == "OPTIONS" and b"access-control-request-method" in head.headers

    def address(self, peer: Peer, fields: Fields) -> str:
        """Where a client is: the peer of its connection, or what that one says where it is a trusted proxy."""
        if self._proxies is not None:
            scope = {"type": "http", "client": peer, "headers": fields, "scheme": "http"}
            _run(self._proxies(scope, _nothing, _nothing))
            peer = scope["client"]  # type: ignore[assignment]
        return address_of(peer)

    def headers(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """What an answer to a request with these header `fields` tells a browser."""
        if self._cors is None:
            return []
        message: dict[str, Any] = {"type": "http.response.start", "headers": []}
        _run(self._cors.send(message, _nothing, Headers(raw=list(fields))))
        told: list[tuple[bytes, bytes]] = message["headers"]
        return told


def address_of(peer: Peer) -> str:
    """The address in an ASGI scope's `client`: None where there is no address (a Unix socket)."""
    return peer[0] if peer else "unknown"


class _Cors(CORSMiddleware):
    """Also lets pages of listed origins call a gateway in a private network (a preflight of Chrome's asks for it).

    Not where every origin may call: then nobody has said of a page that it belongs there.
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


def _proxies(app: AsgiApp, trusted: Sequence[str]) -> Any:
    return ProxyHeadersMiddleware(app, trusted_hosts=list(trusted))


async def _nothing(*_: Any) -> None:
    """Stands for the application, and for its ways to receive and to send."""


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("an ASGI layer had to wait")
