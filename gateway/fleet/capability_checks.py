"""When one node's canary runs, and what the gateway relies on of what it finds.

Of several gateway processes one has a node proven (`ProbeSharing`), one after the other where nothing comes of it. A
node that overran a budget has its canary run again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from gateway.core.fleet.capabilities import BELIEVED, UNKNOWN, Capabilities
from gateway.fleet.canary import Canary
from gateway.fleet.node import Node
from gateway.fleet.node_client import NodeClient, NodeRequestError
from gateway.fleet.own_shortage import is_own_shortage
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.probe_sharing import ProbeSharing
from gateway.telemetry.shortages import ResourceShortages

log = structlog.get_logger("fleetgate.prober")

PROOF_TURN_SECONDS = 300.0
"""How long each gateway process waits for the one before it to have a node proven."""

PROOF_LOOK_SECONDS = 5.0
"""Between two looks whether it was."""


class CapabilityChecks:
    """One node's, one of each kind at a time. `begin_proof` and `begin_recheck` say whether one is due; where it is,
    `prove` or `recheck` must follow."""

    __slots__ = (
        "_canaries",
        "_canary",
        "_client",
        "_node",
        "_prove_at",
        "_proving",
        "_settings",
        "_sharing",
        "_shortages",
        "_waits_since",
    )

    def __init__(
        self,
        node: Node,
        client: NodeClient,
        shortages: ResourceShortages,
        settings: Callable[[], ProbeSettings],
        canaries: asyncio.Semaphore,
        sharing: ProbeSharing,
    ) -> None:
        """`canaries` bounds how many nodes are proven at once."""
        self._node = node
        self._client = client
        self._canary = Canary()
        self._shortages = shortages
        self._settings = settings
        self._canaries = canaries
        self._sharing = sharing
        self._proving = False
        self._waits_since: float | None = None
        self._prove_at = 0.0
        """Since when it waits to be proven, and when it is looked at next whether it was, in loop time."""

    @property
    def wait(self) -> bool:
        """Whether one is wanted, and waits for its time."""
        is_proven = self._proving or not (self._settings().canary and self._canary.due)
        return self._node.budget_suspected or self._canary.lost or not is_proven

    @property
    def are_known(self) -> bool:
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
        self._canary = Canary()
        self._proving = False

    def begin_proof(self, now: float) -> bool:
        """Whether the node is to be proven now."""
        if not self._settings().canary or not self._canary.due or self._proving or now < self._prove_at:
            return False
        self._proving = True
        self._waits_since = self._waits_since or now
        return True

    def begin_recheck(self, now: float) -> bool:
        """Whether it is to be found out now if the node holds budgets after all."""
        return self._settings().native and self._canary.begin_recheck(now, self._node.budget_suspected)

    async def read(self, cards: Mapping[str, Mapping[str, Any]]) -> None:
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

    async def prove(self) -> None:
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
        _count(node, problem, canary.capabilities.native_budget)
        _log_capabilities(node, problem)
        if canary.starts == starts:
            await self._sharing.prove(node.spec.url, started, canary.capabilities)

    @property
    def _started(self) -> float | None:
        """When the node's process began, as its metrics tell it."""
        return None if self._node.load is None else self._node.load.started

    async def recheck(self) -> None:
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
        if problem is not None or holds is not None:  # a busy node says nothing
            _count(self._node, problem, holds)
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

    def _is_own_shortage(self, error: BaseException) -> bool:
        return is_own_shortage(error, self._node, self._shortages)


def _count(node: Node, problem: str | None, holds: bool | None) -> None:
    node.canaries = node.canaries.after("failed" if problem is not None else "passed" if holds else "weak")


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
