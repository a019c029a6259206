"""Who may do what on the admin listener, and who it was: an ASGI layer that reads nothing of a request but its head.

The first row that fits counts.

    a request                                       answer
    /health, /ready and the console's files; with   the application's
    tokens also /docs, /openapi.json, and /metrics
    if it is open
    with a session of the console, no bearer token  the application's, or 403 from other pages (`console.sessions`)
    /console/..., without a session                 401: what stands below it is for its own pages
    no token is configured, from a web page         403 (see `core.browser_guard`)
    no token is configured, changes with no JSON    415: a page can send other types without asking the browser
    no token is configured, anything else           the application's
    without a token, or not as a bearer             401
    after too many wrong ones from its address      429 with retry-after: not judged, or guessing would not be slow
    a right token                                   the application's
    a wrong token                                   401, logged
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import structlog
from fastapi import Depends, Request

from gateway.admin.problems import AdminError
from gateway.api.middleware import AsgiApp, address_of
from gateway.core.access.browser_guard import BrowserGuard
from gateway.core.access.tenants import same_secret
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.http.addresses import source_of
from gateway.core.telemetry.log_throttle import LogThrottle

log = structlog.get_logger("fleetgate.admin")

SECURITY_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""On every answer of the admin listener that does not set them itself, as the page at /docs does: data is not to be run
or framed."""


class SessionReader(Protocol):
    """The sessions of the console, as this layer asks them."""

    def who(self, headers: Mapping[bytes, bytes], address: str) -> str | None:
        """Whose session it is that is used from `address`, None where the request has none that holds."""

    def problem(self, method: str, headers: Mapping[bytes, bytes]) -> str | None:
        """Why a request with a session is refused all the same; None where it is not."""


SESSIONS_ONLY = "/console/"
"""Below it, a bearer token is not the admin's: the playground sends tenants' keys."""

_SECURITY_FIELDS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_READING = ("GET", "HEAD", "OPTIONS")


class AdminAccess:
    """Checks the admin tokens, of which there may be none on loopback. Notes who came, for `Who`."""

    def __init__(
        self,
        tokens: Mapping[str, str],
        guard: BrowserGuard,
        throttle: WrongKeyThrottle,
        open_paths: Iterable[str],
        sessions: SessionReader,
    ) -> None:
        """`tokens`: name to token. `guard` is asked where there are none. `open_paths` ask for nothing."""
        self._sessions = sessions
        self._tokens = tokens
        self._guard = guard
        self._throttle = throttle
        self._log_throttle = LogThrottle(crowded=True)
        self._open_paths = frozenset(open_paths)

    def around(self, app: AsgiApp) -> AsgiApp:
        """The layer in front of `app`."""

        async def layered(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            send = _with_security_headers(send)
            try:
                scope.setdefault("state", {})["who"] = self._admit(scope)
            except AdminError as refusal:
                await refusal.answer()(scope, receive, send)
            else:
                await app(scope, receive, send)

        return layered

    def _admit(self, scope: Mapping[str, Any]) -> str:
        """Whose request it is; AdminError where it is refused."""
        address = address_of(scope["client"])
        headers = dict(scope["headers"])
        if scope["path"] in self._open_paths:
            return f"anybody@{address}"
        if scope["path"].startswith(SESSIONS_ONLY) or b"authorization" not in headers:
            person = self._sessions.who(headers, address)
            if person is not None:
                return f"{self._with_session(person, scope['method'], headers, address)}@{address}"
            if scope["path"].startswith(SESSIONS_ONLY):
                raise AdminError(401, "Nobody is signed in", "sign in at /console")
        if self._tokens:
            return f"{self._name(headers.get(b'authorization', b''), address)}@{address}"
        problem = self._guard.problem(headers)
        if problem is not None:
            self._log_throttled("cross_site_request_refused", address, problem=problem)
            raise AdminError(403, problem.rstrip("."), code="cross_site_request")
        if scope["method"] not in _READING and not _is_json(headers):
            raise AdminError(415, "The body says not that it is JSON", "send it as 'content-type: application/json'")
        return f"anybody@{address}"

    def _name(self, authorization: bytes, address: str) -> str:
        """The name of the token that was presented."""
        scheme, _, presented = authorization.partition(b" ")
        presented = presented.strip()
        if scheme.lower() != b"bearer" or not presented:
            raise _unauthenticated("The admin token is missing", "send 'Authorization: Bearer TOKEN'")
        return self.judge(presented, address)

    def _with_session(self, person: str, method: str, headers: Mapping[bytes, bytes], address: str) -> str:
        problem = self._sessions.problem(method, headers)
        if problem is None:
            return person
        self._log_throttled("cross_site_request_refused", address, problem=problem)
        raise AdminError(403, problem.rstrip("."), code="cross_site_request")

    def judge(self, presented: bytes, address: str) -> str:
        """The name of the token that `address` has presented. Raises AdminError where it is none, or may not be
        judged yet."""
        now = time.monotonic()
        wait = self._throttle.wait(address, now)
        if wait > 0:
            self._log_throttled("admin_tokens_throttled", address)
            seconds = max(1, math.ceil(wait))
            words = "Too many invalid admin tokens from your address"
            raise AdminError(429, words, f"retry in {seconds} s", headers={"retry-after": str(seconds)})
        names = [name for name, token in self._tokens.items() if same_secret(presented, token)]
        if names:
            return names[0]
        self._throttle.wrong(address, now)
        self._log_throttled("wrong_admin_token", address)
        raise _unauthenticated("The admin token is invalid", "send admin.token, or one of admin.tokens")

    def _log_throttled(self, event: str, address: str, **facts: str) -> None:
        count = self._log_throttle.due(event + source_of(address), time.monotonic())
        if count:
            log.warning(event, address=address, requests=count, **facts)


def _unauthenticated(words: str, remedy: str) -> AdminError:
    return AdminError(401, words, remedy, headers={"www-authenticate": "Bearer"})


def _is_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a body, if there is one, says that it is JSON."""
    kind = headers.get(b"content-type")
    if kind is None:
        return headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
    essence = kind.partition(b";")[0].strip().lower()
    return essence == b"application/json" or (essence.startswith(b"application/") and essence.endswith(b"+json"))


def _with_security_headers(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            fields: Sequence[tuple[bytes, bytes]] = message.get("headers", ())
            given = {name.lower() for name, _ in fields}
            added = [field for field in _SECURITY_FIELDS if field[0] not in given]
            message = {**message, "headers": [*fields, *added]}
        await send(message)

    return sent


def _who(request: Request) -> str:
    who: str = request.state.who
    return who


Who = Annotated[str, Depends(_who)]
"""For routes behind an `AdminAccess`: the token's name and the address, as the audit tells them."""
