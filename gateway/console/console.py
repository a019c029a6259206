"""The console: pages, sessions, and what they show, put together."""

from fastapi import FastAPI

from gateway.admin.auth import AdminAccess
from gateway.api.request_head import RequestHead
from gateway.console.feed import ConsoleFeed
from gateway.console.live import LiveRoute
from gateway.console.pages import Pages
from gateway.console.sessions import Sessions
from gateway.console.sign_in import PATH, SignInRoutes
from gateway.core.access.browser_guard import BrowserGuard


class Console:
    """`needs_token`: whether an admin token is configured."""

    def __init__(self, sessions: Sessions, guard: BrowserGuard, needs_token: bool) -> None:
        self.sessions = sessions
        self._pages = Pages(guard)
        self._needs_token = needs_token

    @property
    def open_paths(self) -> list[str]:
        """Those that ask for no session and no token."""
        return [*self._pages.paths, PATH]

    def add_to(self, app: FastAPI, access: AdminAccess, feed: ConsoleFeed) -> None:
        """Serve it from the admin application."""
        self._pages.add_to(app)
        SignInRoutes(self.sessions, access, self._needs_token).add_to(app)
        LiveRoute(feed, self.sessions).add_to(app)

    def may_play(self, head: RequestHead) -> bool:
        """Whether a request of the data plane may come in by the console's playground."""
        if self.sessions.find(head.headers) is None:
            return False
        return self.sessions.problem(head.method, head.headers) is None
