"""How many requests at once a node works best with, found from the pages of its metrics.

Below its knee a node that gets one request more makes more tokens a second. Above it the request waits in the node's
own queue, or all requests get slower; there it had better wait where it can still be put in order. `limit` is None
until a knee was seen, and then follows it, as the mean length of requests moves it:

    limit    the pages show                                                 then
    none     requests wait on `FULL_PAGES` pages in a row, no more run      what runs, and a few that wait
    none     a longer plateau made no more tokens than one with fewer       the running requests of the lower one
    found    requests wait on `FULL_PAGES` pages in a row, no more run      the same, if that is fewer, or more run
    found    the limit is used up, and nothing waits                        more by `GROWTH`
    raised   the same, and the tokens a second have grown                   more by twice as much as last time
    raised   the tokens a second have not                                   as before, for `HOLD` seconds
    any      the node has begun anew, or says nothing any more              none

The few that wait in a full node tell it from one that has room: there a limit that is used up leaves nothing waiting,
so one that was found too low does not last. They also fill a free place at once: where requests are done in one step
(embeddings, one token) hardly any are ever seen to run, and the node would be idle until the next ones come. Requests
that wait while more and more run are no sign: long prompts are computed one after the other. Pages on which more prompt
tokens were computed than tokens made say nothing of the rate.

Until a knee is seen, `trial` is what may be sent at once: `ROOM`, or twice what the node had while nothing waited.
So a burst does not end up in the queue of a node before that has shown what it can take.

A page may be that of one engine of several behind one address, and then tells a part of what runs. So a limit is used
up, too, where this gateway has sent its share of it.
"""

from collections.abc import Iterable, Sequence
from math import ceil, inf
from typing import NamedTuple

from gateway.core.fleet.node_metrics import NodeMetrics, computed_between, ended_per_second, rates_between

ROOM = 64
"""Requests at once that any node is sent."""

FEWEST = 4
"""Fewer requests that run are no knee."""

FEW = 0.05
"""Requests that wait in a full node, as a part of those that run; one at the least."""

FEW_SECONDS = 0.5
"""Or as many as it ends in this time, if that is more."""

FULL_PAGES = 3
"""Pages in a row on which requests wait, or that find this gateway's share of the limit sent."""

HOLD = 30.0
"""Seconds for which a limit is kept beyond which tokens did not grow."""

GROWTH = 0.2
"""The part of itself that a limit grows by at first."""

FASTEST = 1.0
"""The part of itself that it grows by at the most."""

STEP_PAGES = 2
"""Pages that a raised limit is judged by, behind the first: there the prompts that came with it are computed."""

RATE_SECONDS = 1.0
"""Tokens that were made in less time tell no rate."""

WORTH = 0.25
"""The part of its growth by which the rate has to rise for a raised limit to stay."""

USED = 0.9
"""The part of its limit that a node runs where that is used up."""

PLATEAU_PAGES = 15
"""Pages over which what runs has to be about the same for a plateau."""

STEADY = 1.3
"""How much more may run on a page of a plateau than on another."""

PLATEAUS = 8
"""Plateaus that are kept, the latest."""

PLATEAU_SECONDS = 1800.0
"""How long a plateau is believed."""

MANY_MORE = 1.5
"""How much more has to run on one of two plateaus that are compared."""

NO_MORE = 1.1
"""The rate of a plateau over that of a lower one, below which the lower one is the knee."""


class _Plateau(NamedTuple):
    """`running` requests made `rate` tokens a second, until `at`."""

    at: float
    running: int
    rate: float


class _Raise(NamedTuple):
    """The limit and the tokens a second (None: not known) before a limit was raised, the part of itself that it was
    raised by, and the time of that."""

    limit: int
    growth: float
    rate: float | None
    at: float


class ConcurrencyKnee:
    """The knee of one node. `limit`: requests at once; None where it is not known."""

    def __init__(self) -> None:
        self._sent: tuple[int, ...] = ()
        """What this gateway had sent, on each of the last pages."""
        self.forget()

    @property
    def trial(self) -> float:
        """Requests at once, of one gateway, while no limit is known; infinite where the node tells nothing."""
        return max(ROOM, 2 * self._proven) if self._told else inf

    @property
    def is_known(self) -> bool:
        """Whether there is anything to forget."""
        return self._told or self.limit is not None

    def forget(self) -> None:
        """Nothing is known of the node any more."""
        self.limit: int | None = None
        self._proven = 0
        self._told = False
        self._held_until = 0.0
        self._raised: _Raise | None = None
        self._plateaus: list[_Plateau] = []

    def observe(self, kept: Iterable[NodeMetrics], sent: int = 0, gateways: int = 1) -> None:
        """The last one of the pages that are `kept`, oldest first, is new. `sent`: requests that the node had of this
        gateway, one of `gateways`, when the page was asked for, or when it came if those were fewer. Where all of them
        end meanwhile and others come, that takes an idle node for one with room: a raise that full pages take back."""
        pages = tuple(kept)
        page = pages[-1]
        if len(pages) > 1 and _began_anew(pages[-2], page):
            self.forget()
        self._sent = (*self._sent[1 - FULL_PAGES :], sent)
        steady = min(self._sent) if len(self._sent) == FULL_PAGES else 0  # some may be on their way to the node
        if page.running is None or page.queued is None:
            if all(each.running is None or each.queued is None for each in pages[-FULL_PAGES:]):
                self.forget()
            return
        self._told = True
        if page.queued:
            if (full := _full_at(pages)) is not None:
                self._raised = None
                if self.limit is not None and page.running < self.limit:
                    full = min(full, self.limit)
                self.limit = full
            return
        self._proven = max(self._proven, page.running, steady)
        if self.limit is None:
            self._compare_plateaus(pages)
            return
        used = max(page.running, steady * gateways) >= USED * self.limit
        if self._raised is not None:
            self._judge(self._raised, pages, used)
        elif page.at >= self._held_until and used:
            self._raise(self.limit, GROWTH, pages)

    def _raise(self, limit: int, growth: float, pages: Sequence[NodeMetrics]) -> None:
        self._raised = _Raise(limit, growth, _rate(pages[-1 - STEP_PAGES :]), pages[-1].at)
        self.limit = ceil(limit * (1 + growth))

    def _hold(self, limit: int, now: float) -> None:
        self.limit = limit
        self._raised = None
        self._held_until = now + HOLD

    def _judge(self, raised: _Raise, pages: Sequence[NodeMetrics], used: bool) -> None:
        """Whether the raised limit stays, once there are pages enough on which it was used."""
        assert self.limit is not None
        since = [page for page in pages if page.at > raised.at][-1 - STEP_PAGES :]
        if len(since) <= STEP_PAGES:
            return
        if not used:
            self._raised = None  # there is no more to run
            return
        rate = _rate(since)
        if rate is not None and raised.rate is not None and rate < raised.rate * (1 + raised.growth * WORTH):
            self._hold(raised.limit, since[-1].at)
        else:
            self._raise(self.limit, min(FASTEST, 2 * raised.growth), pages)

    def _compare_plateaus(self, pages: Sequence[NodeMetrics]) -> None:
        plateau = _plateau(pages[-PLATEAU_PAGES:])
        if plateau is None:
            return
        fresh = [each for each in self._plateaus if each.at > plateau.at - PLATEAU_SECONDS]
        lower = [
            each.running
            for each in fresh
            if each.running * MANY_MORE <= plateau.running and each.rate * NO_MORE >= plateau.rate
        ]
        apart = [each for each in fresh if not plateau.running / STEADY <= each.running <= plateau.running * STEADY]
        self._plateaus = [*apart[1 - PLATEAUS :], plateau]
        if lower:
            self._hold(max(lower), plateau.at)


def _began_anew(before: NodeMetrics, page: NodeMetrics) -> bool:
    return before.generated is not None and page.generated is not None and page.generated < before.generated


def _full_at(pages: Sequence[NodeMetrics]) -> int | None:
    """The limit of a node that can run no more; None where it might."""
    last = pages[-FULL_PAGES:]
    running = [page.running or 0 for page in last if page.queued]
    if len(running) < FULL_PAGES or running[-1] > max(running[:-1]):
        return None
    most = max(FEWEST, *running)
    return most + max(1, ceil(FEW * most), ceil(FEW_SECONDS * ended_per_second(last[0], last[-1])))


def _plateau(pages: Sequence[NodeMetrics]) -> _Plateau | None:
    if len(pages) < PLATEAU_PAGES:
        return None
    lowest, most, total = pages[0].running or 0, 0, 0
    for page in pages:
        running = page.running or 0
        lowest, most, total = min(lowest, running), max(most, running), total + running
        if page.queued or lowest < FEWEST:
            return None
    if most > STEADY * lowest:
        return None
    rate = _rate(pages)
    return None if not rate else _Plateau(pages[-1].at, round(total / len(pages)), rate)


def _rate(pages: Sequence[NodeMetrics]) -> float | None:
    """Tokens a second over `pages`; None where it is not known, or prompts took the node's time."""
    first, last = pages[0], pages[-1]
    if last.at - first.at < RATE_SECONDS:
        return None
    rate = rates_between(first, last).tokens_per_second
    if rate is None or computed_between(first, last) > rate * (last.at - first.at):
        return None
    return rate
