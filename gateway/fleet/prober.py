"""The prober: one timer for all nodes, which begins each node's round of probes when it is due.

A task for each node would cost more than its probes. Rounds that are due within `STEP` are begun together; those of
many new nodes are begun one after the other, `PACE` apart, and from then on each node keeps its own time.
"""

import asyncio
import contextlib
import heapq
import itertools
import math
from functools import partial

import structlog

from gateway.core.fleet.found_node import FoundNode
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_client import NodeReply, PendingReply
from gateway.fleet.node_probes import NodeProbes
from gateway.fleet.own_shortage import is_own_shortage
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.probe_sharing import ProbeSharing
from gateway.redis.client import RedisClient
from gateway.telemetry.shortages import ResourceShortages

log = structlog.get_logger("fleetgate.prober")

Access = tuple[str, str | None, str | None]

STEP, STEPS = 0.05, 40
"""Seconds within which rounds that are due are begun together: each batch has to fetch all that it runs from memory.
No more than the `STEPS`th part of an interval."""

PACE = 0.001
"""Seconds between the first rounds of two new nodes."""

CANARIES = 16
"""Nodes that are proven at once."""


class Prober:
    """The probes of each node, by the way in which it is reached."""

    def __init__(
        self, fleet: Fleet, settings: ProbeSettings, shortages: ResourceShortages, redis: RedisClient | None = None
    ) -> None:
        self._fleet = fleet
        self._shortages = shortages
        self._probes: dict[tuple[Node, Access], NodeProbes] = {}
        self._queue: list[tuple[float, int, NodeProbes]] = []
        """A heap; an entry holds where its time is the node's `queued_at`."""
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._probed: set[Node] = set()
        self._progress = asyncio.Event()
        self._canaries = asyncio.Semaphore(CANARIES)
        self.sharing = ProbeSharing(redis, fleet)
        self._by_url: dict[str, NodeProbes] = {}
        self.configure(settings)
        self._settings_now = lambda: self._settings
        self._on_attention = self._wake
        """Each one object for all nodes."""

    def configure(self, settings: ProbeSettings) -> None:
        """Go by `settings` from each node's next round on."""
        self._settings = settings
        self._step = min(STEP, settings.interval / STEPS)

    def sync(self) -> None:
        """Probe each node of the fleet, as it is reached now, and no others. Called at start and after every update of
        the fleet."""
        wanted = {(node, node.access): None for node in self._fleet.nodes}
        for gone in self._probes.keys() - wanted.keys():
            self._probes.pop(gone).close()
        now = asyncio.get_running_loop().time()
        for number, (node, access) in enumerate(each for each in wanted if each not in self._probes):
            probes = NodeProbes(node, self._fleet, self._shortages, self._settings_now, self._canaries, self.sharing)
            self._probes[node, access] = probes
            node.on_attention = self._on_attention
            self._enqueue(probes, now + number * PACE)
        self._probed.intersection_update(self._fleet.nodes)
        self._by_url = {probes.node.spec.url: probes for probes in self._probes.values()}

    async def share(self) -> None:
        """Exchange with the other gateway processes what is found, for ever."""
        while True:
            await asyncio.sleep(self.sharing.pause(self._settings.interval))
            try:
                for found in await self.sharing.exchange():
                    probes = self._by_url.get(found.url)
                    if probes is not None:
                        self._hear_of(probes, found)
            except Exception:
                log.exception("background_task_failed", task="probe sharing")

    def _hear_of(self, probes: NodeProbes, found: FoundNode) -> None:
        try:
            probes.hear(found)
        except Exception as error:  # noqa: BLE001 - logged there; the others' news are not lost for it
            self._log(probes, error)

    async def first_round(self, seconds: float) -> None:
        """Wait until every node was probed once, or for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(node in self._probed for node in self._fleet.nodes):
                    await self._progress.wait()
                    self._progress.clear()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ending = [task for probes in self._probes.values() for task in probes.close()]
        self._probes.clear()
        self._queue.clear()
        self._by_url = {}
        await asyncio.gather(*ending, return_exceptions=True)
        await self.sharing.leave()

    def _is_probed(self, probes: NodeProbes) -> bool:
        node = probes.node
        return self._probes.get((node, node.access)) is probes

    def _wake(self, node: Node) -> None:
        """There is something to find out about `node`."""
        probes = self._probes.get((node, node.access))
        if probes is not None and probes.task is None and probes.asking is None:
            self._enqueue(probes, asyncio.get_running_loop().time())

    def _enqueue(self, probes: NodeProbes, at: float) -> None:
        probes.queued_at = at
        heapq.heappush(self._queue, (at, next(self._numbers), probes))
        if at < self._timer_at:
            self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._sweep)

    def _sweep(self) -> None:
        """Begin the rounds that are due."""
        self._timer, self._timer_at = None, math.inf
        now = asyncio.get_running_loop().time()
        try:
            while self._queue and self._queue[0][0] <= now:
                at, _, probes = heapq.heappop(self._queue)
                if at == probes.queued_at and probes.task is None and self._is_probed(probes):
                    if probes.asking is not None:
                        self._hear(probes, now)
                    else:
                        self._look_at(probes, now)
        finally:
            if self._queue and (at := max(self._queue[0][0], now + self._step)) < self._timer_at:
                self._set_timer(at)  # also where one was set above, for the replies that are waited for

    def _look_at(self, probes: NodeProbes, now: float) -> None:
        """Do what is due of a node. After an unexpected failure it is looked at again an interval later."""
        try:
            self._begin_due(probes, now)
        except Exception as error:  # noqa: BLE001 - logged there
            self._log(probes, error)
            self._enqueue(probes, now + self._settings.interval)

    def _begin_due(self, probes: NodeProbes, now: float) -> None:
        if probes.round_at(now) <= now + self._step / 2:
            asking = probes.begin(now)
            if asking is None:
                self._begin(probes)
            else:
                self._await(probes, asking)
        else:
            probes.begin_checks(now)
            probes.tell(now)
            self._enqueue_next(probes, now)

    def _await(self, probes: NodeProbes, asking: PendingReply) -> None:
        asking.waiter.add_done_callback(partial(self._told, probes))
        self._enqueue(probes, probes.asking_until)

    def _enqueue_next(self, probes: NodeProbes, now: float) -> None:
        try:
            at = min(probes.round_at(now), probes.look_at(now))
        except Exception as error:  # noqa: BLE001 - logged there
            self._log(probes, error)
            at = now + self._settings.interval
        self._enqueue(probes, at)

    def _begin(self, probes: NodeProbes) -> None:
        probes.task = asyncio.create_task(self._round(probes), name=f"probe {probes.node.name}")

    def _told(self, probes: NodeProbes, waiter: "asyncio.Future[NodeReply]") -> None:
        """A node that was asked without a task has answered, or its connection broke."""
        if not waiter.cancelled():
            waiter.exception()  # it is looked at, also where nobody asks for it any more
        if probes.asking is not None and probes.asking.waiter is waiter and self._is_probed(probes):
            self._hear(probes, asyncio.get_running_loop().time())

    def _hear(self, probes: NodeProbes, now: float) -> None:
        """The reply has come, or its time is over."""
        goes_on = False
        try:
            goes_on = self._goes_on(probes, now)
        except Exception as error:  # noqa: BLE001 - logged there
            self._failed(probes, error, now)
        finally:
            if not goes_on:
                self._enqueue_next(probes, now)

    def _goes_on(self, probes: NodeProbes, now: float) -> bool:
        """Whether the round goes on behind this reply, with another question or as a task."""
        if not probes.end(now):
            self._begin(probes)
            return True
        if probes.asking is not None:
            self._await(probes, probes.asking)
            return True
        probes.conclude(is_first=False, now=now)
        return False

    async def _round(self, probes: NodeProbes) -> None:
        """One round of a node. After an unexpected failure everything about the node is found out anew."""
        node = probes.node
        try:
            await probes.probe()
            is_first = node not in self._probed
            self._probed.add(node)
            self._progress.set()
            probes.conclude(is_first, asyncio.get_running_loop().time())
        except Exception as error:  # noqa: BLE001 - logged there
            self._failed(probes, error, asyncio.get_running_loop().time())
        finally:
            probes.task = None
            if self._is_probed(probes):
                self._enqueue_next(probes, asyncio.get_running_loop().time())

    def _failed(self, probes: NodeProbes, error: Exception, now: float) -> None:
        """A round has failed by a fault of our own."""
        if not is_own_shortage(error, probes.node, self._shortages):
            probes.node.refused(f"probe failed: {error}", now)
            self._log(probes, error)
        probes.forget()

    def _log(self, probes: NodeProbes, error: Exception) -> None:
        log.error("probe_loop_failed", node=probes.node.name, exc_info=error)
