"""What a node is asked beside its probes: trials show that it serves, its canary shows what it can do.

Probes alone readmit no node: an API server answers them while its engine is dead. A node whose breaker is open for more
than lateness has to pass a trial first, a completion of one token (see `core.fleet.breaker`), so that no client's
request is the trial. A node that failed a client's request has to pass one at once, since the request may be at fault.
`CapabilityChecks` says when the canary runs.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gateway.fleet.capability_checks import CapabilityChecks
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_client import NodeClient
from gateway.fleet.own_shortage import is_own_shortage
from gateway.fleet.probe import ask_one_token
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.probe_sharing import ProbeSharing
from gateway.telemetry.shortages import ResourceShortages

log = structlog.get_logger("fleetgate.prober")


class NodeChecks:
    """One node's, one of each kind at a time and not too often. They run beside its probes."""

    __slots__ = ("_client", "_fleet", "_node", "_shortages", "_tasks", "capabilities")

    def __init__(
        self,
        node: Node,
        client: NodeClient,
        fleet: Fleet,
        shortages: ResourceShortages,
        settings: Callable[[], ProbeSettings],
        canaries: asyncio.Semaphore,
        sharing: ProbeSharing,
    ) -> None:
        """`canaries` bounds how many nodes are proven at once."""
        self.capabilities = CapabilityChecks(node, client, shortages, settings, canaries, sharing)
        self._node = node
        self._client = client
        self._fleet = fleet
        self._shortages = shortages
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def wait(self) -> bool:
        """Whether one is wanted, and waits for its time."""
        return self._node.breaker.is_doubted or self.capabilities.wait

    def forget(self) -> None:
        """Find out everything about the node anew."""
        for task in self._tasks:
            task.cancel()
        self.capabilities.forget()

    def close(self) -> set[asyncio.Task[None]]:
        """End all that runs; returns what has still to end."""
        for task in self._tasks:
            task.cancel()
        return set(self._tasks)

    def begin(self, now: float) -> None:
        """Begin what is due."""
        node = self._node
        if not node.ready:
            return
        if self.capabilities.begin_proof(now):
            self._start(self.capabilities.prove())
        if node.breaker.begin_check(now):
            self._start(self._check())
        if self.capabilities.begin_recheck(now):
            self._start(self.capabilities.recheck())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"check {self._node.name}")
        self._tasks = (*self._tasks, task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks = tuple([each for each in self._tasks if each is not task])
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("probe_loop_failed", node=self._node.name, exc_info=error)

    async def readmit(self) -> None:
        """Run the trial of a node whose breaker is open; a node that passes is on probation."""
        problem = await ask_one_token(self._client, next(iter(self._node.cards), ""))
        if problem is None:
            self._node.answered(_now())
            self._node.last_error = None
        elif not self._is_own_shortage(problem.error):
            self._node.breaker.trial_failed(_now())
            self._node.last_error = problem.message

    async def _check(self) -> None:
        """Run the trial of a ready node that failed a client's request. A late answer does not count: clients can fill
        the queue of a node, and hang detection finds one that hangs."""
        breaker = self._node.breaker
        try:
            problem = await ask_one_token(self._client, next(iter(self._node.cards), ""))
        finally:
            breaker.end_check(_now())
        if problem is None and self._node.breaker is breaker:
            self._node.check_passed()
        if problem is None or not problem.certain or self._is_own_shortage(problem.error):
            if problem is not None and self._node.is_silent(_now()):
                self._node.doubt(problem.message)  # it is asked again until it shows a sign of life
            return
        if self._node.breaker is breaker:
            self._fleet.check_failed(self._node, problem.message, _now())

    def _is_own_shortage(self, error: BaseException | None) -> bool:
        return is_own_shortage(error, self._node, self._shortages)


def _now() -> float:
    return asyncio.get_running_loop().time()
