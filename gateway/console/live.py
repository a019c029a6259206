"""The console's stream of events, and the admin route that ends a request."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, ClassVar

from fastapi import APIRouter, FastAPI, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.access.audit import Audit, AuditEvent
from gateway.admin.auth import Who
from gateway.admin.problems import AdminError
from gateway.api.asgi import ClientStalled
from gateway.console.feed import ConsoleFeed
from gateway.console.orders import SharedId
from gateway.console.sessions import Sessions
from gateway.console.viewers import Viewer, Viewers

PATH = "/console/live"
AGAIN = b"retry: 2000\n\n"
"""After how many milliseconds a browser connects anew."""
AT_ONCE = b"retry: 0\n\n"
"""The same where a session is over: then it is refused, and its page asks to sign in."""


class LiveRoute:
    """Server-sent events: `snapshot` first, then a `delta` a second."""

    def __init__(self, feed: ConsoleFeed, sessions: Sessions) -> None:
        self._feed = feed
        self._sessions = sessions

    def add_to(self, app: FastAPI) -> None:
        app.get(PATH, include_in_schema=False)(self.live)

    async def live(self, request: Request) -> StreamingResponse:
        session = self._sessions.find(dict(request.scope["headers"]))
        if session is None:  # it ended meanwhile
            raise AdminError(401, "Nobody is signed in", "sign in at /console")
        viewer = self._feed.viewers.join(session.id)
        if viewer is None:
            raise AdminError(503, "Too many consoles are open", "close one", headers={"retry-after": "10"})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return _LiveAnswer(self._feed.viewers, viewer, _events(viewer, session.ends), headers)


class _LiveAnswer(StreamingResponse):
    """Holds the viewer's place until it ends, also where it ends before its first event."""

    def __init__(
        self, viewers: Viewers, viewer: Viewer, events: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._viewers = viewers
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(super().__call__(scope, receive, send))
        self._viewer.cut_off = sending.cancel
        try:
            await sending
        except asyncio.CancelledError:
            if not self._viewer.dropped or not sending.cancelled():
                raise
            raise ClientStalled from None
        finally:
            sending.cancel()
            self._viewer.cut_off = None
            self._viewers.leave(self._viewer)


async def _events(viewer: Viewer, ends: float) -> AsyncIterator[bytes]:
    yield AGAIN
    while (left := ends - time.time()) > 0:
        try:
            async with asyncio.timeout(left):
                event = await viewer.next_event()
        except TimeoutError:
            break
        if event is None:
            if viewer.session_ended:
                break
            return
        yield event
    yield AT_ONCE


class EndedRequest(BaseModel):
    """A request that was ended: whose it was, and in which phase it was in which process."""

    id: str
    tenant: str | None
    model: str | None
    node: str | None
    phase: str
    process: int


class EndRoutes:
    """Ends requests that are under way, in whichever process."""

    tag: ClassVar[str] = "requests"
    about: ClassVar[str] = "Requests that are under way."

    def __init__(self, feed: ConsoleFeed, audit: Audit) -> None:
        self._feed = feed
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        router.delete("/requests/{request_id:path}")(self.end_request)

    async def end_request(
        self,
        request_id: Annotated[str, Path(max_length=200, description="As in x-request-id.")],
        who: Who,
        tenant: Annotated[
            str | None, Query(max_length=128, description="Whose: clients choose ids, so two may have the same.")
        ] = None,
    ) -> EndedRequest:
        """End a request that is under way: its client gets the error `ended_by_operator`, its node stops working. Where
        requests of several tenants have the id, `tenant` has to say which is meant: else 409."""
        try:
            ended = await self._feed.orders.end(request_id, who.rpartition("@")[0], tenant)
        except SharedId as error:
            words = f"Requests of several tenants have the id {request_id!r} ({error})"
            raise AdminError(409, words, "say whose is meant: ?tenant=NAME", field="tenant") from None
        if ended is None:
            raise AdminError(404, f"No request {request_id!r} is under way", "it may have ended: look for its record")
        detail = {"tenant": ended.tenant, "model": ended.model, "phase": ended.phase}
        await self._audit.note(AuditEvent(who, "request ended", request_id, detail))
        return EndedRequest(id=request_id, **ended._asdict())
