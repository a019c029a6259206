"""Sessions of the console: an admin token is shown once, and a cookie stands for it until the session's end.

Every process with the same admin tokens reads the sessions that another one made (`core.console.session_token`).
Cookies are not told apart by ports, so a cookie's name has the port that the browser was sent to.

    the request comes with                          it is
    no cookie of a session, or one that is over     judged by its bearer token, as ever
    a session, from a page of another origin        refused (see `core.access.browser_guard`)
    a session, to a name that is not the gateway's  refused
    a session, and changes something with no Origin refused: browsers always send one
    a session that was ended                        as one that is over (`open_sessions`)
    a session                                       served, as the person who signed in
"""

import secrets
import time
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

from gateway.console.open_sessions import OpenSessions
from gateway.core.access.browser_guard import BrowserGuard
from gateway.core.console.session_token import SESSION_SECONDS, Session, open_session, seal_session, session_key

MAX_COOKIES = 8192
"""Bytes of a Cookie header that are looked at."""

_READING = ("GET", "HEAD", "OPTIONS")
ANYBODY = "anybody"
"""In place of a token's name, where none is configured."""

Headers = Mapping[bytes, bytes]
"""With lower-case names."""


def session_keys(tokens: Mapping[str, str], response_key: bytes) -> dict[str, bytes]:
    """The keys of sessions by the names of the admin `tokens`; where there are none, one made of `response_key`."""
    secret = {name: token.encode() for name, token in tokens.items()} or {ANYBODY: response_key}
    return {name: session_key(each) for name, each in secret.items()}


class Sessions:
    """Makes and reads the cookies."""

    def __init__(self, keys: Mapping[str, bytes], guard: BrowserGuard, open_sessions: OpenSessions) -> None:
        """`keys`: those that sessions are signed by (`session_keys`)."""
        self._keys = keys
        self._guard = guard
        self._open = open_sessions

    def sign_in(self, token: str, person: str, secure: bool, headers: Headers, address: str) -> tuple[Session, str]:
        """A new session, and the Set-Cookie that carries it."""
        now = time.time()
        session = Session(token, person, now + SESSION_SECONDS, now, secrets.token_hex(8))
        self._open.note(session, address)
        sealed = seal_session(session, self._keys[token])
        return session, self._set_cookie(sealed, int(SESSION_SECONDS), secure, headers)

    async def sign_out(self, secure: bool, headers: Headers, address: str) -> str:
        """End the session, copies of its cookie too; returns the Set-Cookie that takes it from the browser."""
        session = self.find(headers)
        if session is not None:
            self._open.note(session, address)
            await self._open.end(session.id)
        return self._set_cookie("", 0, secure, headers)

    def who(self, headers: Headers, address: str) -> str | None:
        """Whose session it is that is used from `address`, as audit lines have it; None where the request has none that
        holds."""
        session = self.find(headers)
        if session is None:
            return None
        self._open.note(session, address)
        return session.who

    def find(self, headers: Headers) -> Session | None:
        """The session of a request, None where it has none that holds."""
        cookies = headers.get(b"cookie", b"")
        if not cookies or len(cookies) > MAX_COOKIES:
            return None
        for name in (_cookie_name(headers, secure=True), _cookie_name(headers, secure=False)):
            for part in cookies.decode("latin-1").split(";"):
                key, equals, value = part.strip().partition("=")
                session = open_session(value, self._keys, time.time()) if equals and key == name else None
                if session is not None and not self._open.is_ended(session.id):
                    return session
        return None

    def problem(self, method: str, headers: Headers) -> str | None:
        """Why a request that is authenticated by a cookie is refused; None where it is not."""
        found = self._guard.problem(headers)
        if found is not None:
            return found
        if headers.get(b"sec-fetch-site") == b"same-site":  # another port of this name, or a name beside it
            return "Only pages of the console itself may use its sessions."
        if not headers.get(b"host"):
            return "Send the Host header."
        if method not in _READING and b"origin" not in headers:
            return "Send the Origin header, as browsers do, or authenticate with 'Authorization: Bearer TOKEN'."
        return None

    def _set_cookie(self, value: str, seconds: int, secure: bool, headers: Headers) -> str:
        name = _cookie_name(headers, secure)
        cookie: SimpleCookie = SimpleCookie()
        cookie[name] = value
        attributes: dict[str, Any] = {"path": "/", "max-age": seconds, "httponly": True, "samesite": "Strict"}
        cookie[name].update(attributes | ({"secure": True} if secure else {}))
        return cookie[name].OutputString()


def _cookie_name(headers: Headers, secure: bool) -> str:
    """With the prefix that has browsers take it from no other name and over TLS alone, where there is TLS."""
    host = headers.get(b"host", b"").decode("latin-1")
    port = host.rpartition(":")[2] if not host.endswith("]") else ""
    port = port if port.isascii() and port.isdigit() and len(port) <= 5 else "0"
    return f"{'__Host-' if secure else ''}fleetgate-{port}"
