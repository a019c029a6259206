"""One node's probes, round after round: whether it lives, which models it serves, how busy it is.

`core.fleet.probe_times` says what is due when, `NodeChecks` what else a node is asked.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

import structlog

from gateway.core.fleet.breaker import BreakerState
from gateway.core.fleet.found_node import FoundNode
from gateway.core.fleet.node_metrics import NodeMetrics, began_anew, read_node_metrics
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
        "_page_is_late",
        "_reconnected",
        "_settings",
        "_sharing",
        "_shortages",
        "_told_at",
        "_was_ready",
        "asking",
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
        """In its place, where it asks for health alone."""
        self._client = NodeClient(node.spec)
        self._checks = NodeChecks(node, self._client, fleet, shortages, settings, canaries, sharing)
        self._sharing = sharing
        self._fleet = fleet
        self._shortages = shortages
        self._settings = settings
        self._was_ready = node.ready
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
            self._checks.begin()

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

    def begin_health(self, now: float) -> "asyncio.Future[NodeReply] | None":
        """Ask a node that is known for its health, if nothing else is due: most rounds are no more, and a task for them
        would double their cost. None: `probe` it. `end_health` must follow."""
        settings, times = self._settings(), self.times
        soon = now + SOON * settings.interval
        if (
            not self._is_known
            or self.node.failing is not None
            or self._client.reconnected != self._reconnected
            or times.metrics_at(settings.interval, settings.quiet_pause, self._is_busy) <= soon
            or times.models_at(settings.quiet_pause) <= soon
        ):
            return None
        self.asking = self._client.begin_get("/health")
        if self.asking is None:
            return None
        self._was_ready = self.node.ready
        times.asked_at = now
        return self.asking.waiter

    def end_health(self, now: float) -> bool:
        """The reply has come, or has not in time; whether that says it all: else it is to be probed as any."""
        asking, self.asking = self.asking, None
        assert asking is not None
        node, settings = self.node, self._settings()
        is_late = not asking.waiter.done()
        reply = self._client.end_get(asking)
        if is_late:
            node.probe_failed(
                f"no answer to its probe within {settings.timeout:g} s",
                settings.failure_threshold,
                now,
                now - settings.interval,
            )
        elif reply is None or reply.status != 200:
            return False
        else:
            self.times.alive_at = now
            node.probe_answered(now)
            self.tell(now)
        return True

    def conclude(self, is_first: bool) -> None:
        """Begin what the round has shown to be due, and log where the node's readiness has changed."""
        node = self.node
        self.times.jitter = random.uniform(0.9, 1.1)
        self.times.saw(node.breaker.is_open, _now())
        self._checks.begin()
        if node.ready != self._was_ready or is_first:  # also where it never was: its URL may be mistyped
            emit, event = (log.info, "node_ready") if node.ready else (log.warning, "node_not_ready")
            emit(event, node=node.name, error=node.last_error)

    def begin_checks(self) -> None:
        """Begin the checks that failed requests have made due since the last round."""
        self._checks.begin()

    def forget(self) -> None:
        """Find out everything about the node anew."""
        self._checks.forget()
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
        self._models = digest
        self._reconnected = self._client.reconnected
        self.times.cards_at = _now()
        self.node.probe_succeeded(cards, _now())

    async def _read_load(self, seconds: float) -> None:
        """Best effort: the last load stays where none can be read."""
        sent = self.node.in_flight
        self.times.page_at = _now()
        try:
            async with asyncio.timeout(seconds):
                page = await self._client.get("/metrics")
        except TimeoutError:
            self._page_is_late = True
            return
        except NodeRequestError:
            return
        self._page_is_late = False
        if page.status != 200:
            return
        self._take(read_node_metrics(page.body, _now()), sent)

    def _take(self, load: NodeMetrics, sent: int) -> None:
        """A page of its metrics was read, here or by another process."""
        before = self.node.load
        self._fleet.load_told(self.node, load, self._settings().find_knee, sent)
        if before is not None and began_anew(before, load):  # faster than a probe could fail
            self._checks.capabilities.restarted()
            self.times.cards_at = -math.inf


def _now() -> float:
    return asyncio.get_running_loop().time()
