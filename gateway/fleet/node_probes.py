"""One node's probes, round after round: whether it lives, which models it serves, how busy it is.

`core.fleet.probe_times` says what is due when, `NodeChecks` what else a node is asked.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Final

import structlog

from gateway.core.fleet.breaker import BreakerState
from gateway.core.fleet.found_node import FoundNode
from gateway.core.fleet.node_metrics import NodeMetrics, began_anew
from gateway.core.fleet.node_metrics_page import NodeMetricsPage
from gateway.core.fleet.probe_times import SOON, ProbeTimes
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_checks import NodeChecks
from gateway.fleet.node_client import NodeClient, NodeReply, NodeRequestError, NodeUnreachable, PendingReply
from gateway.fleet.own_shortage import is_own_shortage
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.probe_sharing import TURN, ProbeSharing
from gateway.telemetry.shortages import ResourceShortages

log = structlog.get_logger("fleetgate.prober")

PAGE_SECONDS = 1.0
"""A page of metrics that takes longer says nothing of the node's health: from then on that is asked for first."""

LOOK_SECONDS = 0.5
"""Between two looks at a node of which a check is wanted that waits for its time."""


class _Question(Enum):
    """What a node that is in is asked. Of its metrics `NodeMetricsPage` knows the path."""

    HEALTH = "/health"
    METRICS = "/metrics"
    MODELS = "/v1/models"


_HEALTH: Final = _Question.HEALTH
_METRICS: Final = _Question.METRICS
_MODELS: Final = _Question.MODELS


class NodeProbes:
    """A round is `probe`, then `conclude`; `round_at` says when the next one is due.

    Of a node that is out, or not known, a round asks for all there is: `/health`, then `/v1/models`, which both have to
    answer 200, then `/metrics`, if there is one. Of one that is in, it asks for what is due.
    """

    __slots__ = (
        "_checks",
        "_client",
        "_fleet",
        "_heard_of_at",
        "_load_told_at",
        "_models",
        "_page",
        "_page_is_late",
        "_question",
        "_reconnected",
        "_sent",
        "_settings",
        "_sharing",
        "_shortages",
        "_told_at",
        "_was_ready",
        "asking",
        "asking_until",
        "node",
        "queued_at",
        "task",
        "times",
    )

    def __init__(
        self,
        node: Node,
        fleet: Fleet,
        shortages: ResourceShortages,
        settings: Callable[[], ProbeSettings],
        canaries: asyncio.Semaphore,
        sharing: ProbeSharing,
    ) -> None:
        """`canaries` bounds how many nodes are proven at once."""
        self.node = node
        self.times = ProbeTimes()
        self.queued_at = -1.0
        """The prober's: when it looks at this node next, in loop time."""
        self.task: asyncio.Task[None] | None = None
        """The prober's: the round that is under way."""
        self.asking: PendingReply | None = None
        """In its place, where it needs no task."""
        self.asking_until = 0.0
        """When it is given up, in loop time."""
        self._question = _HEALTH
        self._sent = 0
        """Requests that the node had of this process when its metrics were asked for."""
        self._client = NodeClient(node.spec)
        self._checks = NodeChecks(node, self._client, fleet, shortages, settings, canaries, sharing)
        self._sharing = sharing
        self._fleet = fleet
        self._shortages = shortages
        self._settings = settings
        self._was_ready = node.ready
        self._page = NodeMetricsPage()
        self._page_is_late = False
        self._reconnected = 0
        """Of the client, when the models were last read."""
        self._models = ""
        """The digest of its models."""
        self._told_at = self._load_told_at = self._heard_of_at = 0.0
        """When others were told that it lives, the metrics that they were told, and those that they told; loop time."""

    def round_at(self, now: float) -> float:
        """When the next round is due, in loop time."""
        settings, node = self._settings(), self.node
        self.times.turn = TURN * settings.interval * self.sharing_rank(now)
        return self.times.round_at(
            now, node.breaker.is_open, settings.interval, settings.quiet_pause, node.heard_at, self._is_busy
        )

    def look_at(self, now: float) -> float:
        """When there may be something to do before that: a check that waits for its time, or a token of a stream here,
        which the others are told before they ask the node."""
        at = now + LOOK_SECONDS if self._checks.wait else math.inf
        interval, node = self._settings().interval, self.node
        if self._sharing.shares and node.heard_at > max(self._heard_of_at, now - interval):
            at = min(at, max(self._told_at + TURN * interval, now + SOON * interval))
        return at

    def sharing_rank(self, now: float) -> int:
        """How many other gateway processes are to ask the node before this one: none where it has a bad sign of it."""
        sharing = self._sharing
        return sharing.rank(self.node.spec.url, now) if sharing.shares and self._believes_others else 0

    def tell(self, now: float) -> None:
        """Tell the others what this process knows by itself, if they do not know it."""
        if not self._sharing.shares:
            return
        node, times = self.node, self.times
        heard_at = node.heard_at if node.heard_at > self._heard_of_at else 0.0
        alive_at = max(times.alive_at, heard_at)
        if self._believes_others and alive_at > self._told_at:
            self._told_at = now
            load = node.load
            if load is None or load.at <= max(self._heard_of_at, self._load_told_at):
                load = None  # each page is told once: how often one shows the same counts
            else:
                self._load_told_at = load.at
            self._sharing.tell(FoundNode(node.spec.url, min(alive_at, now), self._models, load))

    def hear(self, found: FoundNode) -> None:
        """Another process has found this. What this one knows by itself is believed before that."""
        if not self._believes_others:
            return
        node, times, now = self.node, self.times, _now()
        self._told_at = max(self._told_at, found.at)
        times.alive_at = max(times.alive_at, found.at)
        times.cards_at = max(times.cards_at, found.at) if found.models == self._models else -math.inf
        load, before = found.load, node.load
        if load is not None and (before is None or load.at > before.at):
            times.page_at = max(times.page_at, load.at)
            self._heard_of_at = max(self._heard_of_at, load.at)
            self._take(load, node.in_flight)
        if load is not None or node.last_error is not None or node.breaker.state is not BreakerState.CLOSED:
            node.probe_answered(now)
        times.saw(False, now)
        if self._checks.wait:
            self._checks.begin(now)

    async def probe(self) -> None:
        """One round: ask the node what is due, and run the trial that readmits it, where one is due."""
        node = self.node
        self._was_ready = node.ready
        self.times.asked_at = _now()
        answered = await (self._probe_live() if self._is_known else self._probe_anew())
        if answered and node.breaker.trial_due(_now()):
            await self._checks.readmit()
        if node.failing is not None:
            node.breaker.doubt()  # it may get no requests: only a trial finds out whether it is back
        elif answered:
            self.tell(_now())
        node.refresh(_now())

    def begin(self, now: float) -> PendingReply | None:
        """Begin a round of a node that is known and whose connection is kept: most are no more than one or two
        questions, and a task for them would double their cost. None: `probe` it. Each `asking` is to be ended by
        `end`, at `asking_until` at the latest."""
        if not self._is_known or self.node.failing is not None or self._client.reconnected != self._reconnected:
            return None
        question = self._due(now)
        if question is None or not self._ask(question, now):
            return None
        self._was_ready = self.node.ready
        self.times.asked_at = now
        return self.asking

    def end(self, now: float) -> bool:
        """The reply to `asking` has come, or has not in time, and what is due next is asked. Whether the round goes on
        in this way, or has ended where `asking` is None: else it is to be probed as any."""
        asking, self.asking = self.asking, None
        assert asking is not None
        is_late = not asking.waiter.done()
        reply = self._client.end_get(asking, now)
        if is_late and self._question is not _METRICS:
            settings = self._settings()
            error = f"no answer to its probe within {settings.timeout:g} s"
            self.node.probe_failed(error, settings.failure_threshold, now, now - settings.interval)
            return True
        if reply is None or not self._hear_reply(reply, now):
            self._page_is_late = self._page_is_late or is_late
            return False
        question = self._due(now)
        if question is not None:
            return self._ask(question, now)
        self.node.probe_answered(now)
        self.tell(now)
        return True

    def _due(self, now: float) -> "_Question | None":
        """What is asked next of a node that is known; None where nothing is due."""
        settings, times = self._settings(), self.times
        soon = now + SOON * settings.interval
        is_page_due = times.metrics_at(settings.interval, settings.quiet_pause, self._is_busy) <= soon
        if is_page_due and not self._page_is_late:
            return _METRICS
        if times.health_at(settings.interval, self.node.heard_at) <= soon:
            return _HEALTH
        if times.models_at(settings.quiet_pause) <= soon:
            return _MODELS
        return _METRICS if is_page_due else None

    def _ask(self, question: "_Question", now: float) -> bool:
        """Whether there was a connection to ask it over."""
        asking = self._client.begin_get(self._page.path if question is _METRICS else question.value)
        if asking is None:
            return False
        timeout = self._settings().timeout
        if question is _METRICS:
            self.times.page_at, self._sent = now, self.node.in_flight
            timeout = timeout if self._page_is_late else min(PAGE_SECONDS, timeout)
        self.asking, self.asking_until, self._question = asking, now + timeout, question
        return True

    def _hear_reply(self, reply: NodeReply, now: float) -> bool:
        """Whether it says all that was asked, and the node is known as before."""
        if self._question is _METRICS:
            self._read_page(reply, self._sent, now)
            return self._is_known
        if reply.status != 200 or not self._is_known:
            return False
        if self._question is _HEALTH:
            self.times.alive_at = now
            return True
        try:
            cards, digest = self._fleet.known_cards.read(reply.body)
        except ValueError:
            return False
        self._hear_models(cards, digest, now)
        return True

    def conclude(self, is_first: bool, now: float) -> None:
        """Begin what the round has shown to be due, and log where the node's readiness has changed."""
        node = self.node
        self.times.jitter = 0.9 + 0.2 * random.random()
        self.times.saw(node.breaker.is_open, now)
        self._checks.begin(now)
        if node.ready != self._was_ready or is_first:  # also where it never was: its URL may be mistyped
            emit, event = (log.info, "node_ready") if node.ready else (log.warning, "node_not_ready")
            emit(event, node=node.name, error=node.last_error)

    def begin_checks(self, now: float) -> None:
        """Begin the checks that failed requests have made due since the last round."""
        self._checks.begin(now)

    def forget(self) -> None:
        """Find out everything about the node anew."""
        self._checks.forget()
        self._page.forget()
        self.times.forget()

    def close(self) -> set[asyncio.Task[None]]:
        """The node is not probed any more; returns what has still to end."""
        ending = self._checks.close()
        if self.task is not None:
            self.task.cancel()
            ending.add(self.task)
        if self.asking is not None:
            self.asking.connection.abort()
        self._client.close()
        return ending

    @property
    def _believes_others(self) -> bool:
        """Whether the node is known, and this process has no bad sign of it: what others find does not outweigh one."""
        node = self.node
        return self._is_known and node.failing is None and not node.failed_probes and not node.breaker.is_doubted

    @property
    def _is_known(self) -> bool:
        """Whether it is in, and what it serves and can do was read since it began."""
        return not self.node.breaker.is_open and self.times.cards_at > 0 and self._checks.capabilities.are_known

    @property
    def _is_busy(self) -> bool:
        load = self.node.load
        return self.node.in_flight > 0 or (load is not None and bool(load.running or load.waiting))

    async def _probe_anew(self) -> bool:
        """Ask for all there is; whether it answered."""

        async def ask() -> None:
            await self._ask_health()
            await self._read_models()

        if not await self._answers(ask):
            return False
        await self._read_load(self._settings().timeout)
        return True

    async def _probe_live(self) -> bool:
        """Ask for what is due; whether it answered."""
        settings, times = self._settings(), self.times
        soon = times.asked_at + SOON * settings.interval

        def page_is_due() -> bool:
            return times.metrics_at(settings.interval, settings.quiet_pause, self._is_busy) <= soon

        async def ask() -> None:
            if times.health_at(settings.interval, self.node.heard_at) <= soon:
                await self._ask_health()
            if self._client.reconnected != self._reconnected:
                times.forget()  # another process may have begun
            if times.models_at(settings.quiet_pause) <= soon:
                await self._read_models()
            else:
                self.node.probe_answered(_now())

        if page_is_due() and not self._page_is_late:
            await self._read_load(min(PAGE_SECONDS, settings.timeout))
        if not await self._answers(ask):
            return False
        if page_is_due():
            await self._read_load(settings.timeout)
        return True

    async def _answers(self, ask: Callable[[], Awaitable[None]]) -> bool:
        """Whether the node answered what `ask` asks; what that says of the node is noted."""
        settings, node = self._settings(), self.node
        failure_threshold, since = settings.failure_threshold, _now() - settings.interval
        try:
            async with asyncio.timeout(settings.timeout):
                await ask()
        except TimeoutError:
            node.probe_failed(f"no answer to its probe within {settings.timeout:g} s", failure_threshold, _now(), since)
        except NodeUnreachable as error:
            if is_own_shortage(error, node, self._shortages):
                return False
            self._checks.capabilities.restarted()
            self._page.forget()
            self.times.forget()
            if node.heard_at <= since:
                node.refused(f"connection failed: {error}", _now())
        except (NodeRequestError, ValueError) as error:
            node.probe_failed(str(error) or type(error).__name__, failure_threshold, _now(), since)
        else:
            return True
        return False

    async def _ask_health(self) -> None:
        health = await self._client.get("/health")
        if health.status != 200:
            raise ValueError(f"/health answered {health.status}")
        self.times.alive_at = _now()

    async def _read_models(self) -> None:
        """Read its model cards, and what it can do; a `NodeRequestError` or ValueError says why it is not ready."""
        listing = await self._client.get("/v1/models")
        if listing.status != 200:
            raise ValueError(f"/v1/models answered {listing.status}")
        cards, digest = self._fleet.known_cards.read(listing.body)
        await self._checks.capabilities.read(cards)
        self._hear_models(cards, digest, _now())

    def _hear_models(self, cards: Mapping[str, Mapping[str, Any]], digest: str, now: float) -> None:
        self._models = digest
        self._reconnected = self._client.reconnected
        self.times.cards_at = now
        self.node.probe_succeeded(cards, now)

    async def _read_load(self, seconds: float) -> None:
        """Best effort: the last load stays where none can be read."""
        sent = self.node.in_flight
        self.times.page_at = _now()
        try:
            async with asyncio.timeout(seconds):
                page = await self._client.get(self._page.path)
        except TimeoutError:
            self._page_is_late = True
            return
        except NodeRequestError:
            return
        self._read_page(page, sent, _now())

    def _read_page(self, reply: NodeReply, sent: int, now: float) -> None:
        self._page_is_late = False
        path = self._page.path
        load = self._page.read(reply.status, reply.body, now)
        if load is not None:
            self._take(load, sent)
        elif self._page.path != path:
            self.times.page_at = -math.inf  # the whole page is asked for in the same round

    def _take(self, load: NodeMetrics, sent: int) -> None:
        """A page of its metrics was read, here or by another process."""
        before = self.node.load
        self._fleet.load_told(self.node, load, self._settings().find_knee, sent)
        if before is not None and began_anew(before, load):  # faster than a probe could fail
            self._checks.capabilities.restarted()
            self._page.forget()
            self.times.cards_at = -math.inf


def _now() -> float:
    return asyncio.get_running_loop().time()
