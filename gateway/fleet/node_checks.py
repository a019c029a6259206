"""What a node is asked beside its probes: trials show that it serves, the canary shows what it can do.

Probes alone readmit no node: an API server answers them while its engine is dead. A node whose breaker is open for more
than lateness has to pass a trial first, a completion of one token (see `core.fleet.breaker`), so that no client's
request is the trial. A node that failed a client's request has to pass one at once, since the request may be at fault.
A node that overran a budget has its canary run again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import structlog

from gateway.core.fleet.capabilities import BELIEVED, UNKNOWN, Capabilities
from gateway.fleet.canary import Canary
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_client import NodeClient, NodeRequestError
from gateway.fleet.probe import ask_one_token
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.probe_sharing import ProbeSharing
from gateway.telemetry.shortages import ResourceShortages, shortage_behind

log = structlog.get_logger("fleetgate.prober")

PROOF_TURN_SECONDS = 300.0
"""How long each gateway process waits for the one before it to have a node proven."""

PROOF_LOOK_SECONDS = 5.0
"""Between two looks whether it was."""


class NodeChecks:
    """One node's, one of each kind at a time and not too often. They run beside its probes."""

    __slots__ = (
        "_canaries",
        "_canary",
        "_client",
        "_fleet",
        "_node",
        "_prove_at",
        "_proving",
        "_settings",
        "_sharing",
        "_shortages",
        "_tasks",
        "_waits_since",
    )

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
        self._sharing = sharing
        self._waits_since: float | None = None
        self._prove_at = 0.0
        """Since when it waits to be proven, and when it is looked at next whether it was, in loop time."""
        self._node = node
        self._client = client
        self._canary = Canary()
        self._fleet = fleet
        self._shortages = shortages
        self._settings = settings
        self._canaries = canaries
        self._tasks: set[asyncio.Task[None]] = set()
        self._proving = False

    @property
    def wait(self) -> bool:
        """Whether one is wanted, and waits for its time."""
        node = self._node
        is_proven = self._proving or not (self._settings().canary and self._canary.due)
        return node.breaker.is_doubted or node.budget_suspected or self._canary.lost or not is_proven

    @property
    def knows_capabilities(self) -> bool:
        """Whether what the gateway needs to hold budgets was read, if it is read at all."""
        known = self._node.capabilities
        if not self._settings().canary:
            return known is not UNKNOWN and (known.native_budget is not False or self._canary.has_read)
        return self._canary.has_read and known is not UNKNOWN and known is not BELIEVED

    def restarted(self) -> None:
        """The node may be another process."""
        self._canary.restarted()
        self._waits_since = None
        self._prove_at = 0.0

    def forget(self) -> None:
        """Find out everything about the node anew."""
        for task in self._tasks:
            task.cancel()
        self._canary = Canary()
        self._proving = False

    def close(self) -> set[asyncio.Task[None]]:
        """End all that runs; returns what has still to end."""
        for task in self._tasks:
            task.cancel()
        return set(self._tasks)

    def begin(self) -> None:
        """Begin what is due."""
        node = self._node
        if not node.ready:
            return
        if self._settings().canary and self._canary.due and not self._proving and _now() >= self._prove_at:
            self._proving = True
            self._waits_since = self._waits_since or _now()
            self._start(self._prove())
        if node.breaker.begin_check(_now()):
            self._start(self._check())
        if self._settings().native and self._canary.begin_recheck(_now(), node.budget_suspected):
            self._start(self._recheck())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"check {self._node.name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("probe_loop_failed", node=self._node.name, exc_info=error)

    async def read_capabilities(self, cards: Mapping[str, Mapping[str, Any]]) -> None:
        """Read, before the node is ready, what the gateway needs to hold budgets for it."""
        if not self._settings().canary:
            if self._node.capabilities is UNKNOWN:
                self._node.capabilities = BELIEVED
            elif self._node.capabilities.native_budget is False and not self._canary.has_read:  # it overran a budget
                self._node.capabilities = replace(
                    await self._canary.read_capabilities(self._client, cards), native_budget=False
                )
        elif not self._canary.has_read or self._node.capabilities is UNKNOWN or self._node.capabilities is BELIEVED:
            with contextlib.suppress(NodeRequestError):  # it serves all the same: the gateway holds its budgets
                self._node.capabilities = await self._canary.read_capabilities(self._client, cards)

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

    async def _prove(self) -> None:
        """Have the node proven. It serves meanwhile, and also where the canary fails."""
        async with self._canaries:
            try:
                wanted = self._canary.due and self._node.ready and not await self._is_left_to_others()
            finally:
                self._proving = False
            if wanted:
                await self._prove_now()

    async def _is_left_to_others(self) -> bool:
        """Whether another gateway process has had the node proven, or is to do so before this one."""
        node, canary, started = self._node, self._canary, self._started
        starts = canary.starts
        found = await self._sharing.proven(node.spec.url, started, canary.capabilities)
        if canary.starts != starts or not canary.due:
            return True  # it has restarted meanwhile
        if found is not None:
            canary.adopt(found)
            node.capabilities = self._relied_on(found)
            _log_capabilities(node, None)
            return True
        rank = 0 if started is None else self._sharing.rank(node.spec.url, _now())
        self._prove_at = _now() + PROOF_LOOK_SECONDS
        return self._waits_since is not None and _now() < self._waits_since + rank * PROOF_TURN_SECONDS

    async def _prove_now(self) -> None:
        node, canary, started = self._node, self._canary, self._started
        node.budget_suspected = False
        starts = canary.starts
        try:
            await canary.prove(self._client, next(iter(node.cards), ""), _now())
            problem = None
        except Exception as error:  # the node serves on, whatever it answered: the gateway holds its budgets
            if self._is_own_shortage(error):
                canary.restarted()  # run it again
                return
            log.warning("canary_failed", node=node.name, exc_info=not isinstance(error, NodeRequestError))
            problem = str(error) or type(error).__name__
            canary.died()
        node.capabilities = self._relied_on(canary.capabilities)
        _log_capabilities(node, problem)
        if canary.starts == starts:
            await self._sharing.prove(node.spec.url, started, canary.capabilities)

    @property
    def _started(self) -> float | None:
        """When the node's process began, as its metrics tell it."""
        return None if self._node.load is None else self._node.load.started

    async def _recheck(self) -> None:
        """Find out again whether the node holds budgets. Without a clear answer nothing changes."""
        starts = self._canary.starts
        holds: bool | None = None
        problem = None
        try:
            holds = await self._canary.recheck(self._client, self._node.cards)
        except Exception as error:
            log.warning("canary_failed", node=self._node.name, exc_info=not isinstance(error, NodeRequestError))
            problem = str(error) or type(error).__name__
        finally:
            self._canary.end_recheck(_now(), holds)
        if self._canary.starts != starts or holds is None:
            return  # the node has restarted meanwhile, or did not answer
        self._node.budget_suspected = False
        if holds is not self._node.capabilities.native_budget:
            known = (
                self._node.capabilities
                if self._node.capabilities.think_end
                else replace(self._canary.capabilities, pace=self._node.capabilities.pace)
            )
            self._node.capabilities = replace(known, native_budget=holds)
            _log_capabilities(self._node, problem)

    def _relied_on(self, found: Capabilities) -> Capabilities:
        return found if self._settings().native else replace(found, native_budget=False)

    def _is_own_shortage(self, error: BaseException | None) -> bool:
        return is_own_shortage(error, self._node, self._shortages)


def is_own_shortage(error: BaseException | None, node: Node, shortages: ResourceShortages) -> bool:
    """Whether `error` says nothing about `node`: this machine had no connection to give."""
    cause = None if error is None else shortage_behind(error)
    if cause is None:
        return False
    shortages.note(cause, "probing a node")
    if not node.ready:
        node.last_error = f"not probed: the gateway's machine is out of resources ({cause})"
    return True


def _log_capabilities(node: Node, problem: str | None) -> None:
    found = node.capabilities
    emit = log.info if found.native_budget and found.native_off else log.warning
    emit(
        "node_canary_finished",
        node=node.name,
        holds_budgets=found.native_budget,
        follows_thinking_off=found.native_off,
        splits_reasoning=found.splits_reasoning,
        version=".".join(map(str, found.version or ())) or None,
        error=problem,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
