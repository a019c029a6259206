"""The console's stream of events, and the admin route that ends a request."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar

from fastapi import APIRouter, FastAPI, Path, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from gateway.access.audit import Audit, AuditEvent
from gateway.admin.auth import Who
from gateway.admin.problems import AdminError
from gateway.console.feed import ConsoleFeed
from gateway.console.sessions import Sessions
from gateway.console.viewers import Viewer

PATH = "/console/live"
AGAIN = b"retry: 2000\n\n"
"""After how many milliseconds a browser connects anew."""


class LiveRoute:
    """Server-sent events: `snapshot` first, then a `delta` a second."""

    def __init__(self, feed: ConsoleFeed, sessions: Sessions) -> None:
        self._feed = feed
        self._sessions = sessions

    def add_to(self, app: FastAPI) -> None:
        app.get(PATH, include_in_schema=False)(self.live)

    async def live(self, request: Request) -> StreamingResponse:
        session = self._sessions.find(dict(request.scope["headers"]))
        ends = time.time() if session is None else session.ends
        viewer = self._feed.viewers.join()
        if viewer is None:
            raise AdminError(503, "Too many consoles are open", "close one", headers={"retry-after": "10"})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(viewer, ends), media_type="text/event-stream", headers=headers)

    async def _events(self, viewer: Viewer, ends: float) -> AsyncIterator[bytes]:
        try:
            yield AGAIN
            while (left := ends - time.time()) > 0:
                try:
                    async with asyncio.timeout(left):
                        event = await viewer.next_event()
                except TimeoutError:
                    return
                if event is None:
                    return
                yield event
        finally:
            self._feed.viewers.leave(viewer)


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
        self, request_id: Annotated[str, Path(max_length=200, description="As in x-request-id.")], who: Who
    ) -> EndedRequest:
        """End a request that is under way: its client gets the error `ended_by_operator`, its node stops working."""
        ended = await self._feed.orders.end(request_id, who.rpartition("@")[0])
        if ended is None:
            raise AdminError(404, f"No request {request_id!r} is under way", "it may have ended: look for its record")
        detail = {"tenant": ended.tenant, "model": ended.model, "phase": ended.phase}
        await self._audit.note(AuditEvent(who, "request ended", request_id, detail))
        return EndedRequest(id=request_id, **ended._asdict())
