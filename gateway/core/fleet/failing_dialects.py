"""Whether all requests of one dialect fail on a model, though its nodes pass for ready.

A node's own trial is a completion. What fails in chat alone (its template, its reasoning parser) passes that trial. So
the outcomes of clients' requests are watched, a model and a dialect at a time:

    request                                    what follows
    answered by a model                        the dialect works: what failed before counts no more
    failed by its nodes, on the last attempt   one more in a row
    anything else (4xx, limits, full, left)    says nothing

`FAILURES` in a row, over at least `SECONDS`, are told. They are told only: a client is no witness (see `breaker`). One
that sends what no node can answer would otherwise take a whole model out, for everybody and on every gateway. Where all
of them are one tenant's, that is told with them: it may be its requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.telemetry.request_stats import RequestStats

FAILURES = 5
SECONDS = 5.0
FORGOTTEN = 900.0
"""Seconds without a request after which nothing is known any more."""

MOST = 1000
"""Models times dialects that are watched: names come from nodes."""

_BY_NODES = frozenset(
    {
        "node_error",
        "upstream_error",
        "upstream_unreachable",
        "upstream_cut",
        "upstream_timeout",
        "bad_upstream_response",
        "stream_not_resumable",
    }
)
"""The endings that are the nodes' doing, unless they refused the request (4xx)."""


class FailingDialect(NamedTuple):
    """`requests` in a row have failed over `seconds`, and none was answered; `error` is the last one's. `tenant`: whose
    all of them were; None where they were several tenants', or had no key."""

    model: str
    dialect: str
    requests: int
    seconds: float
    error: str
    tenant: str | None


@dataclass(slots=True)
class _Streak:
    first: float
    last: float
    requests: int
    error: str
    tenant: str | None


class FailingDialects:
    """What this process has seen. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._streaks: dict[tuple[str, str], _Streak] = {}

    def note(self, event: RequestStats, now: float) -> None:
        """A request has ended."""
        if event.ending == "ok":
            if self._streaks and event.attempts and event.computed:
                self._streaks.pop((event.model or "", event.dialect), None)
            return
        if event.ending not in _BY_NODES or event.level != "error" or not event.attempts or not event.model:
            return
        key = (event.model, event.dialect)
        tenant = None if event.key is None else event.tenant
        streak = self._streaks.get(key)
        if streak is None:
            if len(self._streaks) < MOST:
                self._streaks[key] = _Streak(now, now, 1, event.error or event.ending, tenant)
            return
        streak.last = now
        streak.requests += 1
        streak.tenant = tenant if tenant == streak.tenant else None
        streak.error = event.error or event.ending

    def failing(self, now: float) -> Iterator[FailingDialect]:
        """Those in which everything fails, by model and dialect."""
        for key in [key for key, streak in self._streaks.items() if now - streak.last > FORGOTTEN]:
            del self._streaks[key]
        for (model, dialect), streak in sorted(self._streaks.items()):
            seconds = streak.last - streak.first
            if streak.requests >= FAILURES and seconds >= SECONDS:
                yield FailingDialect(model, dialect, streak.requests, seconds, streak.error, streak.tenant)
