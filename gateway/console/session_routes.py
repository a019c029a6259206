"""The admin routes that show the sessions of the console, and end one."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Path
from pydantic import BaseModel

from gateway.access.audit import Audit, AuditEvent
from gateway.admin.auth import Who
from gateway.admin.problems import AdminError
from gateway.admin.schemas import moment
from gateway.console.open_sessions import OpenSession, OpenSessions
from gateway.redis.client import RedisUnavailable


class SessionView(BaseModel):
    """A session of the console: who signed in, with which admin token, and when and from where it was last used."""

    id: str
    person: str
    token: str
    began: datetime
    ends: datetime
    address: str
    used: datetime


class EndedSession(SessionView):
    """A session that was ended. `everywhere` is false where other gateways could not be told yet: Redis did not
    answer, and they are told once it does."""

    everywhere: bool


class SessionRoutes:
    """Shows and ends sessions, of whichever process."""

    tag: ClassVar[str] = "console"
    about: ClassVar[str] = "Who is signed in to the console."

    def __init__(self, sessions: OpenSessions, audit: Audit) -> None:
        self._sessions = sessions
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.get("/console/sessions")(self.show_sessions)
        router.delete("/console/sessions/{id}")(self.end_session)

    async def show_sessions(self) -> list[SessionView]:
        """The sessions of the console that are open, the latest sign-in first, a thousand at most."""
        return [SessionView(**_facts(each)) for each in await self._sessions.all()]

    async def end_session(
        self, id: Annotated[str, Path(max_length=64, description="As the list has it.")], who: Who
    ) -> EndedSession:
        """End a session of the console: its cookie opens nothing any more, and its page asks to sign in. Every gateway
        refuses it within two seconds."""
        try:
            done = await self._sessions.end(id)
        except RedisUnavailable as error:
            words = f"{id!r} is no session of this process, and Redis does not list those of others ({error})"
            raise AdminError(503, words, "retry in a moment; nothing was changed") from None
        if done is None:
            remedy = "it may have ended: GET /admin/console/sessions lists those that are open"
            raise AdminError(404, f"No session {id!r} is open", remedy)
        ended, everywhere = done
        detail = {"person": ended.person, "token": ended.token, "address": ended.address}
        await self._audit.note(AuditEvent(who, "session ended", id, detail))
        return EndedSession(**_facts(ended), everywhere=everywhere)


def _facts(session: OpenSession) -> dict[str, Any]:
    times = {name: moment(getattr(session, name)) for name in ("began", "ends", "used")}
    return {"id": session.id, "person": session.person, "token": session.token, "address": session.address, **times}
