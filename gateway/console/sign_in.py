"""Signing in: an admin token and a person's name for a session, judged and throttled as bearer tokens are."""

from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.auth import AdminAccess
from gateway.admin.problems import AdminError
from gateway.api.middleware import address_of
from gateway.console.sessions import ANYBODY, Sessions
from gateway.core.console.session_token import name_problem
from gateway.core.json_text import dump

PATH = "/console/session"


class SignIn(BaseModel):
    """`name` is the person's own word, for the audit. `token` may be empty where none is configured."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    token: str = Field(default="", max_length=4096)


class SignInRoutes:
    """`needs_token`: whether an admin token is configured."""

    def __init__(self, sessions: Sessions, access: AdminAccess, needs_token: bool) -> None:
        self._sessions = sessions
        self._access = access
        self._needs_token = needs_token

    def add_to(self, app: FastAPI) -> None:
        app.get(PATH, include_in_schema=False)(self.show)
        app.post(PATH, include_in_schema=False)(self.sign_in)
        app.delete(PATH, include_in_schema=False)(self.sign_out)

    async def show(self, request: Request) -> Response:
        """Who is signed in; null where nobody is. Asks for no session itself."""
        headers = dict(request.scope["headers"])
        session = None if self._sessions.problem("GET", headers) else self._sessions.find(headers)
        person = None if session is None else {"name": session.person, "token": session.token, "ends": session.ends}
        return _json({"session": person, "needs_token": self._needs_token})

    async def sign_in(self, request: Request, given: SignIn) -> Response:
        headers = dict(request.scope["headers"])
        problem = self._sessions.problem("POST", headers)
        if problem is not None:
            raise AdminError(403, problem.rstrip("."), code="cross_site_request")
        wrong = name_problem(given.name)
        if wrong is not None:
            raise AdminError(422, f"The name {wrong}", "give the name that the audit shall show", field="name")
        address = address_of(request.scope["client"])
        token = ANYBODY
        if self._needs_token:
            token = self._access.judge(given.token.strip().encode(errors="replace"), address)
        session, cookie = self._sessions.sign_in(token, given.name.strip(), _is_secure(request), headers, address)
        answer = {"name": session.person, "token": session.token, "ends": session.ends}
        return _json({"session": answer, "needs_token": self._needs_token}, cookie)

    async def sign_out(self, request: Request) -> Response:
        headers = dict(request.scope["headers"])
        problem = self._sessions.problem("DELETE", headers)
        if problem is not None:
            raise AdminError(403, problem.rstrip("."), code="cross_site_request")
        address = address_of(request.scope["client"])
        return _json({"session": None}, await self._sessions.sign_out(_is_secure(request), headers, address))


def _is_secure(request: Request) -> bool:
    """Whether the browser came over TLS, be it to a proxy: its Origin says so."""
    return request.scope["scheme"] == "https" or request.headers.get("origin", "").startswith("https://")


def _json(value: Any, cookie: str | None = None) -> Response:
    answer = Response(dump(value), media_type="application/json")
    if cookie is not None:
        answer.headers["set-cookie"] = cookie
    return answer
